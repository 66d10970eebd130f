"""k-sparse autoencoder: 10 of 128 units active, on scikit-learn's 8x8 handwritten digits.

genjax train --config=configs/digits/sparse_autoencoder.py --workdir=runs/sparse_autoencoder

Both networks are linear, as in the paper (Makhzani & Frey 2014). Other penalties: sparsity = dict(name="l1",
weight=0.1) or dict(name="kl", weight=3.0, target=0.05). 2000 steps take about 6 s of one CPU core. Measured: mean
square error of test reconstructions 0.049; distance of the samples (from a normal distribution fitted to the units
before the selection) 8.0 [7.6, 8.4], 11.7 times the floor; precision 73%, recall 49%.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 2000)  # the schedule follows --config.training.steps
    network = dict(name="mlp", depth=0)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="digits", split="train"),
            eval_data=dict(name="tfds", dataset="digits", split="test"),
            family=dict(
                name="autoencoder",
                image_shape=(8, 8, 1),
                encoder=network,
                decoder=network,
                latent=32 if smoke else 128,
                sparsity=dict(name="k_sparse", k=10),
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
