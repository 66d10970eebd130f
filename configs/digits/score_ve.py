"""A score model of the VE SDE with predictor-corrector sampling on scikit-learn's 8x8 handwritten digits.

genjax train --config=configs/digits/score_ve.py --workdir=runs/score_ve

The network hears log(sigma) through Fourier features, and samples are of ancestral steps with a step of Langevin
dynamics after each (Song et al. 2021b, appendix F and algorithm 4).

The Frechet distance of 1000 samples is 1.55 ±0.18, 2.3 times the floor (`python -m experiments.model_zoo`).
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
                    embedding="fourier",
                    num_classes=10,
                ),
                process=dict(name="ve", sigma_min=0.02, sigma_max=12.0),
                parameterization=dict(name="score", label="log_sigma"),
                matching=dict(name="denoising"),
                time_sampler=dict(name="uniform"),
                condition=("label",),
                sampler=dict(
                    solver=dict(name="predictor_corrector", predictor=dict(name="ddpm"), corrections=1, snr=0.16),
                    times=dict(name="uniform"),  # of this process, a geometric ladder
                    steps=4 if smoke else 60,
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
