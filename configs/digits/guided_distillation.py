"""Guided distillation of EDM on scikit-learn's 8x8 handwritten digits: guidance in one evaluation, at any scale.

genjax train --config=configs/digits/edm.py --workdir=runs/edm
genjax train --config=configs/digits/guided_distillation.py --workdir=runs/guided_distillation

Samples have the scale --config.family.guidance, with half of the evaluations that the teacher takes for it.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network, with an untrained teacher."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 1000)  # the schedule follows --config.training.steps
    mlp = dict(name="mlp", hidden=16, depth=1, num_classes=10)
    unet = dict(
        name="unet",
        channels=32,
        multipliers=(1, 2),
        blocks_per_level=1,
        resampling="conv",
        num_classes=10,
    )
    network = mlp if smoke else unet
    model = dict(
        image_shape=(8, 8, 1),
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
                name="guided_distillation",
                teacher=dict(name="untrained", family=dict(name="diffusion", network=network, **model))
                if smoke
                else dict(workdir="runs/edm"),
                network=dict(network, scalars=("guidance",)),
                **model,
                guidance_range=(1.0, 3.0),
                guidance=1.5,
                weighting=dict(name="edm", sigma_data=0.5),
                time_sampler=dict(name="log_normal", mean=-1.2, std=1.2),
                sampler=dict(
                    solver=dict(name="heun"),
                    times=dict(name="uniform"),  # of this process, the Karras grid
                    steps=4 if smoke else 17,
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
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
