"""NCSNv2's noise levels and annealed Langevin dynamics on CIFAR-10 (Song & Ermon 2020, appendix B).

    genjax train --config=configs/cifar10/ncsnv2.py --workdir=runs/cifar10_ncsnv2

232 levels from 50 to 0.01 of images in [0, 1], so from 100 to 0.02 here, five steps of the dynamics at each, and a last
denoising. The paper's network is a RefineNet; this is DDPM's U-Net, whose output is divided by sigma as theirs is. They
report an FID of 10.87. This config has been run in mode "smoke" alone. It needs the data set, prepared once; the error
that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 300_000
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
                    preset="ddpm_cifar10",
                    channels=8 if smoke else 128,
                    multipliers=(1, 2) if smoke else (1, 2, 2, 2),
                    blocks_per_level=1 if smoke else 2,
                    dropout=0.0,
                    dtype="bfloat16",
                ),
                process=dict(name="ve", sigma_min=0.02, sigma_max=100.0),
                parameterization=dict(name="score"),
                matching=dict(name="denoising"),
                time_sampler=dict(name="levels", n=232),
                sampler=dict(
                    solver=dict(name="annealed_langevin", level_steps=5, epsilon=0.062),
                    times=dict(name="uniform"),  # of this process, a geometric ladder
                    steps=2 if smoke else 231,
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=1e-4,
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
