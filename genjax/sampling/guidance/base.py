"""What a guidance rule is, and what lets rules be put around each other.

A rule is a function `(denoise, cond, null_cond, ...) -> Denoiser`. What it returns is `Guided`, so that a rule around
it sees the conditional prediction too and can have further conditions evaluated in the same batch: whatever is
composed, every condition is evaluated once, all of them in one call.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import require
from genjax.parameterizations import ConditionalDenoiser
from genjax.processes import Process
from genjax.registry import register
from genjax.sampling.core import StatefulDenoiser
from genjax.solvers import Denoiser

# A parameter that is itself a rule, given in a config as `dict(name=..., ...)`.
Rule = Annotated[Callable[..., Any], {"kind": "guidance"}]

PREDICTIONS = ("x0", "eps", "v", "velocity")

# Guided x_0, the predictions of the condition and of the further ones, the next memory
Evaluated = tuple[Array, tuple[Array, ...], Any]
# (x_t, t, memory, further conditions) -> Evaluated
Evaluate = Callable[[Array, Array, Any, Sequence[Any]], Evaluated]


@dataclasses.dataclass(frozen=True)
class Guided:
    """A denoiser that a rule made, open to the rules around it.

    It is called as a denoiser, `(x_t, t) -> x_0`; that of a rule with a memory is the `apply` of a `StatefulDenoiser`,
    `(x_t, t, memory) -> (x_0, memory)`.

    Attributes:
        evaluate: what it computes, with the predictions that went into it.
    """

    evaluate: Evaluate

    def __call__(self, x_t: Array, t: Array, *memory: Any) -> Any:
        """Returns x_0 [B, ...], or with a memory the pair of it and the next memory."""
        x_0, _, after = self.evaluate(x_t, t, memory[0] if memory else (), ())
        return (x_0, after) if memory else x_0


class Perturbed(NamedTuple):
    """A further condition: one under which the self-attention of some layers is perturbed."""

    cond: Any
    layers: tuple[str, ...]

    @staticmethod
    def ask(conds: Sequence[Any], n: int) -> Sequence[Any]:
        """Gives all conditions the same form, in which every one of n samples says what is perturbed."""
        layers = sorted({layer for cond in conds if isinstance(cond, Perturbed) for layer in cond.layers})
        if not layers:
            return conds
        asked = []
        for cond in conds:
            plain, chosen = cond if isinstance(cond, Perturbed) else (cond, ())
            flags = {layer: jnp.full(n, layer in chosen) for layer in layers}
            asked.append({**(plain or {}), "perturbed_attention": flags})
        return asked


def predict(denoise: ConditionalDenoiser, x_t: Array, t: Array, conds: Sequence[Any]) -> tuple[Array, ...]:
    """Evaluates a denoiser under several conditions in one call; the predictions are in the type of x_t.

    In half precision their differences would be mostly rounding.
    """
    conds = Perturbed.ask(conds, len(x_t))
    if len(conds) == 1:
        return (denoise(x_t, t, conds[0]).astype(x_t.dtype),)
    cond = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *conds)
    times = jnp.concatenate([t] * len(conds)) if jnp.ndim(t) else t
    together = denoise(jnp.concatenate([x_t] * len(conds)), times, cond)
    return tuple(jnp.split(together.astype(x_t.dtype), len(conds)))


def of_pair(
    denoise: ConditionalDenoiser, cond: Any, null_cond: Any, combine: Callable[[Array, Array, Array, Array], Array]
) -> Denoiser:
    """Makes a rule's denoiser of `combine(x_t, t, conditional prediction, null prediction)`."""

    def evaluate(x_t: Array, t: Array, memory: Any, also: Sequence[Any]) -> Evaluated:
        conditioned, null, *rest = predict(denoise, x_t, t, (cond, null_cond, *also))
        return combine(x_t, t, conditioned, null), (conditioned, *rest), memory

    return Guided(evaluate)


@register("guidance", "none")
def conditional(denoise: ConditionalDenoiser, cond: Any, null_cond: Any) -> Denoiser:
    """No guidance: the conditional denoiser itself."""

    def evaluate(x_t: Array, t: Array, memory: Any, also: Sequence[Any]) -> Evaluated:
        predictions = predict(denoise, x_t, t, (cond, *also))
        return predictions[0], predictions, memory

    return Guided(evaluate)


