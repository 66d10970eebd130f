"""WGAN-GP with residual networks on CIFAR-10, with the paper's settings (Gulrajani et al. 2017, appendix F).

    genjax train --config=configs/cifar10/wgan_gp.py --workdir=runs/cifar10_wgan_gp

The paper reports an Inception score of 7.86 of the unconditional model after 100,000 steps of five critic updates each.
Its code updates the generator on twice the critic's batch, this config on the same. This config has been run in mode
"smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of tiny networks on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 100_000
    channels = 2 if smoke else 128
    adam = dict(
        name="adam",
        learning_rate=dict(name="linear", init_value=2e-4, end_value=0.0, transition_steps=steps),
        b1=0.0,
        b2=0.9,
    )
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="gan",
                generator=dict(name="resnet", image_shape=(32, 32, 3), channels=channels),
                discriminator=dict(name="resnet", channels=channels),
                latent=128,
                loss=dict(name="wasserstein"),
                gradient_penalty=10.0,
                critic_steps=2 if smoke else 5,
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
