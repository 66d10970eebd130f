"""VAE and IWAE on MNIST with the settings of the importance-weighted autoencoder (Burda et al. 2016, section 5).

    genjax train --config=configs/mnist/vae.py --workdir=runs/mnist_vae
    genjax train --config=configs/mnist/vae.py --workdir=runs/mnist_iwae \
        --config.family.objective.name=iwae --config.family.objective.samples=50

One stochastic layer of 50 units, two hidden layers of 200 tanh units on either side, pixels binarized anew each time,
batches of 20, Adam with epsilon 1e-4; scored by the importance-weighted bound of 5000 codes, which takes long: see
`--config.family.iwae_samples`. The paper runs 3280 passes over the data in eight stages with learning rates of 0.001 to
0.0001; here the rate falls between the same ends along a curve, and `--config.training.steps` shortens both. This
config has been run in mode "smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 3280 * 3000)
    network = dict(name="mlp", hidden=16 if smoke else 200, depth=2, activation="tanh")
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="mnist", split="train", mock=smoke),
            eval_data=dict(name="tfds", dataset="mnist", split="test", mock=smoke),
            family=dict(
                name="vae",
                image_shape=(28, 28, 1),
                encoder=network,
                decoder=network,
                latent=4 if smoke else 50,
                likelihood=dict(name="bernoulli", binarize="stochastic"),
                objective=dict(name="elbo", samples=1),
                iwae_samples=2 if smoke else 5000,
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(
                        name="exponential_decay", init_value=1e-3, transition_steps=steps.identity(), decay_rate=0.1
                    ),
                    eps=1e-4,
                )
            ),
            training=dict(
                steps=steps,
                batch_size=16 if smoke else 20,
                log_every=2 if smoke else 3000,
                save_every=4 if smoke else 60_000,
                sample_every=0 if smoke else 60_000,
                sample_n=4 if smoke else 100,
            ),
            evaluation=dict(n=4 if smoke else 10_000, batch_size=4 if smoke else 500),
        )
    )
