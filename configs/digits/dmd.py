"""Distribution matching distillation on scikit-learn's 8x8 handwritten digits, in two steps.

genjax train --config=configs/digits/edm.py --workdir=runs/edm
genjax train --config=configs/digits/dmd.py --workdir=runs/dmd

Without regression on the teacher's pairs; the fake score keeps up by a higher learning rate, for several updates in a
step would be a scan, in which convolutions are slow on CPUs. The Frechet distance of 1000 samples is 1.60 at 1
evaluation and 1.62 at 2 (`python -m experiments.few_step`); the best solver brings EDM itself to 2.38 at 2 and to 0.86
at 20.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network, with an untrained teacher."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 1000)
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
                name="dmd",
                teacher=dict(name="untrained", family=dict(name="diffusion", **model))
                if smoke
                else dict(workdir="runs/edm"),
                **model,
                condition_dropout=0.0,
                weighting=dict(name="edm", sigma_data=0.5),
                time_sampler=dict(name="log_normal", mean=-1.2, std=1.2),
                sampler=dict(
                    solver=dict(name="consistency"),
                    times=dict(name="uniform"),
                    steps=2,
                    final="none",
                ),
            ),
            optimizers=dict(
                fake_score=dict(name="adam", learning_rate=1e-3, clip=1.0),
                model=dict(name="adam", learning_rate=3e-4, clip=1.0),
            ),
            ema=dict(decay=dict(model=0.99), warmup=True),
            training=dict(
                steps=steps,
                batch_size=16 if smoke else 64,
                log_every=2 if smoke else 50,
                save_every=steps // 2,
                sample_every=steps // 4,
                sample_n=10 if smoke else 100,
            ),
            evaluation=dict(
                n=20 if smoke else 1000,
                batch_size=20 if smoke else 250,
                feature_network=dict(name="digits_classifier", steps=20 if smoke else 600),
            ),
        )
    )
