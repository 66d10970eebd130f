"""Glow (actnorm, invertible 1x1 convolutions, affine couplings) on scikit-learn's 8x8 digits, conditional on the class.

genjax train --config=configs/digits/glow.py --workdir=runs/glow

1500 steps take a minute and a half of one CPU core. Measured: 1,000 samples are at 2.08 times the distance's floor,
precision 92%, recall 71%; held-out digits cost at most 6.13 bits/dim, of which 4 are what the cut from 256 levels to 16
takes away.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 1500)  # the schedule follows --config.training.steps
    conditioner = dict(name="convnet", hidden=8 if smoke else 64, num_classes=10)
    coupling = dict(name="affine_coupling", mask="channel", conditioner=conditioner)

    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="normalizing_flow",
                image_shape=(8, 8, 1),
                bits=4,
                condition=("label",),
                bijector=dict(
                    name="multi_scale",
                    levels=2,
                    layer=dict(
                        name="repeat",
                        times=1 if smoke else 8,
                        layer=dict(
                            name="chain",
                            layers=(dict(name="actnorm"), dict(name="invertible_1x1"), coupling),
                        ),
                    ),
                    factor=coupling,
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
                eval_every=steps // 2,
                eval_n=20 if smoke else None,
            ),
            evaluation=dict(
                n=20 if smoke else 1000,
                batch_size=20 if smoke else 250,
                feature_network=dict(name="digits_classifier", steps=20 if smoke else 600),
            ),
        )
    )
