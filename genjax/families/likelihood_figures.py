"""How likely a denoiser's model finds data, as figures of evaluation: by its probability flow, and its bound."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from genjax import sampling
from genjax.config import component, nearest, require
from genjax.families.base import DataSpec
from genjax.processes import Process
from genjax.sampling import bound
from genjax.sampling.likelihood import PROBES
from genjax.solvers import Denoiser, DPMpp2M, Solver

_DECODERS: dict[str, bound.Reconstruction] = {
    "discretized_gaussian": bound.discretized_gaussian,
    "categorical": bound.categorical,
    "dequantization": bound.gaussian,
}


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """What evaluation says of likelihood. Both figures cost many evaluations a batch, and both are off by default.

    They are figures of two models. The bound is one of the SDE's model, whose samples come from the reverse SDE. The
    flow's is the likelihood of the ODE's model. With an exact denoiser they are one model and one number; with a
    learnt one neither bounds the other by theory (Song et al. 2021c, theorems 1 and 3).

    Attributes:
        flow_steps: steps of the probability flow, an evaluation and as many derivatives as probes each; 0 for none.
        bound_nodes: denoiser evaluations of the continuous bound; 0 for none.
        solver: of the flow, without randomness.
        probes: of the flow's divergence: "rademacher", "normal", or "exact" for few dimensions.
        n_probes: number of probes.
        draws: how many times the noise of the bound and the dequantization of either figure are drawn.
        t_max: highest time of both; by default 1, or 0.999 where log-SNR is infinite there.
        t_min: lowest time of both; by default 0, or 0.001 where log-SNR is infinite there. Published figures of the
            VP and sub-VP SDE have 1e-5.
        eight_bit: whether the data are 8-bit images, or real numbers.
        decoder: of 8-bit images in the bound, `discretized_gaussian` or `categorical` of `genjax.sampling.bound`; or
            "dequantization", where the data are the real numbers that the flow's figure is of.
    """

    flow_steps: int = 0
    bound_nodes: int = 0
    solver: Solver = component("solver", DPMpp2M())
    probes: str = "rademacher"
    n_probes: int = 1
    draws: int = 1
    t_max: float | None = None
    t_min: float | None = None
    eight_bit: bool = True
    decoder: str = "discretized_gaussian"

    def __post_init__(self) -> None:
        require(self.flow_steps >= 0, f"flow_steps = {self.flow_steps}: must be at least 0")
        require(self.bound_nodes >= 0, f"bound_nodes = {self.bound_nodes}: must be at least 0")
        require(not self.solver.stochastic, f"solver = {self.solver}: the probability flow has no randomness")
        require(self.probes in PROBES, f"probes = {self.probes!r}{nearest(self.probes, PROBES)}")
        require(self.n_probes >= 1, f"n_probes = {self.n_probes}: must be at least 1")
        require(self.draws >= 1, f"draws = {self.draws}: must be at least 1")
        require(self.decoder in _DECODERS, f"decoder = {self.decoder!r}{nearest(self.decoder, _DECODERS)}")

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data are not what the figures are of."""
        require(
            not (self.flow_steps or self.bound_nodes) or self.eight_bit == (spec.levels == 256),
            f"eight_bit = {self.eight_bit}, but the data are "
            + ("real numbers" if spec.levels is None else f"pixels of {spec.levels} levels"),
        )

    def __call__(self, key: Array, denoise: Denoiser, process: Process, x: Array) -> dict[str, Array]:
        """Returns the figures that are on, by name, each [B].

        Args:
            key: random key, or one a sample [B].
            denoise: `(x_t [B, ...], t []) -> E[x_0 | x_t] [B, ...]`, with its condition.
            process: the process that the denoiser belongs to.
            x: data [B, ...]; of 8-bit images k / 127.5 - 1.

        Returns:
            `nll_bpd` of the flow and `elbo_bpd` in bits a dimension of 8-bit images; `nll` and `elbo` in nats of real
            numbers, of which the first is a cost and the second bounds a log-likelihood.
        """
        keys = jax.vmap(lambda key: jax.random.split(key))(sampling.sample_keys(key, len(x)))
        figures: dict[str, Array] = {}
        if self.flow_steps:
            figures |= self._flow(keys[:, 0], denoise, process, x)
        if self.bound_nodes:
            figures |= self._bound(keys[:, 1], denoise, process, x)
        return figures

    def _flow(self, keys: Array, denoise: Denoiser, process: Process, x: Array) -> dict[str, Array]:
        times = sampling.times.log_snr(process, self.flow_steps, t_max=self.t_max, t_min=self.t_min)
        given = (denoise, process, self.solver, times)
        if not self.eight_bit:
            found = sampling.log_likelihood(keys, *given, x, probes=self.probes, n_probes=self.n_probes)
            return {"nll": -found.log_prob}
        bits = sampling.bits_per_dim(
            keys, *given, to_levels(x), dequantizations=self.draws, probes=self.probes, n_probes=self.n_probes
        )
        return {"nll_bpd": bits.bits_per_dim}

    def _bound(self, keys: Array, denoise: Denoiser, process: Process, x: Array) -> dict[str, Array]:
        def bits(keys: Array, x: Array, draws: int, reconstruction: bound.Reconstruction) -> Array:
            return sampling.continuous_bound(
                keys,
                denoise,
                process,
                x,
                nodes=self.bound_nodes,
                t_max=self.t_max,
                t_min=self.t_min,
                draws=draws,
                reconstruction=reconstruction,
            ).total

        decode = _DECODERS[self.decoder]
        if not self.eight_bit:
            return {"elbo": -x[0].size * math.log(2.0) * bits(keys, x, self.draws, bound.gaussian)}
        if self.decoder != "dequantization":
            return {"elbo_bpd": bits(keys, x, self.draws, decode)}

        def one(draw: Array) -> Array:
            pair = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, draw)))(keys)
            return bits(pair[:, 1], dequantized(x, pair[:, 0]), 1, decode)

        # Bits of a density on [-1, 1], of which a level has 1/128.
        return {"elbo_bpd": 7.0 + jax.lax.map(one, jnp.arange(self.draws)).mean(0)}


def to_levels(x: Array) -> Array:
    """Returns 8-bit images, uint8, of k / 127.5 - 1."""
    return jnp.round((x + 1.0) * 127.5).astype(jnp.uint8)


def dequantized(x: Array, keys: Array) -> Array:
    """Returns (k + u) / 128 - 1 of 8-bit images given as k / 127.5 - 1, u uniform in [0, 1) (Theis et al. 2016).

    Args:
        x: images [B, H, W, C].
        keys: one key an example [B].
    """
    u = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(keys)
    return (to_levels(x).astype(u.dtype) + u) / 128.0 - 1.0
