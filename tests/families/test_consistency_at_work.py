"""Consistency models at work: how near distillation comes to the exact function, and what a step of it costs."""

import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import analytic, processes, sampling, solvers
from genjax.families import ConsistencyModel, Diffusion
from genjax.families.base import Keys
from genjax.families.consistency_losses import L2, InverseGap
from genjax.families.discretizations import Fixed
from genjax.networks import MLP, UNet
from genjax.parameterizations import ConsistencyPreconditioning, EDMPreconditioning
from genjax.training.ema import EMA
from genjax.training.optimizers import build_optimizer
from genjax.training.pretrained import Untrained
from genjax.training.state import TrainState
from genjax.training.step import make_train_step
from tests.families.test_consistency import Exact

EDM = processes.EDM(sigma_min=0.01, sigma_max=10.0)
MIXTURE = analytic.GaussianMixture(np.array([0.6, 0.4]), np.array([[-0.6, -0.3], [0.6, 0.3]]), np.array([0.4, 0.3]))
INTERVALS = 24


def distilled(steps=4000, batch=256, rate=3e-3):
    """The family and the weights after a distillation of the exact denoiser."""
    family = ConsistencyModel(
        image_shape=(1, 1, 2),
        network=MLP(hidden=64, depth=2),
        process=EDM,
        parameterization=ConsistencyPreconditioning(sigma_data=0.6, epsilon=0.01),
        teacher=Exact(lambda x, t, cond: MIXTURE.denoise(EDM, x, t), (1, 1, 2), EDM),
        begin="scratch",
        solver=solvers.Heun(),
        discretization=Fixed(intervals=INTERVALS),
        distance=L2(),
        weighting=InverseGap(),  # without it the low noise levels, on which all others build, count for little
    )
    params, extra = family.init(jax.random.key(0), types.SimpleNamespace(image_shape=(1, 1, 2)))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, steps)))
    gradient = jax.grad(family.phases()[0].loss, has_aux=True)

    def step(carry, i):
        params, opt = carry
        key_data, key = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        data = {"image": MIXTURE.sample(key_data, batch)[0].reshape(-1, 1, 1, 2)}
        grads, _ = gradient(params, types.SimpleNamespace(step=i, extra=extra), data, Keys.of(key, batch))
        updates, opt = optimizer.update(grads, opt, params)
        return (optax.apply_updates(params, updates), opt), None

    train = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), jnp.arange(steps))[0][0])
    return family, train(params["model"])


@pytest.mark.slow
def test_distillation_finds_the_exact_function():
    """Within 5% (relative L2) of where the exact path ends, from every noise level."""
    family, params = distilled()
    key, errors = jax.random.key(9), {}
    x_0, eps = MIXTURE.sample(key, 2000)[0], jax.random.normal(jax.random.key(10), (2000, 2))
    for place in (6, 12, 18, INTERVALS):
        t = place / INTERVALS
        x_t = x_0 + EDM.sigma(np.float64(t)) * eps
        times = np.linspace(t, 0.0, 201)
        exact = sampling.solve(key, MIXTURE.denoiser(EDM), EDM, solvers.Heun(), times, x_t)
        found = family.denoiser({"model": params})(x_t.reshape(-1, 1, 1, 2), jnp.float32(t), None).reshape(-1, 2)
        errors[t] = float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))
    assert max(errors.values()) < 0.05, errors


def cpu_seconds(function, *arguments, repeats=5):
    """The least time that a core spends on a call: other processes on the machine do not count."""
    jax.block_until_ready(function(*arguments))
    spent = []
    for _ in range(repeats):
        before = time.process_time()
        jax.block_until_ready(function(*arguments))
        spent.append(time.process_time() - before)
    return min(spent)


@pytest.mark.slow
def test_a_step_of_distillation_costs_what_its_passes_do():
    """At most 1.3 times two passes of the teacher, one of the aim, and one forward and backward of the student."""
    n, shape = 64, (8, 8, 1)
    network = UNet(channels=32, multipliers=(1, 2), blocks_per_level=1, resampling="conv", num_classes=10)
    common = dict(image_shape=shape, network=network, process=processes.EDM(), condition=("label",))
    teacher = Untrained(Diffusion(**common, parameterization=EDMPreconditioning()))
    family = ConsistencyModel(**common, teacher=teacher, solver=solvers.Heun())
    spec = types.SimpleNamespace(image_shape=shape, num_classes=10, levels=256)
    params, extra = family.init(jax.random.key(0), spec)
    extra = {**extra, "teacher": teacher.load()}
    optimizer = build_optimizer({"name": "adam", "learning_rate": 1e-3}, params["model"])
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(1),
        params=params,
        opt={"model": optimizer.init(params["model"])},
        ema=EMA(0.99).init(params),
        extra=extra,
    )
    images = jax.random.normal(jax.random.key(2), (n, *shape))
    label, cond = jnp.linspace(-1.0, 1.0, n), {"label": jnp.arange(n, dtype=jnp.int32) % 10}

    def forward(params, x):
        return network.apply({"params": params}, x, label, cond)

    both = jax.jit(jax.value_and_grad(lambda params, x: jnp.sum(forward(params, x) ** 2)))
    one_way = cpu_seconds(jax.jit(forward), params["model"], images)
    passes = 3 * one_way + cpu_seconds(both, params["model"], images)
    step = jax.jit(make_train_step(family, {"model": optimizer}, EMA(0.99)))
    assert cpu_seconds(step, state, {"image": images} | cond) < 1.3 * passes
