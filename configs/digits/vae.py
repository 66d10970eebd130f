"""VAE, conditional on class, on scikit-learn's 8x8 handwritten digits, with the likelihood of 8-bit values.

genjax train --config=configs/digits/vae.py --workdir=runs/vae
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 6000)  # the schedule follows --config.training.steps
    network = dict(name="mlp", hidden=16 if smoke else 256, depth=1 if smoke else 2, activation="silu", num_classes=10)
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
                latent=4 if smoke else 16,
                likelihood=dict(name="gaussian", std=0.3, learn="scalar"),
                objective=dict(name="elbo"),
                condition=("label",),
                iwae_samples=2 if smoke else 50,
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
                    clip=100.0,
                )
            ),
            ema=dict(decay=0.995, warmup=True),
            training=dict(
                steps=steps,
                batch_size=16 if smoke else 128,
                log_every=2 if smoke else 200,
                save_every=steps // 2,
                sample_every=steps // 2,
                sample_n=10 if smoke else 100,
                eval_every=steps // 4,
            ),
            evaluation=dict(
                n=20 if smoke else 1000,
                batch_size=20 if smoke else 250,
                feature_network=dict(name="digits_classifier", steps=20 if smoke else 600),
            ),
        )
    )
