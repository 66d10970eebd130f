"""A shortcut model distilled from the flow-matching run, on scikit-learn's 8x8 handwritten digits.

    genjax train --config=configs/digits/flow_matching.py --workdir=runs/flow_matching
    genjax train --config=configs/digits/shortcut.py --workdir=runs/shortcut

The velocity is the teacher's; it samples with 1, 2, 4, ..., 32 steps. The Frechet distance of 1000 samples is 1.17 at 1
evaluation, 0.90 at 2, 0.81 at 4 and 0.77 at 8 (`python -m experiments.few_step`); the best solver brings the teacher
itself to 2.49 at 2 and to 0.73 at 20.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network and an untrained teacher."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 1500)  # the schedule follows --config.training.steps
    network = dict(
        name="unet",
        channels=16 if smoke else 32,
        multipliers=(1, 2),
        blocks_per_level=1,
        resampling="conv",
        num_classes=10,
        scalars=("step",),
    )
    teacher = dict(workdir="runs/flow_matching")
    if smoke:
        teacher = dict(
            name="untrained",
            family=dict(
                name="flow_matching",
                image_shape=(8, 8, 1),
                network=dict(name="mlp", hidden=16, depth=1, num_classes=10),
                condition=("label",),
            ),
        )
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="shortcut",
                image_shape=(8, 8, 1),
                network=network,
                parameterization=dict(name="velocity", time_scale=4.0),
                teacher=teacher,
                bootstrapped=0.25,
                finest=32,
                condition=("label",),
                condition_dropout=0.0,
                sampler=dict(solver=dict(name="ddim"), times=dict(name="trailing"), steps=2, final="none"),
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
