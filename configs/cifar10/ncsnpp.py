"""NCSN++ in continuous time (the VE SDE) on CIFAR-10 with the paper's settings (Song et al. 2021b, appendix G).

    genjax train --config=configs/cifar10/ncsnpp.py --workdir=runs/cifar10_ncsnpp

Their images are in [0, 1], so sigma goes from 0.02 to 100 here, which is 0.01 to 50 there. The network sees x_t as it
is and log(sigma) of our scale. They report an FID of 2.38 (NCSN++ cont., VE) after 1,300,000 steps at batch 128. This
config has been run in mode "smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 1_300_000
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="score",
                image_shape=(32, 32, 3),
                network=dict(
                    name="unet",
                    preset="ncsnpp",
                    channels=8 if smoke else 128,
                    multipliers=(1, 2) if smoke else (1, 2, 2, 2),
                    blocks_per_level=1 if smoke else 4,
                    dtype="bfloat16",
                ),
                process=dict(name="ve", sigma_min=0.02, sigma_max=100.0),
                parameterization=dict(name="score", label="log_sigma", scale_input=False),
                matching=dict(name="denoising"),
                time_sampler=dict(name="uniform"),
                sampler=dict(
                    solver=dict(
                        name="predictor_corrector",
                        predictor=dict(name="ddpm", variance="large"),  # reverse diffusion sampling
                        corrections=1,
                        snr=0.16,
                        step_size="norm",
                    ),
                    times=dict(name="uniform"),
                    steps=4 if smoke else 1000,
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(
                        name="warmup_constant", init_value=0.0, peak_value=2e-4, warmup_steps=2 if smoke else 5000
                    ),
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.999, warmup=True),
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 128,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
