"""The one table of named components, and the only global state of the library.

A component is a frozen dataclass (a solver, a process, a family), a Linen module (a network) or a function (a time
grid, a guidance rule). It enters the table where it is defined:

    @register("solver", "ddim")
    @dataclasses.dataclass(frozen=True)
    class DDIM: ...

The rooms are imported when a kind is first asked for, so that importing the samplers does not import the networks.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# Where the components of each kind are defined.
KINDS = {
    "process": "genjax.processes",
    "parameterization": "genjax.parameterizations",
    "bijector": "genjax.bijectors",
    "solver": "genjax.solvers",
    "times": "genjax.sampling.times",
    "guidance": "genjax.sampling.guidance",
    "network": "genjax.networks",
    "encoder": "genjax.networks",
    "decoder": "genjax.networks",
    "hierarchy": "genjax.networks",
    "spatial_encoder": "genjax.networks",
    "spatial_decoder": "genjax.networks",
    "conditioner": "genjax.networks.conditioners",
    "generator": "genjax.networks",
    "discriminator": "genjax.networks",
    "translator": "genjax.networks",
    "noisy_classifier": "genjax.networks",
    "uncertainty": "genjax.networks",
    "noise_schedule": "genjax.networks",
    "adversarial_loss": "genjax.families.adversarial",
    "weighting": "genjax.families.weightings",
    "time_sampler": "genjax.families.time_samplers",
    "score_matching": "genjax.families.score_matching",
    "discretization": "genjax.families.discretizations",
    "distance": "genjax.families.consistency_losses",
    "consistency_weighting": "genjax.families.consistency_losses",
    "coupling": "genjax.families.couplings",
    "interpolant": "genjax.families.interpolants",
    "likelihood": "genjax.families.likelihoods",
    "objective": "genjax.families.objectives",
    "sparsity": "genjax.families.sparsity",
    "corruption": "genjax.families.corruption",
    "family": "genjax.families",
    "data": "genjax.data",
    "teacher": "genjax.training.pretrained",
    "optimizer": "genjax.training.optimizers",
    "schedule": "genjax.training.optimizers",
    "feature_network": "genjax.evaluation.features",
}

# The components that are functions are called later with these arguments, which are not a config's to give.
CALLED_WITH: dict[str, tuple[str, ...]] = {
    "times": ("process", "steps"),
    "guidance": ("denoise", "cond", "null_cond", "process", "times"),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named component: what builds it, its one-line summary and the BibTeX key of its paper."""

    kind: str
    name: str
    build: Callable[..., Any]
    summary: str
    reference: str | None


_TABLE: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}


def register(kind: str, name: str, *, reference: str | None = None) -> Callable[[T], T]:
    """Enters the decorated class or function under a name.

    Args:
        kind: one of `KINDS`.
        name: the field's name for it, in lower case.
        reference: BibTeX key of its paper; a class may have an attribute `reference` instead.

    Raises:
        ValueError: the kind is unknown, or another component has the name.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of component {kind!r}; there are {', '.join(KINDS)}")

    def enter(component: T) -> T:
        if name in _TABLE[kind]:
            raise ValueError(f"two components are called {kind} {name!r}")
        key = reference or getattr(component, "reference", None)
        summary = (inspect.getdoc(component) or "").strip().split("\n", 1)[0]
        _TABLE[kind][name] = Entry(kind, name, component, summary, key if isinstance(key, str) else None)  # type: ignore[arg-type]
        return component

    return enter


def entries(kind: str) -> dict[str, Entry]:
    """Returns the components of a kind by name, in alphabetical order.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of component {kind!r}; there are {', '.join(KINDS)}")
    importlib.import_module(KINDS[kind])
    return dict(sorted(_TABLE[kind].items()))
