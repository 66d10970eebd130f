"""DCGAN on MNIST with the paper's settings (Radford et al. 2016, section 4).

    genjax train --config=configs/mnist/dcgan.py --workdir=runs/mnist_dcgan

Images stay 28x28: the networks halve them to 7x7. The paper's latent is uniform in 100 dimensions, its batch 128 and
its optimizer Adam at 2e-4 with beta_1 = 0.5; for MNIST it gives no number of steps. This config has been run in mode
"smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of tiny networks on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    adam = dict(name="adam", learning_rate=2e-4, b1=0.5)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="mnist", split="train", mock=smoke),
            eval_data=dict(name="tfds", dataset="mnist", split="test", mock=smoke),
            family=dict(
                name="gan",
                generator=dict(name="dcgan", image_shape=(28, 28, 1), channels=4 if smoke else 128),
                discriminator=dict(name="dcgan", channels=4 if smoke else 64),
                latent=100,
                prior="uniform",
            ),
            optimizers=dict(generator=dict(adam), discriminator=dict(adam)),
            ema=dict(decay={}),
            training=dict(
                steps=4 if smoke else 25_000,
                batch_size=4 if smoke else 128,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 2000,
                sample_every=0 if smoke else 2000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 10_000, batch_size=4 if smoke else 500),
        )
    )
