"""The GANs that are compared: what each changes in the config of the grid."""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "grid" / "gan.py"
DENSITIES = ("grid", "ring")

_NONE = {"family.r1": 0.0, "family.r2": 0.0}
_CRITIC = _NONE | {"family.loss": {"name": "wasserstein"}, "family.critic_steps": 5}


def _both(**options: Any) -> dict[str, Any]:
    """Options of both players' optimizers."""
    return {
        f"optimizers.{role}.{key}": value for role in ("generator", "discriminator") for key, value in options.items()
    }


# Options by their place in the config; the config itself is R3GAN's loss.
METHODS: dict[str, Mapping[str, Any]] = {
    "minimax": _NONE | {"family.loss": {"name": "minimax"}},
    "non_saturating": _NONE | {"family.loss": {"name": "non_saturating"}},
    "least_squares": _NONE | {"family.loss": {"name": "least_squares"}},
    "hinge_spectral": _NONE | {"family.loss": {"name": "hinge"}, "family.discriminator.norm": "spectral"},
    # With the optimizers of their papers: momentum makes a clipped critic unstable (Arjovsky et al. 2017, section 4.3).
    "wgan": _CRITIC
    | {
        "optimizers.generator": {"name": "rmsprop", "learning_rate": 5e-4},
        "optimizers.discriminator": {"name": "rmsprop", "learning_rate": 5e-4, "clip_weights": 0.1},
    },
    "wgan_gp": _CRITIC
    | {"family.gradient_penalty": 1.0}
    | _both(**{"learning_rate.init_value": 1e-3, "b1": 0.5, "b2": 0.9}),
    "non_saturating_r1": {"family.loss": {"name": "non_saturating"}, "family.r2": 0.0},
    "relativistic": _NONE,
    "r3gan": {},
}


def config(method: str, density: str, mode: str = "full", steps: int | None = None) -> Any:
    """Returns the config of a method on a density, as `genjax train` would take it.

    Args:
        method: one of `METHODS`.
        density: one of `DENSITIES`.
        mode: "full" or "smoke".
        steps: training steps; None for the config's.
    """
    spec = importlib.util.spec_from_file_location("mode_collapse_config", CONFIG)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.get_config(mode)
    changes = {"data.density": density, "eval_data.density": density, **METHODS[method]}
    if steps is not None:
        changes["training.steps"] = steps
    for place, value in changes.items():
        *path, key = place.split(".")
        section = made
        for name in path:
            section = section[name]
        with section.unlocked():
            section[key] = ConfigDict(value) if isinstance(value, Mapping) else value
    return made
