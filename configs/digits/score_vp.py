"""A score model of the VP SDE, trained for likelihood, on scikit-learn's 8x8 handwritten digits.

genjax train --config=configs/digits/score_vp.py --workdir=runs/score_vp

Likelihood weighting with times by importance, on dequantized images (Song et al. 2021c). `genjax evaluate` says what
the probability flow and the variational bound make of the held-out digits in bits a dimension.

The Frechet distance of 1000 samples is 2.03 ±0.25, 3.0 times the floor (`python -m experiments.model_zoo`). Some
samples stay noise: this weighting hardly cares for the large noise levels at which they begin.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 1000)  # the schedule follows --config.training.steps
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
                process=dict(name="linear_vp"),
                parameterization=dict(name="score"),
                matching=dict(name="denoising"),
                weighting=dict(name="likelihood"),
                time_sampler=dict(name="importance", t_min=1e-4),
                dequantize=True,
                condition=("label",),
                sampler=dict(
                    solver=dict(name="dpmpp_2m"),
                    times=dict(name="log_snr"),
                    steps=4 if smoke else 20,
                ),
                likelihood=dict(
                    flow_steps=2 if smoke else 40,
                    bound_nodes=2 if smoke else 40,
                    t_min=1e-4,
                    decoder="dequantization",
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
