"""Class-conditional StyleGAN2 with adaptive augmentation on CIFAR-10 (Karras et al. 2020a, ADA).

    genjax train --config=configs/cifar10/stylegan2.py --workdir=runs/cifar10_stylegan2

The settings are those of "cifar" in the paper's code (appendix D): 512 channels at every size, a mapping of two layers,
a discriminator without skip connections, groups of 32 for the minibatch standard deviation, gamma = 0.01, neither path
length penalty nor style mixing, 100 million images. The half-life of the average is 500,000 images, or at most a
twentieth of those seen so far there, and here with the warm-up of `ema`. The paper's abstract has an FID of 2.42
(Inception features). Run so far in mode "smoke" alone. It needs the data set, prepared once; the error that says so has
the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of tiny networks on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 1_562_500
    batch_size = 4 if smoke else 64
    width = 2 if smoke else 512
    layers = 1 if smoke else 2
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="stylegan2",
                generator=dict(
                    name="stylegan2",
                    image_shape=(32, 32, 3),
                    style=4 if smoke else 512,
                    mapping_layers=layers,
                    max_channels=width,
                    num_classes=10,
                    dtype="bfloat16",
                ),
                discriminator=dict(
                    name="stylegan2",
                    max_channels=width,
                    group=32,
                    residual=False,
                    mapping_layers=layers if smoke else 8,
                    num_classes=10,
                    dtype="bfloat16",
                ),
                latent=4 if smoke else 512,
                r1=0.01,
                r1_every=2 if smoke else 16,
                path_weight=0.0,
                mixing=0.0,
                augmentation=dict(target=0.6, speed=500_000),
                condition=("label",),
            ),
            # Adam with b = (0, 0.99) and l = 0.0025. Of a role that is regularized in every k-th step, all are changed
            # by c = k / (k + 1) (Karras et al. 2020, section 3.1). As in the paper's code, that holds of the generator
            # too, although its regularizer has weight 0 here.
            optimizers=dict(generator=_adam(2.5e-3, every=4), discriminator=_adam(2.5e-3, every=16)),
            ema=dict(decay=dict(generator=0.5 ** (batch_size / 500_000))),
            training=dict(
                steps=steps,
                batch_size=batch_size,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 100,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 250),
        )
    )


def _adam(learning_rate: float, every: int) -> dict:
    share = every / (every + 1)
    return dict(name="adam", learning_rate=learning_rate * share, b1=0.0**share, b2=0.99**share, eps=1e-8)
