"""EDM on CIFAR-10, class-conditional, with the paper's settings (Karras et al. 2022, table 7).

    genjax train --config=configs/cifar10/edm.py --workdir=runs/cifar10_edm

The paper reports an FID of 1.79 (Inception features, 50,000 samples) after 200 million images, with augmentation
that this config lacks. The half-life of the average is half a million images. Run so far in mode "smoke" alone. It
needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 390_625
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="diffusion",
                image_shape=(32, 32, 3),
                network=dict(
                    name="unet",
                    channels=8 if smoke else 128,
                    multipliers=(1, 2) if smoke else (2, 2, 2),
                    blocks_per_level=1 if smoke else 4,
                    attention_resolutions=(16,),
                    heads=1,
                    scale_shift=False,
                    skip_rescale=True,
                    dropout=0.13,
                    num_classes=10,
                    dtype="bfloat16",
                ),
                process=dict(name="edm", sigma_min=0.002, sigma_max=80.0, rho=7.0),
                parameterization=dict(name="edm", sigma_data=0.5),
                weighting=dict(name="edm", sigma_data=0.5),
                time_sampler=dict(name="log_normal", mean=-1.2, std=1.2),
                condition=("label",),
                condition_dropout=0.0,
                sampler=dict(
                    solver=dict(name="heun"),
                    times=dict(name="uniform"),  # of this process, the Karras grid
                    steps=4 if smoke else 17,  # and the last evaluation: 35 in all
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(
                        name="warmup_constant", init_value=0.0, peak_value=1e-3, warmup_steps=2 if smoke else 19_531
                    ),
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.99929, warmup=True),
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 512,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
