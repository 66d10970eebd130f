"""Second networks in guidance, trained in runs of their own: what a config can name."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import require
from genjax.parameterizations import ConditionalDenoiser, expand
from genjax.processes import Process

LogProb = Callable[[Array, Array, Any], Array]  # (x_t [B, ...], t [], cond) -> log p(cond | x_t) [B]


class Trained(Protocol):
    """A trained model: its family, and its weights, which guidance reads while the sampler is compiled."""

    @property
    def family(self) -> Any:
        """The family that was trained, with its own process, conditions and sampler."""
        ...

    def load(self) -> dict[str, Any]:
        """Reads what the family generates with: its roles, averaged where they have an average, and its `extra`."""
        ...


def on_process(function: Callable[..., Array], of: Process, process: Process) -> Callable[..., Array]:
    """Returns what a function of noisy images of a process `of` is for those of another process.

    What x_t says of an image depends on log-SNR alone, so x_t is scaled to where `of` has the same; beyond the noise
    levels of `of` the function is asked at its last one.

    Args:
        function: `(x_t [B, ...], t [] or [B], cond)` -> a denoiser's estimate of x_0, or a log-probability.
        of: the process that it belongs to.
        process: what x_t and t are to be of.
    """
    if of == process:
        return function

    def moved(x_t: Array, t: Array, cond: Any) -> Array:
        t = jnp.asarray(t, x_t.dtype)
        there = of.time_of_log_snr(process.log_snr(t))
        scale = jnp.hypot(of.alpha(there), of.sigma(there)) / jnp.hypot(process.alpha(t), process.sigma(t))
        return function(expand(scale, x_t) * x_t, there, cond)

    return moved


def log_prob_of(classifier: LogProb | Trained, process: Process) -> LogProb:
    """Returns the log-probabilities of a classifier, of a run or a function.

    Those of a run read the first channels of x_t where it has more than the classifier's images, and are 0 where there
    is no condition, or the null one.

    Raises:
        ValueError: the run is not one of a classifier.
    """
    ask = _of(classifier, process, "log_prob")
    if ask is None:
        return classifier  # type: ignore[return-value]
    channels = classifier.family.image_shape[-1]  # type: ignore[union-attr]

    def log_prob(x_t: Array, t: Array, cond: Any) -> Array:
        if cond is None:
            return jnp.zeros(len(x_t), x_t.dtype)
        label = cond["label"]
        found = ask(x_t[..., :channels], t, {"label": jnp.maximum(label, 0)})
        return jnp.where(label >= 0, found, 0.0)

    return log_prob


def denoiser_of(model: ConditionalDenoiser | Trained, process: Process | None) -> ConditionalDenoiser:
    """Returns the denoiser of a model, of a run or a function, for images of a process.

    Raises:
        ValueError: the run's family has no denoiser, or the process is not given.
    """
    return _of(model, process, "denoiser") or model  # type: ignore[return-value]


def _of(model: Any, process: Process | None, method: str) -> Callable[..., Array] | None:
    """What a method of a run's family makes of its weights; None for what is no run."""
    if not hasattr(model, "load"):
        return None
    family = model.family
    require(
        hasattr(family, method), f"guidance: the family of the run has no {method}; it is a {type(family).__name__}"
    )
    require(process is not None, "guidance by a trained model needs process = ...")

    @functools.cache
    def weights() -> dict[str, Any]:
        with jax.ensure_compile_time_eval():  # read once, as numbers, also where the sampler is being traced
            return jax.lax.stop_gradient(model.load())

    def ask(x_t: Array, t: Array, cond: Any) -> Array:
        return on_process(getattr(family, method)(weights()), family.process, process)(x_t, t, cond)  # type: ignore[arg-type]

    return ask
