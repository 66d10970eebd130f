"""A small DiT instead of a U-Net, on scikit-learn's 8x8 handwritten digits.

genjax train --config=configs/digits/dit.py --workdir=runs/dit
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 2000)  # the schedule follows --config.training.steps
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="diffusion",
                image_shape=(8, 8, 1),
                network=dict(
                    name="dit",
                    patch_size=2,
                    depth=2 if smoke else 6,
                    hidden=32 if smoke else 128,
                    heads=2 if smoke else 4,
                    num_classes=10,
                ),
                process=dict(name="cosine_vp"),
                parameterization=dict(name="v"),
                weighting=dict(name="min_snr", gamma=5.0),
                time_sampler=dict(name="low_discrepancy"),
                condition=("label",),
                condition_dropout=0.1,
                sampler=dict(
                    solver=dict(name="dpmpp_2m"),
                    times=dict(name="log_snr"),
                    steps=4 if smoke else 20,
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
                )
            ),
            ema=dict(decay=0.99, warmup=True),
            training=dict(
                steps=steps,
                batch_size=16 if smoke else 128,
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
