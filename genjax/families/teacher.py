"""Trained models that another model learns from, begins from or is guided by."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax import sampling
from genjax.config import require
from genjax.families.base import Family, Params
from genjax.families.denoising import UNCERTAINTY
from genjax.families.sampler import null_condition
from genjax.parameterizations import ConditionalDenoiser
from genjax.processes import Process
from genjax.sampling.guidance.trained import Trained, on_process


class Teacher(Trained, Protocol):
    """A trained model: its family, and its weights, which are read once, when a run begins.

    In a config it is `teacher=dict(workdir="runs/edm")`, a run folder. A family that has one takes its weights into its
    own state, so that checkpoints hold them and the folder is not needed any more: `init` gives trees of their shapes,
    by names of roles or of `extra`, and the family's method `pretrained` what takes their places.
    """


def pretrained(family: Family) -> Mapping[str, Params]:
    """Returns the trees that a family does not begin at random, by role or by name in `extra`; most have none.

    A family has them when it has a method `pretrained() -> {name: tree}`. A tree may lack branches, which begin as
    `init` has them. It is called once in a run, before the first step, and reads files.
    """
    return family.pretrained() if hasattr(family, "pretrained") else {}


def begun_from(initial: Mapping[str, Params], given: Mapping[str, Params]) -> dict[str, Params]:
    """Returns initial trees with those that are given in their places; see `pretrained`.

    What a loss learnt of its own weights is left out where the model has no such branch.

    Raises:
        ValueError: a tree that is given has a branch or a shape that the initial one has not.
    """
    return {name: _begun(tree, given[name], name) if name in given else tree for name, tree in initial.items()}


def _begun(initial: Any, given: Any, path: str) -> Any:
    if isinstance(initial, Mapping) and isinstance(given, Mapping):
        unknown = sorted(set(given) - set(initial) - {UNCERTAINTY})
        require(not unknown, f"pretrained weights {path}: the model has no {', '.join(unknown)}")
        return {k: _begun(v, given[k], f"{path}/{k}") if k in given else v for k, v in initial.items()}
    here, there = (jax.tree.map(jnp.shape, tree) for tree in (initial, given))
    require(here == there, f"pretrained weights {path} have shape {there}, and the model's {here}")
    return given


def check_teacher(teacher: Teacher, image_shape: tuple[int, ...], condition: tuple[str, ...]) -> None:
    """Raises ValueError unless a teacher is a denoiser of such images that knows such conditions."""
    family = teacher.family
    require(hasattr(family, "denoiser"), "teacher: its family has no denoiser")
    require(
        tuple(family.image_shape) == tuple(image_shape),
        f"image_shape = {tuple(image_shape)}, but the teacher's is {tuple(family.image_shape)}",
    )
    lacking = sorted(set(condition) - set(family.condition))
    require(not lacking, f"condition = {condition}: the teacher does not know {', '.join(lacking)}")


def teacher_denoiser(
    teacher: Teacher, params: dict[str, Params], process: Process, guidance: Callable[..., Any] | None = None
) -> ConditionalDenoiser:
    """Returns a teacher's denoiser for images on another process, guided by a rule.

    Args:
        teacher: the trained model, with a process of its own.
        params: its weights, as `load` gives them.
        process: what x_t and t are of.
        guidance: a rule of `genjax.sampling.guidance` that needs no times; None for the plain conditional denoiser.

    Returns:
        `(x_t [B, ...], t [] or [B], cond) -> E[x_0 | x_t, cond] [B, ...]`, with no gradient to the teacher's weights.
    """
    family, params = teacher.family, jax.lax.stop_gradient(params)
    plain = on_process(family.denoiser(params), family.process, process)
    if guidance is None:
        return plain

    def guided(x_t: Array, t: Array, cond: Any) -> Array:
        if cond is None:
            return plain(x_t, t, None)
        rule = sampling.guidance.guide(guidance, plain, cond, null_condition(cond), process=process)
        return rule(x_t, t)

    return guided
