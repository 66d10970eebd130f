"""Progressive distillation on scikit-learn's 8x8 handwritten digits: from 32 steps of DDIM to 1.

genjax train --config=configs/digits/edm.py --workdir=runs/edm
genjax train --config=configs/digits/progressive_distillation.py --workdir=runs/progressive_distillation

The students of all rounds are kept: genjax sample --workdir=runs/progressive_distillation --checkpoint=1200 --steps=2

Averages of the weights teach. The Frechet distance of 1000 samples is 1.13 at 1 evaluation, 1.09 at 2, 1.04 at 4 and
0.96 at 8 (`python -m experiments.few_step`); the best solver brings EDM itself to 2.38 at 2 and to 0.86 at 20.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network, with an untrained teacher."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    rounds = 2 if smoke else 5
    steps = FieldReference(8 if smoke else 1500)  # the rounds follow --config.training.steps
    each = (steps + rounds - 1) // rounds  # rounded up: after the last round the learning rate would begin anew
    model = dict(
        image_shape=(8, 8, 1),
        network=dict(name="mlp", hidden=16, depth=1, num_classes=10)
        if smoke
        else dict(
            name="unet",
            channels=32,
            multipliers=(1, 2),
            blocks_per_level=1,
            resampling="conv",
            num_classes=10,
        ),
        process=dict(name="edm"),
        parameterization=dict(name="edm", sigma_data=0.5),
        condition=("label",),
    )
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="progressive_distillation",
                teacher=dict(name="untrained", family=dict(name="diffusion", **model))
                if smoke
                else dict(workdir="runs/edm"),
                **model,
                condition_dropout=0.0,
                rounds=rounds,
                steps_per_round=each,
                averaged=True,
                sampler=dict(
                    solver=dict(name="ddim"),
                    times=dict(name="uniform"),  # of this process, the Karras grid
                    steps=1,
                    final="none",
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(name="linear_restarts", init_value=1e-3, period=each.identity()),
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.98, warmup=True),  # over the last steps of a round
            training=dict(
                steps=steps,
                batch_size=16 if smoke else 64,
                log_every=2 if smoke else 50,
                save_every=2 * each,  # a checkpoint of every round
                sample_every=each.identity(),
                sample_n=10 if smoke else 100,
                keep=rounds,
            ),
            evaluation=dict(
                n=20 if smoke else 1000,
                batch_size=20 if smoke else 250,
                feature_network=dict(name="digits_classifier", steps=20 if smoke else 600),
            ),
        )
    )
