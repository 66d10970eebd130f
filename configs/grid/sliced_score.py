"""Sliced score matching over noise levels, and annealed Langevin dynamics, on the grid of 25 Gaussians.

    genjax train --config=configs/grid/sliced_score.py --workdir=runs/grid_sliced_score

The objective needs no score of the noise: it would be the same for noise of unknown density. `implicit` in its place is
the exact trace, for two derivatives instead of one; `denoising` needs none.

Not trained in full yet: nothing has been measured.
"""

from ml_collections import ConfigDict, FieldReference


def get_config(mode: str = "full") -> ConfigDict:
    """Returns the config; mode "smoke" is a few steps of a tiny network."""
    if mode not in ("full", "smoke"):
        raise ValueError(f"mode = {mode!r}: must be 'full' or 'smoke'")
    smoke = mode == "smoke"
    steps = FieldReference(8 if smoke else 8000)
    levels = 16
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="density", density="grid", size=100_000),
            eval_data=dict(name="density", density="grid", size=2000, split="test"),
            family=dict(
                name="score",
                image_shape=(1, 1, 2),
                network=dict(name="mlp", hidden=8 if smoke else 128),
                process=dict(name="ve", sigma_min=0.02, sigma_max=3.0),
                parameterization=dict(name="score"),
                matching=dict(name="sliced", variance_reduction=True, projection="rademacher"),
                time_sampler=dict(name="levels", n=levels),
                sampler=dict(
                    solver=dict(name="annealed_langevin", level_steps=2 if smoke else 20, epsilon=0.1),
                    times=dict(name="uniform"),  # of this process, a geometric ladder
                    steps=levels - 1,
                ),
            ),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(name="cosine_decay", init_value=2e-3, decay_steps=steps.identity(), alpha=0.01),
                    clip=1.0,
                )
            ),
            ema=dict(decay=0.998),
            training=dict(
                steps=steps,
                batch_size=16 if smoke else 512,
                log_every=2 if smoke else 100,
                save_every=steps // 2,
            ),
            evaluation=dict(n=20 if smoke else 2000, batch_size=20 if smoke else 2000),
        )
    )
