"""Consistency distillation of EDM on scikit-learn's 8x8 handwritten digits, for two evaluations an image.

genjax train --config=configs/digits/edm.py --workdir=runs/edm
genjax train --config=configs/digits/consistency_distillation.py --workdir=runs/consistency_distillation

The Frechet distance of 1000 samples is 1.27 at 1 evaluation, 1.22 at 2, 1.22 at 4 and 1.26 at 8 (`python -m
experiments.few_step`); the best solver brings EDM itself to 2.38 at 2 and to 0.86 at 20.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network and an untrained teacher."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 800)
    small = dict(name="mlp", hidden=16, depth=1, num_classes=10)
    edm = dict(
        name="diffusion",
        image_shape=(8, 8, 1),
        network=small,
        process=dict(name="edm"),
        parameterization=dict(name="edm"),
        condition=("label",),
    )
    unet = dict(name="unet", channels=32, multipliers=(1, 2), blocks_per_level=1, resampling="conv", num_classes=10)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="consistency",
                image_shape=(8, 8, 1),
                network=small if smoke else unet,
                process=dict(name="edm"),
                parameterization=dict(name="consistency", sigma_data=0.5, epsilon=0.002),
                condition=("label",),
                condition_dropout=0.0,
                teacher=dict(name="untrained", family=edm) if smoke else dict(workdir="runs/edm"),
                solver=dict(name="heun"),
                discretization=dict(name="fixed", intervals=17),
                distance=dict(name="l2"),  # pseudo_huber unlearns small noise levels here
                sampler=dict(
                    solver=dict(name="consistency", epsilon=0.002),
                    times=dict(name="uniform"),
                    steps=2,
                    final="none",
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="radam",
                    learning_rate=dict(name="cosine_decay", init_value=5e-4, decay_steps=steps.identity()),
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
