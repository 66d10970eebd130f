"""EDM2's magnitude-preserving U-Net on CIFAR-10, class-conditional (Karras et al. 2024, configuration G).

    genjax train --config=configs/cifar10/edm2.py --workdir=runs/cifar10_edm2

The paper has no results on CIFAR-10. Noise levels, optimizer, the learnt uncertainty and the averages are those of its
models of ImageNet at 64x64 (table 6, size XS), the learning rate's decay in as many images, and batches of 512 where
theirs are of 2048, with the rate divided by their root's ratio, 2; the levels are three, and dropout is that of EDM on
CIFAR-10. Averages of other widths are made afterwards: genjax evaluate --ema-widths=0.05,0.1,0.15.
Run so far in mode "smoke" alone. It needs the data set, prepared once; the error that says so has the command.
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
                    name="edm2_unet",
                    preset="small" if smoke else "xs",
                    channels=8 if smoke else 128,
                    head_channels=8 if smoke else 64,
                    multipliers=(1, 2) if smoke else (1, 2, 3),
                    attention_resolutions=() if smoke else (16, 8),
                    dropout=0.13,
                    num_classes=10,
                    dtype="bfloat16",
                ),
                process=dict(name="edm", sigma_min=0.002, sigma_max=80.0, rho=7.0),
                parameterization=dict(name="edm", sigma_data=0.5),
                weighting=dict(name="edm", sigma_data=0.5),
                time_sampler=dict(name="log_normal", mean=-0.8, std=1.6),
                uncertainty=dict(name="fourier"),
                condition=("label",),
                condition_dropout=0.0,
                sampler=dict(
                    solver=dict(name="heun"),
                    times=dict(name="uniform"),  # of this process, the Karras grid
                    steps=4 if smoke else 31,  # and the last evaluation: 63 in all
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(
                        name="inverse_sqrt",
                        peak_value=6e-3,
                        reference_steps=2 if smoke else 140_000,  # 35,000 batches of 2048
                        warmup_steps=2 if smoke else 19_531,  # 10 million images
                    ),
                    b1=0.9,
                    b2=0.99,
                    normalize_weights=("weight$",),
                )
            ),
            ema=dict(decay=0.9999, warmup=True, posthoc=dict(snapshot_every=2 if smoke else 4_096)),
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
