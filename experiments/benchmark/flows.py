"""RealNVP's log-likelihood and its gradient, beside nflows."""

import importlib.util
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark.report import Figures, best
from genjax import config
from genjax.bijectors import Bijector

BLOCKS = 2  # of the residual network in each coupling
BAR = 1.5
ROUNDS, SECONDS = 5, 2.0  # how often the two take turns, and how long a turn is


class Size(NamedTuple):
    """Of the data, and of the flow: pairs of couplings, and the width of the network in each."""

    dimensions: int
    batch: int
    pairs: int
    hidden: int


# Those of tables, of 8x8 images, and one where nearly all is matrix products.
SIZES = (Size(16, 128, 4, 64), Size(64, 256, 4, 128), Size(64, 512, 5, 256))


def figures() -> Figures:
    """Returns the table; without nflows, with our time alone."""
    rows = []
    for size in SIZES:
        ours, theirs = measure(size, ROUNDS, SECONDS)
        if theirs is not None:
            rate = theirs / ours
            cell = f"{rate:.2f}" if rate >= BAR else f"**{rate:.2f}**"
            against = f"{1e3 * theirs:.2f} ms"
        else:
            cell, against = "-", "no nflows here"
        name = f"{2 * size.pairs} couplings of width {size.hidden}, {size.dimensions} dimensions, batch {size.batch}"
        rows.append((name, f"{1e3 * ours:.2f} ms", against, cell, f"at least {BAR}"))
    return Figures(
        "RealNVP's log-likelihood and its gradient beside nflows",
        ("flow", "ours", "nflows", "times faster", "bar"),
        rows,
        ["The larger the flow, the more of it is matrix products, which PyTorch's CPU library is faster at than XLA."],
    )


def measure(size: Size, rounds: int, seconds: float) -> tuple[float, float | None]:
    """Returns the seconds of log-likelihood and gradient, ours and those of nflows, or None where it is not there.

    The two take turns, and each time counts by its best, so that what else the machine does spoils neither alone.
    Both have the same weights, and it is checked that they find the same log-likelihood.
    """
    flow = realnvp(size)
    x = jax.random.normal(jax.random.key(0), (size.batch, size.dimensions))
    params = trained(flow.init(jax.random.key(1), (size.dimensions,)))

    @jax.jit
    def ours(params: Any, x: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            return -log_prob(flow, params, x).mean()

        return jax.value_and_grad(loss)(params)

    if importlib.util.find_spec("nflows") is None:
        return best(lambda: ours(params, x), seconds=seconds), None
    theirs = Theirs(params, size)
    points = np.asarray(x)
    found = jax.jit(log_prob, static_argnums=0)(flow, params, x)
    np.testing.assert_allclose(theirs.log_prob(points), found, rtol=1e-2)  # nflows adds 1e-3 to every scale
    times = [(best(lambda: ours(params, x), seconds=seconds), theirs.seconds(points, seconds)) for _ in range(rounds)]
    return min(a for a, _ in times), min(b for _, b in times)


def realnvp(size: Size) -> Bijector:
    """Returns the flow: pairs of affine couplings by alternating masks, with the scale that nflows has."""
    conditioner = dict(name="residual_mlp", hidden=size.hidden, depth=BLOCKS)
    pair = [
        dict(name="affine_coupling", mask="alternate", swap=swap, scale="sigmoid", conditioner=conditioner)
        for swap in (False, True)
    ]
    return config.build("bijector", dict(name="repeat", times=size.pairs, layer=dict(name="chain", layers=pair)))


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

    def __init__(self, params: Any, size: Size) -> None:
        import torch
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.nn.nets import ResidualNet
        from nflows.transforms import AffineCouplingTransform, CompositeTransform

        self.torch = torch

        def network(inputs: int, outputs: int) -> Any:
            return ResidualNet(inputs, outputs, size.hidden, num_blocks=BLOCKS)

        layers = []
        for pair in range(size.pairs):
            for swap in range(2):
                mask = [float(i % 2 != swap) for i in range(size.dimensions)]
                layer = AffineCouplingTransform(mask, network)
                fill(layer.transform_net, jax.tree.map(lambda p, pair=pair: np.array(p[pair]), params[f"layer_{swap}"]))
                layers.append(layer)
        self.flow = Flow(CompositeTransform(layers), StandardNormal([size.dimensions]))

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
