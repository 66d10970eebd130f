"""Flows against nflows, with the same weights; only where the extra `parity` is installed."""

import functools

import jax
import numpy as np
import pytest

from experiments.benchmark import flows
from genjax.bijectors.spline import MIN_DERIVATIVE, MIN_SIZE, rational_quadratic


@pytest.mark.slow
@pytest.mark.parametrize("inverse", [False, True])
def test_the_rational_quadratic_spline(inverse):
    pytest.importorskip("nflows")
    import torch
    from nflows.transforms.splines import unconstrained_rational_quadratic_spline

    rng, bins, bound = np.random.default_rng(0), 6, 2.5
    x = rng.normal(0, 1.5, (200, 3)).astype(np.float32)
    h = rng.normal(0, 1.5, (200, 3 * bins - 1, 3)).astype(np.float32)
    run = jax.jit(functools.partial(rational_quadratic, bound=bound, inverse=inverse))
    ours = run(x, h)
    last = torch.from_numpy(np.moveaxis(h, 1, 2).copy())
    theirs = unconstrained_rational_quadratic_spline(
        torch.from_numpy(x),
        last[..., :bins],
        last[..., bins : 2 * bins],
        # Of 0 they make softplus(0) + the least derivative, and we 1.
        last[..., 2 * bins :] + float(np.log(np.expm1(1.0 - MIN_DERIVATIVE))),
        inverse=inverse,
        tail_bound=bound,
        min_bin_width=MIN_SIZE,
        min_bin_height=MIN_SIZE,
        min_derivative=MIN_DERIVATIVE,
    )
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_realnvp_of_the_benchmark_is_that_of_nflows():
    """Its likelihood, which `measure` compares before it times anything."""
    pytest.importorskip("nflows")
    ours, theirs = flows.measure(flows.SIZES[0], 1, 0.0)
    assert ours > 0 and theirs > 0
