"""DDPM++ in continuous time (the VP SDE) on CIFAR-10 with the paper's settings (Song et al. 2021b, appendix G).

    genjax train --config=configs/cifar10/ddpmpp.py --workdir=runs/cifar10_ddpmpp

The paper reports an FID of 2.55 by the reverse SDE in 1000 steps, and 3.16 bits/dim by the probability flow (DDPM++
cont., VP), after 1,300,000 steps at batch 128.

The sub-VP SDE is `--config.family.process.name=sub_vp`. Training for likelihood (Song et al. 2021c) is
`--config.family.weighting.name=likelihood --config.family.time_sampler.name=importance`.
This config has been run in mode "smoke" alone. It needs the data set, prepared once; the error that says so has the
command.
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
                    preset="ddpmpp",
                    channels=8 if smoke else 128,
                    multipliers=(1, 2) if smoke else (1, 2, 2, 2),
                    blocks_per_level=1 if smoke else 4,
                    dtype="bfloat16",
                ),
                process=dict(name="linear_vp", beta_min=0.1, beta_max=20.0),
                parameterization=dict(name="score", time_scale=999.0),
                matching=dict(name="denoising"),
                weighting=dict(name="uniform"),
                time_sampler=dict(name="uniform", t_min=1e-5),
                dequantize=False,
                sampler=dict(
                    solver=dict(name="langevin", rate=1.0),  # the reverse SDE
                    times=dict(name="uniform", t_min=1e-3),
                    steps=4 if smoke else 1000,
                ),
                # Bits a dimension cost hundreds of evaluations an image: --config.family.likelihood.flow_steps=200
                likelihood=dict(flow_steps=0, t_min=1e-5),
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
