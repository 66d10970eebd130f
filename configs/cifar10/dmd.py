"""Distribution matching distillation of EDM on CIFAR-10, in one step, as published (Yin et al. 2024a, "DMD").

    genjax train --config=configs/cifar10/edm.py --workdir=runs/edm
    genjax pairs --workdir=runs/edm --n=100000 --output=runs/edm_pairs
    genjax train --config=configs/cifar10/dmd.py --workdir=runs/dmd

Learning rate, batch size (56 on each of 7 GPUs), weight decay, clipping and the weight of the regression are those of
an unofficial implementation, where the paper's own could not be read; the paper's regression measures LPIPS, this one
pixels. Run so far in mode "smoke" alone, without pairs and regression. It needs the data set, prepared once; the error
that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images, and an untrained teacher."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    images = dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke)
    model = dict(
        image_shape=(32, 32, 3),
        network=dict(name="mlp", hidden=16, depth=1, num_classes=10)
        if smoke
        else dict(
            name="unet",
            channels=128,
            multipliers=(2, 2, 2),
            blocks_per_level=4,
            attention_resolutions=(16,),
            heads=1,
            scale_shift=False,
            skip_rescale=True,
            num_classes=10,
            dtype="bfloat16",
        ),
        process=dict(name="edm", sigma_min=0.002, sigma_max=80.0, rho=7.0),
        parameterization=dict(name="edm", sigma_data=0.5),
        condition=("label",),
        condition_dropout=0.0,
    )
    adam = dict(
        name="adamw",
        learning_rate=dict(name="warmup_constant", init_value=0.0, peak_value=5e-5, warmup_steps=2 if smoke else 500),
        weight_decay=0.01,
        clip=10.0,
    )
    return ConfigDict(
        dict(
            seed=0,
            data=images if smoke else dict(name="pairs", path="runs/edm_pairs"),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="dmd",
                teacher=dict(name="untrained", family=dict(name="diffusion", **model))
                if smoke
                else dict(workdir="runs/edm"),
                **model,
                weighting=dict(name="edm", sigma_data=0.5),
                time_sampler=dict(name="uniform"),  # of the process's times: the steps of the Karras grid alike
                matching_times=dict(name="uniform", t_min=0.02, t_max=0.98),
                regression=0.0 if smoke else 0.25,
                sampler=dict(
                    solver=dict(name="consistency"), times=dict(name="uniform"), steps=2 if smoke else 1, final="none"
                ),
            ),
            optimizers=dict(fake_score=adam, model=adam),
            ema=dict(decay={}),
            training=dict(
                steps=4 if smoke else 300_000,
                batch_size=4 if smoke else 392,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
