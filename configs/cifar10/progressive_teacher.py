"""The teacher of progressive distillation on CIFAR-10: x_0 in continuous time, as published (Salimans & Ho 2022).

    genjax train --config=configs/cifar10/progressive_teacher.py --workdir=runs/progressive_teacher

Settings are those of the authors' own config, which leaves the number of training steps open. Run so far in mode
"smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="diffusion",
                image_shape=(32, 32, 3),
                network=dict(name="mlp", hidden=16, depth=1)
                if smoke
                else dict(
                    name="unet",
                    channels=256,
                    multipliers=(1, 1, 1),
                    blocks_per_level=3,
                    attention_resolutions=(16, 8),
                    heads=1,
                    dropout=0.2,
                ),
                process=dict(name="cosine_vp"),
                parameterization=dict(name="x0"),
                weighting=dict(name="truncated_snr"),
                sampler=dict(
                    solver=dict(name="ddim"), times=dict(name="trailing"), steps=4 if smoke else 1024, final="none"
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adamw",
                    learning_rate=dict(
                        name="warmup_constant", init_value=0.0, peak_value=2e-4, warmup_steps=2 if smoke else 1000
                    ),
                    weight_decay=0.001,
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.9999, warmup=True),
            training=dict(
                steps=4 if smoke else 800_000,
                batch_size=4 if smoke else 128,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
