"""Flow matching on CIFAR-10 with the paper's settings (Lipman et al. 2023, table 3).

    genjax train --config=configs/cifar10/flow_matching.py --workdir=runs/cifar10_flow_matching

The paper reports an FID of 6.35 (Inception features, 50,000 samples) with an adaptive solver at 142 evaluations. This
config has been run in mode "smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(4 if smoke else 391_000)  # the schedule follows --config.training.steps
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
                    channels=8 if smoke else 256,
                    multipliers=(1, 2) if smoke else (1, 2, 2, 2),
                    blocks_per_level=1 if smoke else 2,
                    attention_resolutions=(16,),
                    head_channels=8 if smoke else 64,
                    dtype="bfloat16",
                ),
                process=dict(name="rectified_flow"),
                time_sampler=dict(name="uniform"),
                sampler=dict(
                    solver=dict(name="heun", coordinate="t"),
                    times=dict(name="trailing"),
                    steps=4 if smoke else 71,
                    final="none",
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(
                        name="warmup_linear_decay",
                        init_value=0.0,
                        peak_value=5e-4,
                        warmup_steps=steps * 45 // 391,  # 45,000 of 391,000
                        decay_steps=steps.identity(),
                    ),
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.9999, warmup=True),
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 256,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
