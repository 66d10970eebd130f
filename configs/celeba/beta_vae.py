"""beta-VAE on CelebA at 64x64 with the papers' settings (Higgins et al. 2017; Burgess et al. 2018, appendix A.1).

genjax train --config=configs/celeba/beta_vae.py --workdir=runs/celeba_beta_vae

Of Higgins et al. are beta = 250, the 32 latents and Adam at 1e-4; of Burgess et al. the networks: four convolutions of
32 channels, 4x4, stride 2, and two layers of 256 units, mirrored in the decoder. What a beta means depends on the
likelihood, whose scale the papers do not state: here it is normal with std 1 in images of [-1, 1]. The capacity
schedule of Burgess et al. is the objective dict(name="capacity", gamma=1000.0, capacity=25.0, steps=100_000). The crop
is ours. This config has been run in mode "smoke" alone. It needs the data set, prepared once; the error that says so
has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of tiny networks on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    images = dict(image_size=64, center_crop=148, mock=smoke)
    network = dict(name="conv", channels=(4, 4) if smoke else (32,) * 4, hidden=16 if smoke else 256, depth=2)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="celeb_a", split="train", flip=True, **images),
            eval_data=dict(name="tfds", dataset="celeb_a", split="test", **images),
            family=dict(
                name="vae",
                image_shape=(64, 64, 3),
                encoder=network,
                decoder=network,
                latent=4 if smoke else 32,
                likelihood=dict(name="gaussian", std=1.0),
                objective=dict(name="elbo", beta=250.0),
            ),
            optimizers=dict(model=dict(name="adam", learning_rate=1e-4)),
            training=dict(
                steps=4 if smoke else 1_000_000,
                batch_size=4 if smoke else 64,
                log_every=2 if smoke else 500,
                save_every=2 if smoke else 20_000,
                sample_every=0 if smoke else 20_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 10_000, batch_size=4 if smoke else 500),
        )
    )
