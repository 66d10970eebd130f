"""Rectified flow on CIFAR-10 with the settings of the authors' published code (Liu et al. 2023): a DDPM++ network.

    genjax train --config=configs/cifar10/rectified_flow.py --workdir=runs/cifar10_rectified_flow

The paper reports an FID of 2.58 (Inception features, 50,000 samples) with an adaptive solver at 127 evaluations; here
it is Heun's method with 128. For reflow make pairs of this run and train on them, as configs/digits/reflow.py does:

    genjax pairs --workdir=runs/cifar10_rectified_flow --n=1000000 --output=runs/cifar10_pairs

This config has been run in mode "smoke" alone. It needs the data set, prepared once; the error that says so has the
command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 1_300_000
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="flow_matching",
                image_shape=(32, 32, 3),
                network=dict(
                    name="unet",
                    channels=8 if smoke else 128,
                    multipliers=(1, 2) if smoke else (1, 2, 2, 2),
                    blocks_per_level=1 if smoke else 4,
                    attention_resolutions=(16,),
                    heads=1,
                    scale_shift=False,
                    resampling="residual",
                    skip_rescale=True,
                    embedding="sinusoidal_endpoint",
                    dropout=0.15,
                    dtype="bfloat16",
                ),
                time_sampler=dict(name="uniform"),
                sampler=dict(
                    solver=dict(name="heun", coordinate="t"),
                    times=dict(name="trailing"),
                    steps=4 if smoke else 64,
                    final="none",
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(
                        name="warmup_constant", init_value=0.0, peak_value=2e-4, warmup_steps=2 if smoke else 5000
                    ),
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.999999, warmup=True),
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 128,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
