"""Classifiers of noisy images, which guide the sampling of other models."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import ConfigError, component
from genjax.families.base import (
    Aux,
    Batch,
    DataSpec,
    Extra,
    Keys,
    Params,
    Phase,
    State,
    check_data,
    check_image_shape,
)
from genjax.families.noise_levels import EDGES, by_noise_level
from genjax.families.time_samplers import TimeSampler, UniformTimes
from genjax.parameterizations import Eps, Parameterization, noised
from genjax.processes import LinearVP, Process
from genjax.registry import register
from genjax.sampling.keys import normal_like

CLASSIFIER = "classifier"  # the role of the network


@register("family", "classifier", reference="dhariwal2021diffusion")
@dataclasses.dataclass(frozen=True)
class Classifier:
    """A classifier log p(y | x_t) of images at random noise levels (Dhariwal & Nichol 2021, section 4).

    It generates nothing. It guides a model of the same images, on any process, by the rule `classifier`:

        genjax sample --workdir=runs/ddpm --guidance.name=classifier --guidance.log_prob.workdir=runs/classifier

    Training measures `accuracy`, and the same within ranges of the noise level sigma / alpha.

    Attributes:
        image_shape: (H, W, C).
        network: maps (c_in x_t [B, H, W, C], noise label [B]) to logits [B, classes].
        process: the path from data to noise.
        parameterization: gives c_in and the noise label; what an output means is not asked.
        time_sampler: distribution of the noise levels in training.
    """

    image_shape: tuple[int, int, int]
    network: Any = component("noisy_classifier")
    process: Process = component("process", LinearVP())
    parameterization: Parameterization = component("parameterization", Eps())
    time_sampler: TimeSampler = component("time_sampler", UniformTimes())
    condition: ClassVar[tuple[str, ...]] = ()
    generates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_image_shape(self.image_shape)
        self.network.check(self.image_shape)

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        check_data(spec, self.image_shape, ("label",), {"network": self.network.num_classes})

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "classifier"."""
        return {CLASSIFIER: self.network.init(key, jnp.zeros((1, *self.image_shape)), jnp.zeros(1))["params"]}, {}

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "classifier"."""
        return (Phase("train", CLASSIFIER, self._loss),)

    def log_prob(self, params: dict[str, Params]) -> Callable[[Array, Array, Any], Array]:
        """Returns `(x_t [B, ...], t [] or [B], cond) -> log p(cond["label"] | x_t) [B]` of a set of parameters."""

        def log_prob(x_t: Array, t: Array, cond: Any) -> Array:
            return _of_label(self._log_probs(params[CLASSIFIER], x_t, jnp.asarray(t, x_t.dtype)), cond["label"])

        return log_prob

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: Any = None) -> NoReturn:
        """Raises ConfigError: there is nothing to generate."""
        raise ConfigError(
            "a classifier generates no images: train it with training.sample_every = 0, and guide another run with it "
            "by --guidance.name=classifier --guidance.log_prob.workdir=..."
        )

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns figures of each example [B], without dropout.

        `loss` in nats and `accuracy` are at the noise levels of training, `accuracy_at_0` is of clean images, and
        `accuracy_at_0.1` and so on at one noise level sigma / alpha each.
        """
        x_0, label = batch["image"], batch["label"]
        keys_t, keys_eps = Keys.of(key, len(x_0)).split(2)
        t = self.time_sampler(keys_t, self.process)
        ratios = jnp.asarray([0.0, *EDGES], x_0.dtype)
        levels = self.process.time_of_log_snr(-2.0 * jnp.log(ratios))
        every = jnp.concatenate([t[None], jnp.broadcast_to(levels[:, None], (len(levels), len(t)))])
        eps = normal_like(keys_eps.each, x_0)
        found = jax.lax.map(lambda t: self._log_probs(params[CLASSIFIER], noised(x_0, eps, t, self.process), t), every)
        right = (found.argmax(-1) == label[None]).astype(jnp.float32)
        names = ["accuracy", *(f"accuracy_at_{ratio:g}" for ratio in (0.0, *EDGES))]
        return {"loss": -_of_label(found[0], label)} | dict(zip(names, right, strict=True))

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_t, keys_eps, keys_dropout = keys.split(3)
        x_0, label = batch["image"], batch["label"]
        t = self.time_sampler(keys_t, self.process)
        x_t = noised(x_0, normal_like(keys_eps.each, x_0), t, self.process)
        found = self._log_probs(params, x_t, t, keys_dropout.each)
        right = (found.argmax(-1) == label).astype(jnp.float32)
        levels = by_noise_level(right, self.process.log_snr(t))
        metrics = {"accuracy": right.mean()} | {f"accuracy_by_noise/{name}": levels[name] for name in levels}
        return -_of_label(found, label).mean(), Aux(metrics)

    def _log_probs(self, params: Params, x_t: Array, t: Array, dropout: Array | None = None) -> Array:
        """Log-probabilities of all classes [B, classes], at times [] or [B]."""
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        label = jnp.broadcast_to(label, x_t.shape[:1])
        logits = self.network.apply({"params": params}, x_in, label, dropout=dropout)
        return jax.nn.log_softmax(logits.astype(jnp.float32))


def _of_label(log_probs: Array, label: Array) -> Array:
    return jnp.take_along_axis(log_probs, label[:, None], axis=-1)[:, 0]
