"""MeanFlow on CIFAR-10, unconditional, with the paper's settings and scripts (Geng et al. 2025).

    genjax train --config=configs/cifar10/meanflow.py --workdir=runs/cifar10/meanflow

The paper reports an FID (Inception features, 50,000 samples) of 2.92 with one evaluation, with EDM's augmentation that
this config lacks. Times and steps are scaled by 4 and not by 1000 before their sinusoidal embeddings, since what is
learned is a derivative in time. Run so far in mode "smoke" alone. It needs the data set, prepared once; the error that
says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 800_000
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="meanflow",
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
                    dropout=0.2,
                    scalars=("step",),
                ),
                parameterization=dict(name="velocity", time_scale=4.0),
                time_sampler=dict(name="logit_normal", mean=-2.0, std=2.0),
                unequal=0.75,
                power=0.75,
                c=1e-3,
                sampler=dict(solver=dict(name="ddim"), times=dict(name="trailing"), steps=1, final="none"),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(
                        name="warmup_constant", init_value=0.0, peak_value=6e-4, warmup_steps=2 if smoke else 10_000
                    ),
                )
            ),
            ema=dict(decay=0.99995, warmup=True),
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 1024,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
