"""CycleGAN between photographs of horses and of zebras with the paper's settings (Zhu et al. 2017, section 4).

    genjax train --config=configs/horse2zebra/cycle_gan.py --workdir=runs/horse2zebra

200 epochs of the larger domain, 1,334 zebras, and the identity loss of the authors' code. This config has been run in
mode "smoke" alone. It needs the data set of TFDS, prepared once; the error that says so has the command. What differs
from the authors' code: images are not enlarged to 286 pixels and cropped, only mirrored; the discriminators see what
the generators translate after their update; and convolutions are computed in bfloat16. For two folders of images of
one's own, `first` and `second` are `dict(name="folder", path="...", image_size=256, flip=True)`.
"""

from ml_collections import ConfigDict


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of tiny networks on made-up images."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = 4 if smoke else 200 * 1334
    size = 32 if smoke else 256

    def photographs(split: str) -> dict:
        name = "cycle_gan/horse2zebra"
        return dict(name="tfds", dataset=name, split=split, image_size=size, flip=True, mock=smoke)

    def adam() -> dict:
        half = steps // 2  # constant, then linear to zero
        rate = dict(name="linear", init_value=2e-4, end_value=0.0, transition_begin=half, transition_steps=half)
        return dict(name="adam", learning_rate=rate, b1=0.5)

    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="unpaired", first=photographs("trainA"), second=photographs("trainB")),
            eval_data=dict(name="unpaired", first=photographs("testA"), second=photographs("testB")),
            family=dict(
                name="cycle_gan",
                image_shape=(size, size, 3),
                translator=dict(
                    name="resnet",
                    channels=4 if smoke else 64,
                    halvings=2,
                    blocks=1 if smoke else 9,
                    kernel=7,
                    dtype="bfloat16",
                ),
                discriminator=dict(
                    name="patch", channels=4 if smoke else 64, halvings=2 if smoke else 3, dtype="bfloat16"
                ),
                loss=dict(name="least_squares"),
                cycle=10.0,
                identity=5.0,
                buffer=50,
                sources=8 if smoke else 64,
            ),
            optimizers=dict(generators=adam(), discriminators=adam()),
            training=dict(
                steps=steps,
                batch_size=2 if smoke else 1,
                log_every=2 if smoke else 100,
                save_every=2 if smoke else 10_000,
                sample_every=0 if smoke else 10_000,
                sample_n=4 if smoke else 16,
                eval_every=0 if smoke else 10_000,
            ),
            evaluation=dict(n=4 if smoke else 120, batch_size=4 if smoke else 10),
        )
    )
