"""Importance-weighted autoencoder with the likelihood of 8-bit values, on scikit-learn's 8x8 handwritten digits.

genjax train --config=configs/digits/iwae.py --workdir=runs/iwae

The bound of 5 codes is maximized, and that of 100 reported, with a mixture of 5 logistics. 2000 steps take about 70 s
of one CPU core, evaluations included. Measured on the test images: ELBO 3.93, IWAE-100 3.75 bits/dim; KL 16.8 nats;
distance 3.5 [3.1, 3.8], 5.1 times the floor; precision 68%, recall 86%. Samples are draws from the likelihood, with its
noise. (The pixels have 17 of the 256 levels, so bits/dim of these data compare among themselves alone.)
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 2000)  # the schedule follows --config.training.steps
    network = dict(name="mlp", hidden=16 if smoke else 256, depth=1 if smoke else 2, activation="silu")
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="vae",
                image_shape=(8, 8, 1),
                encoder=network,
                decoder=network,
                latent=8,
                likelihood=dict(name="discretized_logistic_mixture", components=2 if smoke else 5),
                objective=dict(name="iwae", samples=2 if smoke else 5),
                iwae_samples=2 if smoke else 100,
                output="sample",
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(
                        name="warmup_cosine_decay",
                        init_value=0.0,
                        peak_value=1e-3,
                        warmup_steps=steps // 20,
                        decay_steps=steps.identity(),
                    ),
                )
            ),
            ema=dict(decay=0.99, warmup=True),
            training=dict(
                steps=steps,
                batch_size=16 if smoke else 128,
                log_every=2 if smoke else 200,
                save_every=steps // 2,
                sample_every=steps // 2,
                sample_n=10 if smoke else 100,
                eval_every=steps // 2,
            ),
            evaluation=dict(
                n=20 if smoke else 1000,
                batch_size=20 if smoke else 250,
                feature_network=dict(name="digits_classifier", steps=20 if smoke else 600),
            ),
        )
    )
