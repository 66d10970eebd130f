"""A variational diffusion model (learnt noise schedule, the bound as loss) on scikit-learn's 8x8 handwritten digits.

genjax train --config=configs/digits/vdm.py --workdir=runs/vdm

A step has two gradients, one of the model and one of the schedule. It reaches a bound of 3.20 bits/dim on
held-out digits, and a Frechet distance of 3.51 ±0.23 (`python -m experiments.model_zoo`).
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 600)  # the schedule follows --config.training.steps
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="vdm",
                image_shape=(8, 8, 1),
                network=dict(
                    name="unet",
                    channels=16,
                    multipliers=(1, 2),
                    blocks_per_level=1,
                    resampling="conv",
                    num_classes=10,
                    out_channels=1,  # it gets Fourier features as channels too
                ),
                parameterization=dict(name="v"),
                noise_schedule=dict(name="monotone", features=64 if smoke else 256),
                fourier=(4, 5),  # of 17 levels; the paper has (7, 8) for 256
                condition=("label",),
                condition_dropout=0.1,
                draws=4 if smoke else 16,
                sampler=dict(
                    solver=dict(name="ddpm"),
                    times=dict(name="uniform"),  # of the learnt schedule
                    steps=4 if smoke else 50,
                    guidance=dict(name="classifier_free", scale=1.5),
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
                ),
                schedule=dict(name="adam", learning_rate=1e-2),
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
