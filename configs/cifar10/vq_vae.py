"""VQ-VAE on CIFAR-10: 8 x 8 x 10 codes of a codebook of 512 for an image (van den Oord et al. 2017, section 4.1).

genjax train --config=configs/cifar10/vq_vae.py --workdir=runs/cifar10_vq_vae

The paper's networks, codebook, optimizer and steps; it does not give the dimensions of a code, nor how square error
and commitment are scaled: 64, and the scale of its authors' published example, are this config's. The paper reports
4.67 bits/dim, which needs the model of the codes that this is not. Run so far in mode "smoke" alone. It needs the data
set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 250_000
    network = dict(name="residual", hidden=8 if smoke else 256, halvings=2, blocks=1 if smoke else 2)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=False, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="vq_vae",
                image_shape=(32, 32, 3),
                encoder=network,
                decoder=network,
                codes=16 if smoke else 512,
                latent=4 if smoke else 64,
                per_place=2 if smoke else 10,
                commitment=0.25,
                variance=0.253,  # of the training set's pixels in [-1, 1]
                decay=0.99,
            ),
            optimizers=dict(model=dict(name="adam", learning_rate=2e-4)),
            ema=dict(decay={}),  # the codebook fits the weights of now
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 128,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 10_000, batch_size=4 if smoke else 500),
        )
    )
