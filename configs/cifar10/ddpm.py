"""DDPM on CIFAR-10 with the paper's settings (Ho et al. 2020, section 4 and appendix B).

    genjax train --config=configs/cifar10/ddpm.py --workdir=runs/cifar10_ddpm

The paper reports an FID of 3.17 (Inception features, 50,000 samples) after 800,000 steps. This config has been run in
mode "smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 800_000
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="diffusion",
                image_shape=(32, 32, 3),
                network=dict(
                    name="unet",
                    preset="ddpm_cifar10",
                    channels=8 if smoke else 128,
                    multipliers=(1, 2) if smoke else (1, 2, 2, 2),
                    blocks_per_level=1 if smoke else 2,
                    dtype="bfloat16",
                ),
                process=dict(name="discrete_vp", schedule="linear", timesteps=1000),
                parameterization=dict(name="eps", time_scale=1000.0, time_offset=-1.0),
                time_sampler=dict(name="uniform", t_min=0.001),
                sampler=dict(
                    solver=dict(name="ddpm", variance="large"),
                    times=dict(name="trailing"),
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
            ema=dict(decay=0.9999, warmup=True),
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
