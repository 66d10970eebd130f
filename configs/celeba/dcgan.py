"""DCGAN on CelebA at 64x64 with the paper's settings (Radford et al. 2016, section 4 and figure 1).

    genjax train --config=configs/celeba/dcgan.py --workdir=runs/celeba_dcgan

The generator is that of figure 1, 1024 channels at 4x4 to 128 at 32x32; the latent is uniform in 100 dimensions, the
batch 128, the optimizer Adam at 2e-4 with beta_1 = 0.5. The paper's faces are of another set, which is not public; for
CelebA the crop of 108 pixels is that of the DCGAN implementations that followed. This config has been run in mode
"smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of tiny networks on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    images = dict(image_size=64, center_crop=108, mock=smoke)
    adam = dict(name="adam", learning_rate=2e-4, b1=0.5)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="celeb_a", split="train", flip=True, **images),
            eval_data=dict(name="tfds", dataset="celeb_a", split="test", **images),
            family=dict(
                name="gan",
                generator=dict(name="dcgan", image_shape=(64, 64, 3), channels=2 if smoke else 128),
                discriminator=dict(name="dcgan", channels=2 if smoke else 64),
                latent=100,
                prior="uniform",
            ),
            optimizers=dict(generator=dict(adam), discriminator=dict(adam)),
            ema=dict(decay={}),
            training=dict(
                steps=4 if smoke else 50_000,
                batch_size=4 if smoke else 128,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 2000,
                sample_every=0 if smoke else 2000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 10_000, batch_size=4 if smoke else 500),
        )
    )
