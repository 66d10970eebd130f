"""Glow on CIFAR-10 with the published settings (Kingma & Dhariwal 2018, section 5 and the code's command for table 2).

genjax train --config=configs/cifar10/glow.py --workdir=runs/cifar10_glow

The paper reports 3.35 bits a dimension, a bound by uniform dequantization as ours. Three things of the published code
are not here: activation normalization inside the conditioners, a learned prior at the last level, and shifts of the
images by up to a tenth as augmentation. The published run is 8 processes of 64 images, as long as the likelihood
improves; `steps` here is a choice. The first batch, which initializes the activation normalization, is 512 images, in
the code 256. This config has been run in mode "smoke" alone. It needs the data set, prepared once; the error that says
so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 500_000
    epoch = -(-50_000 // 512)
    coupling = dict(
        name="affine_coupling",
        mask="channel",
        scale="sigmoid",
        conditioner=dict(name="convnet", hidden=4 if smoke else 512, dtype="bfloat16"),
    )
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="normalizing_flow",
                image_shape=(32, 32, 3),
                bijector=dict(
                    name="multi_scale",
                    levels=1 if smoke else 3,
                    layer=dict(
                        name="repeat",
                        times=2 if smoke else 32,
                        layer=dict(
                            name="chain",
                            layers=(dict(name="actnorm"), dict(name="invertible_1x1"), coupling),
                        ),
                    ),
                    factor=coupling,
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adamax",
                    b2=0.99,  # one epoch, as the average of the weights
                    learning_rate=dict(
                        name="warmup_constant",
                        init_value=0.0,
                        peak_value=1e-3,
                        warmup_steps=2 if smoke else 10 * epoch,
                    ),
                )
            ),
            ema=dict(decay=0.99, warmup=True),
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 512,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 5000,
                sample_every=0 if smoke else 5000,
                sample_n=4 if smoke else 64,
                eval_every=0 if smoke else 5000,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