def guide(
    rule: Rule, denoise: ConditionalDenoiser, cond: Any, null_cond: Any, *, process: Any = None, times: Any = None
) -> Denoiser | StatefulDenoiser:
    """Applies a rule, giving it the process and the times of the run where it takes them.

    Args:
        rule: a rule, with or without its options bound.
        denoise: the conditional denoiser.
        cond: the condition, a pytree of leading axis B, or None.
        null_cond: the condition that stands for none, of the same structure.
        process: the process of the run.
        times: the times of the run [steps + 1].

    Raises:
        ValueError: the rule needs one of the last two, and it is not given.
    """
    parameters = inspect.signature(rule).parameters
    context = {"process": process, "times": times}
    for key, value in context.items():
        require(
            key not in parameters or value is not None or parameters[key].default is not inspect.Parameter.empty,
            f"the guidance {_name(rule)} needs {key} = ...; a rule around it takes {key} too, and hands it on",
        )
    known = {key: value for key, value in context.items() if key in parameters and value is not None}
    return rule(denoise, cond, null_cond, **known)


def wrap(
    rule: Rule,
    denoise: ConditionalDenoiser,
    cond: Any,
    null_cond: Any,
    process: Any,
    times: Any,
    around: Callable[[Evaluate, Array, Array, Any, Sequence[Any]], Evaluated],
) -> Denoiser | StatefulDenoiser:
    """Puts a rule around another one.

    Args:
        rule: the inner rule.
        denoise: as for `guide`.
        cond: as for `guide`.
        null_cond: as for `guide`.
        process: as for `guide`.
        times: as for `guide`.
        around: the outer evaluation, given the inner one and what an `Evaluate` takes.
    """
    inner = guide(rule, denoise, cond, null_cond, process=process, times=times)
    remembers = isinstance(inner, StatefulDenoiser)
    apply: Any = inner.apply if isinstance(inner, StatefulDenoiser) else inner

    def evaluate_others(x_t: Array, t: Array, memory: Any, also: Sequence[Any]) -> Evaluated:
        """A rule from elsewhere shows nothing of what went into it: the conditions are evaluated besides."""
        x_0, memory = apply(x_t, t, memory) if remembers else (apply(x_t, t), memory)
        return x_0, predict(denoise, x_t, t, (cond, *also)), memory

    evaluate = apply.evaluate if isinstance(apply, Guided) else evaluate_others
    guided = Guided(functools.partial(around, evaluate))
    return StatefulDenoiser(inner.init, guided) if isinstance(inner, StatefulDenoiser) else guided


def needs_null(rule: Rule) -> bool:
    """Whether a rule, with or without its options bound, evaluates the null condition, itself or in a rule within."""
    inner = inspect.signature(rule).parameters.get("guidance")
    if inner is not None and inner.default is not inspect.Parameter.empty:
        return needs_null(inner.default)
    return getattr(rule, "func", rule) is not conditional


def zero_of(prediction: str, process: Process, t: Array, x: Array) -> Array:
    """Returns c [] for which a kind of prediction is a multiple of D - c x_t, where D is the estimate of x_0.

    Args:
        prediction: one of `PREDICTIONS`.
        process: the process.
        t: time [].
        x: gives the type.
    """
    t = jnp.asarray(t, x.dtype)
    if prediction == "x0":
        return jnp.zeros_like(t)
    alpha, sigma = process.alpha(t), process.sigma(t)
    if prediction == "eps":  # says nothing of x_0 where there is no signal; D itself is taken there
        return jnp.where(alpha > 0, 1.0 / jnp.where(alpha > 0, alpha, 1.0), 0.0)
    if prediction == "v":
        return alpha / (alpha**2 + sigma**2)
    d_sigma = process.d_sigma(t)
    return d_sigma / (d_sigma * alpha - sigma * process.d_alpha(t))


def flat_sum(x: Array) -> Array:
    """Sums every sample of x [B, ...], with the axes kept: [B, 1, ...]."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)), keepdims=True)


def _name(rule: Rule) -> str:
    return getattr(getattr(rule, "func", rule), "__name__", repr(rule))
