"""Progressive distillation on CIFAR-10, from 8192 steps of DDIM to 1, as published (Salimans & Ho 2022).

    genjax train --config=configs/cifar10/progressive_teacher.py --workdir=runs/progressive_teacher
    genjax train --config=configs/cifar10/progressive_distillation.py --workdir=runs/progressive_distillation

Thirteen rounds of 50,000 steps, in each of which the learning rate falls to 0; Adam's moments go on, where the
authors' begin anew. The paper reports an FID of 2.57 at 8
steps, 3.00 at 4, 4.51 at 2 and 9.12 at 1 (Inception features, 50,000 samples). Run so far in mode "smoke" alone. It
needs the data set, prepared once; the error that says so has the command.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network on made-up images, and an untrained teacher."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    rounds, steps_per_round = (2, FieldReference(2)) if smoke else (13, FieldReference(50_000))
    model = dict(
        image_shape=(32, 32, 3),
        network=dict(name="mlp", hidden=16, depth=1)
        if smoke
        else dict(
            name="unet",
            channels=256,
            multipliers=(1, 1, 1),
            blocks_per_level=3,
            attention_resolutions=(16, 8),
            heads=1,
        ),
        process=dict(name="cosine_vp"),
        parameterization=dict(name="x0"),
    )
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="tfds", dataset="cifar10", split="train", flip=True, mock=smoke),
            eval_data=dict(name="tfds", dataset="cifar10", split="test", mock=smoke),
            family=dict(
                name="progressive_distillation",
                teacher=dict(name="untrained", family=dict(name="diffusion", **model))
                if smoke
                else dict(workdir="runs/progressive_teacher"),
                **model,
                rounds=rounds,
                steps_per_round=steps_per_round,
                weighting=dict(name="truncated_snr"),
                sampler=dict(solver=dict(name="ddim"), times=dict(name="trailing"), steps=1, final="none"),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(name="linear_restarts", init_value=5e-5, period=steps_per_round.identity()),
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.0),
            training=dict(
                steps=rounds * steps_per_round,
                batch_size=4 if smoke else 128,
                log_every=2 if smoke else 100,
                save_every=2 * steps_per_round,  # a checkpoint of every round
                keep=rounds,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 64,
            ),
            evaluation=dict(n=4 if smoke else 50_000, batch_size=4 if smoke else 500),
        )
    )
