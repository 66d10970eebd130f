"""RealNVP's log-likelihood and its gradient, beside nflows."""

import importlib.util
import os
from typing import Any

import jax
import numpy as np

from experiments.benchmark.report import Figures, best
from genjax import config
from genjax.bijectors import Bijector

DIMENSIONS, BATCH = 64, 256
PAIRS, HIDDEN, BLOCKS = 4, 128, 2  # of couplings, and of the residual network in each
BAR = 1.5
ROUNDS, SECONDS = 5, 2.0  # how often the two take turns, and how long a turn is


def figures() -> Figures:
    """Returns the table; without nflows, with our time alone."""
    ours, theirs = measure(ROUNDS, SECONDS)
    if theirs is not None:
        rate = theirs / ours
        cell = f"{rate:.2f}" if rate >= BAR else f"**{rate:.2f}**"
        against = f"{1e3 * theirs:.2f} ms"
    else:
        cell, against = "-", "no nflows here"
    name = f"RealNVP of {2 * PAIRS} couplings, {DIMENSIONS} dimensions, batch {BATCH}: log-likelihood and gradient"
    rows = [(name, f"{1e3 * ours:.2f} ms", against, cell, f"at least {BAR}")]
    return Figures("Flows beside nflows", ("figure", "ours", "nflows", "times faster", "bar"), rows)


def measure(rounds: int, seconds: float) -> tuple[float, float | None]:
    """Returns the seconds of log-likelihood and gradient, ours and those of nflows, or None where it is not there.

    The two take turns, and each time counts by its best, so that what else the machine does spoils neither alone.
    Both have the same weights, and it is checked that they find the same log-likelihood.
    """
    flow = realnvp()
    x = jax.random.normal(jax.random.key(0), (BATCH, DIMENSIONS))
    params = trained(flow.init(jax.random.key(1), (DIMENSIONS,)))

    @jax.jit
    def ours(params: Any, x: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            return -log_prob(flow, params, x).mean()

        return jax.value_and_grad(loss)(params)

    if importlib.util.find_spec("nflows") is None:
        return best(lambda: ours(params, x), seconds=seconds), None
    theirs = Theirs(params)
    points = np.asarray(x)
    found = jax.jit(log_prob, static_argnums=0)(flow, params, x)
    np.testing.assert_allclose(theirs.log_prob(points), found, rtol=1e-2)  # nflows adds 1e-3 to every scale
    times = [(best(lambda: ours(params, x), seconds=seconds), theirs.seconds(points, seconds)) for _ in range(rounds)]
    return min(a for a, _ in times), min(b for _, b in times)


def realnvp() -> Bijector:
    """Returns the flow: pairs of affine couplings by alternating masks, with the scale that nflows has."""
    conditioner = dict(name="residual_mlp", hidden=HIDDEN, depth=BLOCKS)
    pair = [
        dict(name="affine_coupling", mask="alternate", swap=swap, scale="sigmoid", conditioner=conditioner)
        for swap in (False, True)
    ]
    return config.build("bijector", dict(name="repeat", times=PAIRS, layer=dict(name="chain", layers=pair)))


def trained(params: Any) -> Any:
    """Returns weights away from the zeros of the start."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return tree.unflatten(
        [leaf + 0.02 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


def log_prob(flow: Bijector, params: Any, x: jax.Array) -> jax.Array:
    """Returns the log-density [B] of points [B, D]."""
    z, log_det = flow.forward(params, x)
    return jax.scipy.stats.norm.logpdf(z).sum(1) + log_det


class Theirs:
    """The same flow of nflows."""

    def __init__(self, params: Any) -> None:
        import torch
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.nn.nets import ResidualNet
        from nflows.transforms import AffineCouplingTransform, CompositeTransform

        self.torch = torch

        def network(inputs: int, outputs: int) -> Any:
            return ResidualNet(inputs, outputs, HIDDEN, num_blocks=BLOCKS)

        layers = []
        for pair in range(PAIRS):
            for swap in range(2):
                mask = [float(i % 2 != swap) for i in range(DIMENSIONS)]
                layer = AffineCouplingTransform(mask, network)
                fill(layer.transform_net, jax.tree.map(lambda p, pair=pair: np.array(p[pair]), params[f"layer_{swap}"]))
                layers.append(layer)
        self.flow = Flow(CompositeTransform(layers), StandardNormal([DIMENSIONS]))

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Returns the log-density [B] of points [B, D]."""
        with self.torch.no_grad():
            return self.flow.log_prob(self.torch.tensor(x)).numpy()

    def seconds(self, x: np.ndarray, seconds: float) -> float:
        """Returns the time of log-likelihood and gradient, with one thread or all, whichever is faster."""
        points = self.torch.tensor(x)

        def run() -> None:
            self.flow.zero_grad(set_to_none=True)
            (-self.flow.log_prob(points).mean()).backward()

        threads, times = self.torch.get_num_threads(), []
        for count in {1, threads, len(os.sched_getaffinity(0))}:
            self.torch.set_num_threads(count)
            times.append(best(run, seconds=seconds / 2))
        self.torch.set_num_threads(threads)
        return min(times)


def fill(network: Any, params: Any) -> None:
    """Copies a conditioner's weights; the first half of our outputs is the scale's, and the second half of theirs."""
    import torch

    def linear(layer: Any, tree: Any) -> None:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(tree["kernel"].T.copy()))
            layer.bias.copy_(torch.from_numpy(tree["bias"]))

    linear(network.initial_layer, params["in"])
    for i, block in enumerate(network.blocks):
        for j, layer in enumerate(block.linear_layers):
            linear(layer, params[f"block_{i}_{j}"])
    linear(network.final_layer, {name: np.roll(p, p.shape[-1] // 2, -1) for name, p in params["out"].items()})
