"""SNGAN with the standard CNN on CIFAR-10, with the paper's settings (Miyato et al. 2018, section 4.1 and table 3).

    genjax train --config=configs/cifar10/sngan.py --workdir=runs/cifar10_sngan

Hinge loss, 100,000 updates of the generator at the paper's setting C: Adam at 2e-4 with beta = (0.5, 0.999), one update
of the discriminator a step, batch 64. This config has been run in mode "smoke" alone. It needs the data set, prepared
once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of tiny networks on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 100_000
    adam = dict(name="adam", learning_rate=2e-4, b1=0.5, b2=0.999)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="gan",
                generator=dict(name="dcgan", image_shape=(32, 32, 3), channels=2 if smoke else 64, smooth=True),
                discriminator=dict(
                    name="dcgan", channels=2 if smoke else 64, norm="spectral", slope=0.1, interleaved=True
                ),
                latent=128,
                loss=dict(name="hinge"),
            ),
            optimizers=dict(generator=dict(adam), discriminator=dict(adam)),
            ema=dict(decay={}),
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 64,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 5000,
                sample_every=0 if smoke else 5000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
