"""A variational diffusion model on CIFAR-10, without augmentation (Kingma et al. 2021, section 6 and appendix B).

    genjax train --config=configs/cifar10/vdm.py --workdir=runs/cifar10_vdm

The settings are those of the authors' released config, with the paper's monotone network as the schedule's shape, where
that has a straight line. The paper reports 2.65 bits/dim after 10 million steps. This config has been run in mode
"smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 10_000_000
    rate = dict(name="warmup_constant", init_value=0.0, peak_value=2e-4, warmup_steps=2 if smoke else 100)
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="vdm",
                image_shape=(32, 32, 3),
                network=dict(
                    name="unet",
                    preset="ddpm_cifar10",
                    channels=8 if smoke else 128,
                    multipliers=(1,),  # no halving: noise and details are of full resolution
                    blocks_per_level=1 if smoke else 32,
                    attention_resolutions=(),
                    dropout=0.1,
                    out_channels=3,  # it gets Fourier features as channels too
                    dtype="bfloat16",
                ),
                parameterization=dict(name="eps"),
                noise_schedule=dict(name="monotone", features=1024),
                log_snr_max=13.3,
                log_snr_min=-5.0,
                fourier=(7, 8),
                draws=2 if smoke else 16,
                sampler=dict(
                    solver=dict(name="ddpm"),
                    times=dict(name="uniform"),
                    steps=4 if smoke else 1000,
                ),
            ),
            optimizers=dict(
                model=dict(name="adamw", learning_rate=rate, b2=0.99, weight_decay=0.01),
                schedule=dict(name="adamw", learning_rate=rate, b2=0.99, weight_decay=0.01),
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
