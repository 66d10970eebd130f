"""Improved DDPM on CIFAR-10: learnt variances, a cosine chain of 4000 steps (Nichol & Dhariwal 2021).

    genjax train --config=configs/cifar10/improved_ddpm.py --workdir=runs/cifar10_improved_ddpm

The settings are the flags of the authors' released model for L_hybrid. This config has been run in mode "smoke" alone.
It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 500_000
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="improved_diffusion",
                image_shape=(32, 32, 3),
                network=dict(
                    name="unet",
                    preset="ddpm_cifar10",
                    channels=8 if smoke else 128,
                    multipliers=(1, 2) if smoke else (1, 2, 2, 2),
                    blocks_per_level=1 if smoke else 3,
                    attention_resolutions=() if smoke else (16, 8),
                    heads=4,
                    scale_shift=True,
                    embedding="sinusoidal",
                    dropout=0.3,
                    out_channels=6,  # the noise, and what the variance is made of
                    dtype="bfloat16",
                ),
                process=dict(name="discrete_vp", schedule="cosine", timesteps=8 if smoke else 4000),
                timesteps=8 if smoke else 4000,
                vlb_weight=0.001,
                chain_bound=True,  # 4000 evaluations of the network an image
                parameterization=dict(name="eps", time_scale=1000.0, time_offset=-0.25),  # step i as i / 4
                time_sampler=dict(name="uniform", t_min=0.0),
                sampler=dict(
                    solver=dict(name="ddpm", variance="learned"),
                    times=dict(name="uniform", t_max=0.999),  # beyond it eps says too little of x_0
                    steps=4 if smoke else 4000,
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=1e-4,
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
