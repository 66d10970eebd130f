"""What families whose network stands for a denoiser share: what it takes, how it begins, how it generates."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax import sampling
from genjax.config import component, require, section
from genjax.families.base import (
    DataSpec,
    Extra,
    Keys,
    Params,
    check_data,
    check_image_shape,
    conditions,
)
from genjax.families.sampler import Sampler, null_condition
from genjax.parameterizations import ConditionalDenoiser, Eps, Parameterization, denoiser
from genjax.processes import LinearVP, Process
from genjax.sampling.core import Trace

MODEL = "model"  # the role of the network
UNCERTAINTY = "uncertainty"  # a branch of it that is not the network's, where a loss learns its own weights


@dataclasses.dataclass(frozen=True)
class Denoising:
    """A family of one network that, with its parameterization, is a denoiser; how it learns is a subclass's.

    Attributes:
        image_shape: (H, W, C).
        network: maps (c_in x_t [B, H, W, C], noise label [B], cond) to an output [B, H, W, C].
        process: the path from data to noise.
        parameterization: what the output means.
        condition: names of the batch's entries that condition the network, such as ("label",).
        condition_dropout: share of the training samples whose condition is replaced by the null one, for
            classifier-free guidance.
        sampler: how it generates.
    """

    image_shape: tuple[int, int, int]
    network: Any = component("network")
    process: Process = component("process", LinearVP())
    parameterization: Parameterization = component("parameterization", Eps())
    condition: tuple[str, ...] = ()
    condition_dropout: float = 0.1
    sampler: Sampler = section(Sampler, Sampler())
    gives_variances: ClassVar[bool] = False  # whether the network has outputs for the variances of a chain

    def __post_init__(self) -> None:
        check_image_shape(self.image_shape)
        require(
            0.0 <= self.condition_dropout <= 1.0, f"condition_dropout = {self.condition_dropout}: must be in [0, 1]"
        )
        self.network.check(self.image_shape)
        require(
            self.gives_variances or getattr(self.sampler.solver, "variance", None) != "learned",
            "sampler.solver.variance = 'learned': this family's network gives no variances",
        )
        times = self.sampler.times(self.process, self.sampler.steps)  # a grid that the process refuses is found here
        # So are wrong options of a rule: it is applied, but evaluates nothing here.
        never: ConditionalDenoiser = lambda x_t, t, cond: x_t  # noqa: E731
        sampling.guidance.guide(self.sampler.guidance, never, None, None, process=self.process, times=times)
        start = jnp.float32(times[0])
        require(
            bool(self.process.alpha(start) > 0 or self.parameterization.eps_scale(start, self.process) == 0),
            f"sampling starts at t = {times[0]} without signal, where this parameterization says nothing about x_0: "
            "take v, velocity, x0 or edm, or a time grid with t_max below 1",
        )
        require(
            not self.condition or self.condition_dropout > 0 or not sampling.guidance.needs_null(self.sampler.guidance),
            "condition_dropout = 0 never trains the null condition, which the sampler's guidance needs",
        )

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        check_data(spec, self.image_shape, self.condition, {"network": getattr(self.network, "num_classes", None)})
        shapes = jax.eval_shape(lambda key: self.init(key, spec)[0][MODEL], jax.random.key(0))
        batch = jax.eval_shape(lambda: self._example(2))
        output = jax.eval_shape(lambda params, inputs: self._apply(params, *inputs), shapes, batch)
        require(
            output.shape == (2, *self.image_shape),
            f"the network returns {output.shape[1:]} for images of {self.image_shape}",
        )

    def _example(self, n: int) -> tuple[Array, Array, Any]:
        """Inputs of the network: images, noise labels and the condition, all zero."""
        cond = {name: jnp.zeros((n,), jnp.int32) for name in self.condition}
        cond |= {name: jnp.zeros((n,)) for name in getattr(self.network, "scalars", ())}
        return jnp.zeros((n, *self.image_shape)), jnp.zeros((n,)), cond or None

    def _apply(self, params: Params, x: Array, label: Array, cond: Any, dropout: Array | None = None) -> Array:
        return self.network.apply({"params": params}, x, label, cond, dropout=dropout)

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model"."""
        return {MODEL: self.network.init(key, *self._example(1))["params"]}, {}

    def denoiser(self, params: dict[str, Params]) -> ConditionalDenoiser:
        """Returns `(x_t, t, cond) -> E[x_0 | x_t, cond]` of a set of parameters."""
        return denoiser(self._apply, params[MODEL], self.parameterization, self.process)

    def generate(
        self, params: dict[str, Params], key: Array, n: int, cond: Any = None, trace: Trace | None = None
    ) -> Any:
        """Returns n images [n, H, W, C]; with a trace, the pair of them and its results."""
        shape, cond = (n, *self.image_shape), conditions(cond, self.condition)
        return self.sampler(key, self.denoiser(params), self.process, shape, cond, trace)

    def _partly_dropped(self, keys: Keys, cond: Any) -> Any:
        """A condition with the null one in the place of a share `condition_dropout` of its examples."""
        if cond is None:
            return None
        drop = jax.vmap(lambda key: jax.random.bernoulli(key, self.condition_dropout))(keys.each)
        return jax.tree.map(lambda c, null: jnp.where(drop, null, c), cond, null_condition(cond))


def with_uncertainty(params: Params, uncertainty: Any, key: Array) -> Params:
    """Returns a network's parameters with those of a learnt uncertainty as a branch, `UNCERTAINTY`."""
    return {**params, UNCERTAINTY: uncertainty.init(key, jnp.zeros(1))["params"]}


def by_uncertainty(loss: Array, params: Params, uncertainty: Any, log_snr: Array) -> Array:
    """Returns a loss L [B] as it is trained by a learnt log-variance u: L / exp(u) + u (Karras et al. 2024b, eq. 16).

    Args:
        loss: at one noise level each [B].
        params: of the network, with the branch `UNCERTAINTY`.
        uncertainty: the module that gives u.
        log_snr: of the noise levels [B].
    """
    u = uncertainty.apply({"params": params[UNCERTAINTY]}, jnp.clip(log_snr / -8.0, -5.0, 5.0))
    return loss * jnp.exp(-u) + u
