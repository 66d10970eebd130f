"""A classifier of noisy 8x8 handwritten digits, which guides diffusion models (Dhariwal & Nichol 2021).

genjax train --config=configs/digits/classifier.py --workdir=runs/classifier

It guides any diffusion model of the same images, here one that it takes without its labels:

    genjax train --config=configs/digits/ddpm.py --workdir=runs/ddpm
    genjax sample --workdir=runs/ddpm --guidance.name=classifier --guidance.log_prob.workdir=runs/classifier \\
        --guidance.scale=3.0 --guidance.guidance.name=classifier_free --guidance.guidance.scale=0.0

What it reaches has not been measured. It has no samples: `genjax evaluate` is for what it guides.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 500)  # the schedule follows --config.training.steps
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="classifier",
                image_shape=(8, 8, 1),
                network=dict(name="unet_encoder", num_classes=10, channels=16 if smoke else 32),
                process=dict(name="cosine_vp"),
                time_sampler=dict(name="low_discrepancy"),
            ),
            optimizers=dict(
                classifier=dict(
                    name="adamw",
                    learning_rate=dict(
                        name="warmup_cosine_decay",
                        init_value=0.0,
                        peak_value=1e-3,
                        warmup_steps=steps // 10,
                        decay_steps=steps.identity(),
                    ),
                    weight_decay=0.05,
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.99, warmup=True),
            training=dict(
                steps=steps,
                batch_size=16 if smoke else 64,
                log_every=2 if smoke else 50,
                save_every=steps // 2,
                eval_every=steps // 2,
            ),
            evaluation=dict(n=20 if smoke else 1000, batch_size=20 if smoke else 250),
        )
    )
