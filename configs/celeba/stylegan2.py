"""StyleGAN2 on CelebA at 128x128 (Karras et al. 2020), with settings of the authors' code for images of this size.

    genjax train --config=configs/celeba/stylegan2.py --workdir=runs/celeba_stylegan2

The settings are those of "paper256" in the code of Karras et al. 2020a: half as many channels as configuration F,
gamma = 1, batches of 64, groups of 8 for the minibatch standard deviation, Adam at 0.0025, an average with a half-life
of 20,000 images, 25 million images. There is no augmentation, and no published figure that we know of for this set at
this size. Run so far in mode "smoke" alone, at 16x16. It needs the data set, prepared once; the error that says so has
the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of tiny networks on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    size = 16 if smoke else 128
    steps = 4 if smoke else 390_625
    batch_size = 4 if smoke else 64
    widths = dict(fmaps=0.5, max_channels=2 if smoke else 512, dtype="bfloat16")
    images = dict(image_size=size, center_crop=178, mock=smoke)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="celeb_a", split="train", flip=True, **images),
            eval_data=dict(name="tfds", dataset="celeb_a", split="test", **images),
            family=dict(
                name="stylegan2",
                generator=dict(
                    name="stylegan2",
                    image_shape=(size, size, 3),
                    style=4 if smoke else 512,
                    mapping_layers=1 if smoke else 8,
                    **widths,
                ),
                discriminator=dict(name="stylegan2", group=8, **widths),
                latent=4 if smoke else 512,
                r1=1.0,
                r1_every=2 if smoke else 16,
                path_weight=2.0,
                path_every=2 if smoke else 4,
                mixing=0.9,
                truncation=1.0,
            ),
            # Adam with b = (0, 0.99) and l = 0.0025. Of a role that is regularized in every k-th step, all are changed
            # by c = k / (k + 1) (Karras et al. 2020, section 3.1).
            optimizers=dict(generator=_adam(2.5e-3, every=4), discriminator=_adam(2.5e-3, every=16)),
            ema=dict(decay=dict(generator=0.5 ** (batch_size / 20_000)), warmup=False),
            training=dict(
                steps=steps,
                batch_size=batch_size,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 5000,
                sample_every=0 if smoke else 5000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 250),
        )
    )


def _adam(learning_rate: float, every: int) -> dict:
    share = every / (every + 1)
    return dict(name="adam", learning_rate=learning_rate * share, b1=0.0**share, b2=0.99**share, eps=1e-8)
