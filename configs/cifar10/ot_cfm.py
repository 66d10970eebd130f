"""Flow matching with minibatch optimal transport (OT-CFM) on CIFAR-10, as Tong et al. 2024 train it.

    genjax train --config=configs/cifar10/ot_cfm.py --workdir=runs/cifar10_ot_cfm

The settings are those of the authors' published code, which reports an FID of 3.5 (Inception features, 50,000 samples)
with an adaptive solver; here it is Heun's method with 134 evaluations. Noise is assigned within the whole batch of 128.
This config has been run in mode "smoke" alone. It needs the data set, prepared once; the error that says so has the
command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 400_000
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
                    blocks_per_level=1 if smoke else 2,
                    attention_resolutions=(16,),
                    head_channels=8 if smoke else 64,
                    dropout=0.1,
                    dtype="bfloat16",
                ),
                coupling=dict(name="minibatch_ot"),
                time_sampler=dict(name="uniform"),
                sampler=dict(
                    solver=dict(name="heun", coordinate="t"),
                    times=dict(name="trailing"),
                    steps=4 if smoke else 67,
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
            ema=dict(decay=0.9999, warmup=True),
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
