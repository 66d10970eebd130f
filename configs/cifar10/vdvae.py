"""Very deep VAE on CIFAR-10 with the settings of the paper and its published code (Child 2021).

genjax train --config=configs/cifar10/vdvae.py --workdir=runs/cifar10_vdvae

39,145,700 parameters, 43 layers of latents. The paper reports 2.87 bits/dim (a bound), the mean of four runs of about
a million steps of 32 images, stopped early: almost a week on two GPUs. Its loss is in nats a dimension, so that its
limit of the gradient's norm, 200, is 200 x 3072 here. It leaves out steps with a norm above twice that, which this
config does not (those that are not finite it does), shows the encoder images of mean 0 and variance 1, not of [-1, 1],
and holds out 5000 images to stop by. Run so far in mode "smoke" alone. It needs the data set, prepared once; the error
that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 1_000_000
    # Resolution, blocks up (without that which halves it), blocks down.
    levels = ((32, 11, 22), (16, 6, 11), (8, 6, 6), (4, 3, 3), (1, 3, 1))
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=False, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="hierarchical_vae",
                image_shape=(32, 32, 3),
                hierarchy=dict(
                    name="vdvae",
                    levels=((32, 1, 1), (8, 1, 1)) if smoke else levels,
                    width=8 if smoke else 384,
                    bottleneck=0.25,
                    latent_channels=2 if smoke else 16,
                ),
                likelihood=dict(name="discretized_logistic_mixture", components=2 if smoke else 10),
                objective=dict(name="elbo"),
            ),
            optimizers=dict(
                model=dict(
                    name="adamw",
                    learning_rate=dict(
                        name="warmup_constant", init_value=0.0, peak_value=2e-4, warmup_steps=2 if smoke else 100
                    ),
                    b1=0.9,
                    b2=0.9,
                    weight_decay=0.01,
                    clip=200.0 * 3072,
                )
            ),
            ema=dict(decay=0.9999, warmup=True),
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 32,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
                non_finite="skip",
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
