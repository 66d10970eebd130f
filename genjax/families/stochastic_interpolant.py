"""Stochastic interpolants: flows and diffusions between data and noise, or between two data sources."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.config import component, nearest, require
from genjax.families import image_buffer
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, conditions
from genjax.families.couplings import Coupling, Independent
from genjax.families.denoising import MODEL, Denoising
from genjax.families.interpolants import Interpolant, LinearInterpolant
from genjax.families.time_samplers import TimeSampler, UniformTimes
from genjax.parameterizations import ConditionalDenoiser, Parameterization, Velocity, denoiser, expand
from genjax.processes import Process, RectifiedFlow
from genjax.processes.base import namespace
from genjax.registry import register
from genjax.sampling.core import Trace
from genjax.sampling.keys import normal_like, sample_keys
from genjax.solvers import DDIM
from genjax.solvers.base import check_falling
from genjax.solvers.linear import Linear, LinearPlan, Stage, image

SOURCES = "sources"  # in `extra`
SECOND = "image_b"  # of a batch


@register("family", "stochastic_interpolant")
@dataclasses.dataclass(frozen=True)
class StochasticInterpolant(Denoising):
    """Regression on b and eta of x_t = alpha x_0 + beta x_1 + gamma z (Albergo et al. 2023).

    The network has twice the image's channels: the velocity b = E[dx_t/dt | x_t], then the denoiser eta = E[z | x_t],
    of which the score is -eta / gamma. x_0 is the data; x_1 is noise, or images of a second source.

    Sampling goes from t = 1 to t = 0. Any velocity is the denoiser D = x - t b of the process `rectified_flow`, whose
    probability-flow ODE is dx/dt = b, so that every deterministic solver and time grid integrates it. With `noise` > 0,
    c, it is the SDE dx = (b + c eta) dt + sqrt(2 c gamma) dW back in time, by the Euler-Maruyama method. Its marginals
    are the same: it is the paper's with epsilon = c gamma, which leaves no singularity.

    From a second source, training keeps the first images of it that it sees, and generates from random ones of them;
    `translate` takes any. `evaluate` gives `loss`, the sum of both errors, and each of them.

    Attributes beside those of `Denoising`, whose process and parameterization are fixed:
        interpolant: the path.
        source: what x_1 is: "noise", or "image_b", the second source of the data `unpaired`.
        coupling: which x_1 each image goes to.
        time_sampler: distribution of t in training; not quite the ends, where the slope of gamma may have no bound.
        noise: strength c of the SDE's noise; 0 for the ODE. The SDE takes the solver `ddim` with eta = 0, whose steps
            it adds noise to, and an interpolant with noise.
        sources: how many images of a second source are kept for generation.
    """

    process: Process = dataclasses.field(default=RectifiedFlow(), metadata={"internal": True})
    parameterization: Parameterization = dataclasses.field(default=Velocity(), metadata={"internal": True})
    interpolant: Interpolant = component("interpolant", LinearInterpolant())
    source: str = "noise"
    coupling: Coupling = component("coupling", Independent())
    time_sampler: TimeSampler = component("time_sampler", UniformTimes(t_min=1e-3, t_max=1.0 - 1e-3))
    noise: float = 0.0
    sources: int = 64
    reference: ClassVar[str] = "albergo2023stochastic"

    def __post_init__(self) -> None:
        among = ("noise", SECOND)
        require(self.source in among, f"source = {self.source!r}{nearest(self.source, among)}")
        require(self.noise >= 0, f"noise = {self.noise}: must be at least 0")
        require(self.sources >= 1, f"sources = {self.sources}: must be at least 1")
        require(
            self.noise == 0 or self.sampler.solver == DDIM(),
            f"noise = {self.noise}: the SDE's steps are those of the solver ddim with eta = 0, and it has no other",
        )
        require(
            self.noise == 0 or bool(self.interpolant.gamma(np.float64(0.5)) > 0),
            f"noise = {self.noise}: the SDE needs an interpolant with noise, which says where there is score",
        )
        super().__post_init__()

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        height, width, channels = self.image_shape
        whole, shapes = super()._apply, jax.eval_shape(lambda key: self.init(key, spec)[0][MODEL], jax.random.key(0))
        output = jax.eval_shape(lambda params, x: whole(params, *x), shapes, jax.eval_shape(lambda: self._example(2)))
        require(
            output.shape == (2, height, width, 2 * channels),
            f"the network returns {output.shape[1:]}, and b and eta need {(height, width, 2 * channels)}: "
            f"set network.out_channels = {2 * channels}",
        )
        super().check(spec)
        if self.source == SECOND:
            require(spec.second is not None, "source = 'image_b': the data are of one source; see the data `unpaired`")
            assert spec.second is not None
            there = tuple(spec.second.image_shape)
            require(there == tuple(self.image_shape), f"image_shape = {self.image_shape}, but image_b has {there}")

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model", and room for the images of a second source."""
        params, extra = super().init(key, spec)
        kept = {SOURCES: image_buffer.empty(self.sources, self.image_shape)} if self.source == SECOND else {}
        return params, extra | kept

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def _apply(self, params: Params, x: Array, label: Array, cond: Any, dropout: Array | None = None) -> Array:
        """The velocity alone."""
        return self._both(params, x, label, cond, dropout)[0]

    def _both(
        self, params: Params, x: Array, label: Array, cond: Any, dropout: Array | None = None
    ) -> tuple[Array, Array]:
        b, eta = jnp.split(super()._apply(params, x, label, cond, dropout), 2, axis=-1)
        return b, eta

    def denoiser(self, params: dict[str, Params]) -> ConditionalDenoiser:
        """Returns `(x_t, t, cond) -> D` with D = x_t - t b, or of the SDE x_t - t (b + noise eta)."""

        def drift(params: Params, x: Array, label: Array, cond: Any) -> Array:
            b, eta = self._both(params, x, label, cond)
            return b + self.noise * eta

        return denoiser(drift, params[MODEL], self.parameterization, self.process)

    def score(self, params: dict[str, Params]) -> ConditionalDenoiser:
        """Returns `(x_t, t, cond) -> -eta / gamma`, the score of x_t where gamma is positive."""

        def score(x_t: Array, t: Array, cond: Any = None) -> Array:
            t = jnp.asarray(t, x_t.dtype)
            x_in, label = self.parameterization.network_input(x_t, t, self.process)
            eta = self._both(params[MODEL], x_in, jnp.broadcast_to(label, x_t.shape[:1]), cond)[1]
            return -eta / expand(self.interpolant.gamma(t), x_t)

        return score

    def generate(
        self, params: dict[str, Params], key: Array, n: int, cond: Any = None, trace: Trace | None = None
    ) -> Any:
        """Returns n images [n, H, W, C]; with a trace, the pair of them and its results."""
        if self.source == "noise":
            return self._sample(params, key, n, cond, trace)
        kept, keys = params[SOURCES], sample_keys(key, n)
        choose = jax.vmap(
            lambda key: jax.random.randint(jax.random.fold_in(key, 2), (), 0, jnp.maximum(kept["count"], 1))
        )
        return self._sample(params, keys, n, cond, trace, kept["images"][choose(keys)])

    def translate(self, params: dict[str, Params], key: Array, images: Array, cond: Any = None) -> Array:
        """Returns what lies at t = 0 of the paths from images [B, H, W, C] of what is at t = 1."""
        return self._sample(params, key, len(images), cond, None, images)

    def _sample(
        self, params: dict[str, Params], key: Array, n: int, cond: Any, trace: Trace | None, start: Array | None = None
    ) -> Any:
        sampler, shape = self.sampler, (n, *self.image_shape)
        if self.noise:
            sampler = dataclasses.replace(sampler, solver=EulerMaruyama(self.interpolant, self.noise))
        return sampler(key, self.denoiser(params), self.process, shape, conditions(cond, self.condition), trace, start)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the errors of each example, without dropout: `b_mse`, `eta_mse` and their sum, `loss`, each [B].

        {} where the batch lacks what the other end of the paths is.
        """
        needed = {*self.coupling.needs, *([SECOND] if self.source == SECOND else [])}
        if not needed <= set(batch):
            return {}
        keys = Keys.of(key, len(batch["image"]))
        of_b, of_eta = self._errors(params[MODEL], batch, keys, conditions(batch, self.condition))
        return {"loss": of_b + of_eta, "b_mse": of_b, "eta_mse": of_eta}

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        cond = self._partly_dropped(keys_condition, conditions(batch, self.condition))
        of_b, of_eta = (e.mean() for e in self._errors(params, batch, keys_loss, cond, keys_dropout.each))
        extra = None
        if self.source == SECOND:
            extra = {**state.extra, SOURCES: image_buffer.fill(state.extra[SOURCES], batch[SECOND])}
        return of_b + of_eta, Aux({"b_mse": of_b, "eta_mse": of_eta}, extra)

    def _errors(
        self, params: Params, batch: Batch, keys: Keys, cond: Any, dropout: Array | None = None
    ) -> tuple[Array, Array]:
        """The square errors of b and eta, averaged over pixels, each [B]."""
        keys_t, keys_ends, keys_z = keys.split(3)
        t = self.time_sampler(keys_t, self.process)
        x_0, x_1 = self.coupling(keys_ends, batch, batch[SECOND] if self.source == SECOND else None)
        z = normal_like(keys_z.each, x_0)
        x_t, slope = self.path(x_0, x_1, z, t)
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        b, eta = self._both(params, x_in, label, cond, dropout)
        of_b, of_eta = (jnp.mean(error**2, axis=(1, 2, 3)) for error in (b - slope, eta - z))
        return of_b, of_eta

    def path(self, x_0: Array, x_1: Array, z: Array, t: Array) -> tuple[Array, Array]:
        """Returns x_t and dx_t/dt of both ends and noise [B, ...] at times [B]."""
        a, b, g, d_a, d_b, d_g = (
            expand(getattr(self.interpolant, name)(t), x_0)
            for name in ("alpha", "beta", "gamma", "d_alpha", "d_beta", "d_gamma")
        )
        return a * x_0 + b * x_1 + g * z, d_a * x_0 + d_b * x_1 + d_g * z


@dataclasses.dataclass(frozen=True)
class EulerMaruyama(Linear):
    """Steps of a stochastic interpolant's SDE: Euler's on the straight path, plus noise of variance 2 c gamma h.

    Attributes:
        interpolant: gives gamma, which is taken at the end of a step, so that the last one adds no noise.
        noise: c.
    """

    interpolant: Interpolant
    noise: float
    order: ClassVar[int] = 1
    nfe_per_step: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    reference: ClassVar[str] = "albergo2023stochastic"

    def plan(self, process: Process, times: Any) -> LinearPlan:
        """Returns the coefficients [steps]."""
        check_falling("the SDE of a stochastic interpolant", times)
        t, s = times[:-1], times[1:]
        step = (t - s) / t
        std = namespace(times).sqrt(2.0 * self.noise * self.interpolant.gamma(s) * (t - s))
        result = (1.0 - step) * image("x") + step * image("d0") + std * image("z0")
        return LinearPlan.make([Stage(t, image("x"))], result, spans=((t, s),))
