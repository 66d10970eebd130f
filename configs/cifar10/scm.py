"""sCM on CIFAR-10: consistency distillation in continuous time of EDM, with the paper's settings (Lu & Song 2025).

    genjax train --config=configs/cifar10/edm.py --workdir=runs/cifar10/edm
    genjax train --config=configs/cifar10/scm.py --workdir=runs/cifar10/scm

Batch, steps, rate, warmup, dropout, average and noise levels are those of the paper's appendix G.2. Its models are
unconditional, with a teacher trained on TrigFlow, the angle as noise label and adaptive double normalization; this
teacher has classes and EDM's network. With distill=False it is sCT, consistency training from the teacher's weights, of
which the paper reports an FID (Inception features, 50,000 samples) of 2.06 with two evaluations. Run so far in mode
"smoke" alone. It needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 400_000
    unet = dict(
        name="unet",
        channels=8 if smoke else 128,
        multipliers=(1, 2) if smoke else (2, 2, 2),
        blocks_per_level=1 if smoke else 4,
        attention_resolutions=(16,),
        heads=1,
        scale_shift=False,
        skip_rescale=True,
        dropout=0.2,
        num_classes=10,
    )
    edm = dict(
        name="diffusion",
        image_shape=(32, 32, 3),
        network=unet,
        process=dict(name="edm"),
        parameterization=dict(name="edm"),
        condition=("label",),
    )
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="scm",
                image_shape=(32, 32, 3),
                network=unet,
                process=dict(name="trigflow", sigma_data=0.5, sigma_max=80.0),
                parameterization=dict(name="edm", sigma_data=0.5),
                teacher=dict(name="untrained", family=edm) if smoke else dict(workdir="runs/cifar10/edm"),
                begin="teacher",
                distill=True,
                time_sampler=dict(name="log_normal", mean=-1.0, std=1.4),
                normalizer=0.1,
                warmup=2 if smoke else 10_000,
                uncertainty=dict(name="fourier"),
                condition=("label",),
                condition_dropout=0.0,
                sampler=dict(solver=dict(name="consistency"), times=dict(name="trailing"), steps=2, final="none"),
            ),
            optimizers=dict(model=dict(name="adam", learning_rate=1e-4, b1=0.9, b2=0.99)),
            ema=dict(decay=0.99929, warmup=True),  # its half-life is half a million images
            training=dict(
                steps=steps,
                batch_size=4 if smoke else 512,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
