"""A noise-conditional score network with annealed Langevin dynamics on scikit-learn's 8x8 handwritten digits.

genjax train --config=configs/digits/ncsn.py --workdir=runs/ncsn

The ladder follows Song & Ermon 2020: its first level is about the largest distance between two images, and levels are
as far apart as their technique 2 has it for 64 dimensions, 1.36 times.

The Frechet distance of 1000 samples is 1.06 ±0.15, 1.6 times the floor (`python -m experiments.model_zoo`).
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 1000)  # the schedule follows --config.training.steps
    levels = 22
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="score",
                image_shape=(8, 8, 1),
                network=dict(
                    name="unet",
                    channels=16 if smoke else 32,
                    multipliers=(1, 2),
                    blocks_per_level=1,
                    resampling="conv",
                    num_classes=10,
                ),
                process=dict(name="ve", sigma_min=0.02, sigma_max=12.0),
                parameterization=dict(name="score"),
                matching=dict(name="denoising"),
                time_sampler=dict(name="levels", n=levels),
                condition=("label",),
                sampler=dict(
                    solver=dict(name="annealed_langevin", level_steps=2 if smoke else 10, epsilon=0.12),
                    times=dict(name="uniform"),  # of this process, a geometric ladder
                    steps=levels - 1,
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(
                        name="warmup_cosine_decay",
                        init_value=0.0,
                        peak_value=1e-3,
                        warmup_steps=steps // 10,
                        decay_steps=steps.identity(),
                    ),
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.99, warmup=True),
            training=dict(
                steps=steps,
                batch_size=16 if smoke else 64,
                log_every=2 if smoke else 50,
                save_every=steps // 2,
                sample_every=steps // 2,
                sample_n=10 if smoke else 100,
            ),
            evaluation=dict(
                n=20 if smoke else 1000,
                batch_size=20 if smoke else 250,
                feature_network=dict(name="digits_classifier", steps=20 if smoke else 600),
            ),
        )
    )
