"""Flow matching on every path, its couplings and reflow, on data whose velocity is known."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import analytic, processes
from genjax.families import FlowMatching, couplings, time_samplers
from genjax.families.base import Keys
from genjax.networks import MLP
from tests.families.functions import Function

SHAPE = (1, 1, 2)
PATHS = {
    "straight": processes.RectifiedFlow(),
    "sigma_min": processes.RectifiedFlow(sigma_min=0.1),
    "shifted": processes.RectifiedFlow(shift=3.0),
    "vp": processes.LinearVP(),
    "cosine": processes.CosineVP(),
}
SPREAD = 0.5  # standard deviation of the data


def slope(path, t):
    """The velocity of N(0, SPREAD^2) over x_t: half the rate of log(alpha^2 SPREAD^2 + sigma^2), by differences."""
    log_variance = lambda t: np.log(path.alpha(t) ** 2 * SPREAD**2 + path.sigma(t) ** 2)  # noqa: E731
    return (log_variance(t + 1e-5) - log_variance(t - 1e-5)) / 4e-5


@pytest.mark.parametrize("name", PATHS)
def test_the_least_loss_is_the_exact_velocity(name):
    """Of a Gaussian it is linear, so the loss is a parabola in the slope, whose vertex three values tell."""
    path, n, now = PATHS[name], 20_000, []  # the time that is being compiled for, so that it is done once
    family = FlowMatching(SHAPE, Function(lambda w, x, *_: w * x), path, time_sampler=lambda *_: jnp.full(n, now[-1]))

    @jax.jit
    def loss(w, t):
        now.append(t)
        data = {"image": SPREAD * jax.random.normal(jax.random.key(1), (n, *SHAPE))}
        return family._loss({"w": w}, None, data, Keys.of(jax.random.key(0), n))[0]

    for t in (0.3, 0.8):
        left, middle, right = (float(loss(w, t)) for w in (-1.0, 0.0, 1.0))
        vertex = 0.5 * (left - right) / (left - 2 * middle + right)
        # The estimate's error is that of a regression with 2 n points: residual / (spread of x sqrt(2 n)).
        variance = path.alpha(t) ** 2 * SPREAD**2 + path.sigma(t) ** 2
        rest = middle - slope(path, np.float64(t)) ** 2 * variance
        assert vertex == pytest.approx(slope(path, np.float64(t)), abs=4.5 * np.sqrt(rest / variance / (2 * n)))


@pytest.mark.parametrize("name", PATHS)
def test_the_exact_velocity_is_the_exact_denoiser(name):
    path = PATHS[name]
    family = FlowMatching(SHAPE, Function(lambda w, x, *_: w * x), path)
    exact = analytic.Gaussian(np.zeros(2), SPREAD**2 * np.eye(2))
    x_t = jax.random.normal(jax.random.key(0), (5, *SHAPE))
    for t in (0.1, 0.5, 0.9):
        x_0 = family.denoiser({"model": {"w": jnp.float32(slope(path, np.float64(t)))}})(x_t, t, None)
        np.testing.assert_allclose(x_0.reshape(5, 2), exact.denoise(path, x_t.reshape(5, 2), t), rtol=2e-3, atol=1e-4)


def test_times_of_sd3():
    n = 20_000
    keys, path = Keys.of(jax.random.key(0), n), processes.RectifiedFlow()
    u, bound = (np.arange(n) + 0.5) / n, 2.0 / np.sqrt(n)
    # CosMap has the density 2 / (pi - 2 pi t + 2 pi t^2), eq. 22 of the paper, whose integral is an arctangent.
    t = np.sort(np.asarray(time_samplers.CosMap()(keys, path), np.float64))
    assert np.abs(2 / np.pi * np.arctan2(t, 1 - t) - u).max() < bound
    for scale in (-1.0, 0.0, 1.29):
        t = np.sort(np.asarray(time_samplers.Mode(scale)(keys, path), np.float64))
        quantiles = 1 - (1 - u) - scale * (np.cos(np.pi / 2 * (1 - u)) ** 2 - 1 + (1 - u))
        assert np.abs(t - quantiles).max() < 3 * bound
    shifted = time_samplers.Shifted(time_samplers.UniformTimes(t_min=0.0), shift=3.0)(keys, path)
    t = time_samplers.UniformTimes(t_min=0.0)(keys, path)
    np.testing.assert_allclose(shifted, processes.RectifiedFlow(shift=3.0).sigma(t), rtol=1e-5)
    for wrong in (lambda: time_samplers.Mode(1.8), lambda: time_samplers.Shifted(shift=0.0)):
        with pytest.raises(ValueError, match="must be"):
            wrong()


def test_shifts_of_resolutions():
    assert processes.resolution_shift(1024 * 1024, 256 * 256) == pytest.approx(4.0)  # sqrt(m / n), eq. 23
    assert processes.flux_shift(256) == pytest.approx(np.exp(0.5))
    assert processes.flux_shift(4096) == pytest.approx(np.exp(1.15))
    # Eq. 23 asks for equal sigma / alpha sqrt(n): noise that hides as much of an image of four times the pixels.
    path = processes.RectifiedFlow(shift=processes.resolution_shift(512 * 512, 256 * 256))
    t, straight = np.float64(0.3), processes.RectifiedFlow()
    assert path.sigma(t) / path.alpha(t) / 512 == pytest.approx(straight.sigma(t) / straight.alpha(t) / 256)


def test_lipmans_path():
    """Eq. 22, with time turned round: sigma = 1 - (1 - sigma_min) (1 - t), and the velocity's share of it."""
    path, t = processes.RectifiedFlow(sigma_min=0.1), np.linspace(0, 1, 5)
    np.testing.assert_allclose(path.sigma(t), 1 - 0.9 * (1 - t))
    np.testing.assert_allclose(path.alpha(t), 1 - t)
    np.testing.assert_allclose(path.d_sigma(t), 0.9)


def test_a_teacher_gives_the_first_weights():
    family = FlowMatching(SHAPE, MLP(hidden=8, depth=1))
    weights = jax.eval_shape(lambda: family.init(jax.random.key(0), None)[0])
    teacher = types.SimpleNamespace(family=family, load=lambda: {**weights, "beside": 1})
    student = FlowMatching(SHAPE, MLP(hidden=8, depth=1), teacher=teacher)
    assert student.pretrained() == {"model": weights["model"]} and family.pretrained() == {}
    spec = types.SimpleNamespace(image_shape=SHAPE, num_classes=None, levels=None)
    student.check(spec)
    other = types.SimpleNamespace(family=FlowMatching((1, 1, 3), MLP(hidden=8, depth=1)))
    with pytest.raises(ValueError, match="teacher's is"):
        FlowMatching(SHAPE, MLP(hidden=8, depth=1), teacher=other).check(spec)


def test_there_is_no_loss_on_data_without_pairs():
    family = FlowMatching(SHAPE, Function(lambda w, x, *_: w * x), coupling=couplings.Paired())
    params, image = {"model": {"w": jnp.float32(1.0)}}, jnp.zeros((3, *SHAPE))
    assert family.evaluate(params, {"image": image}, jax.random.key(0)) == {}
    # The path from 0 to 2: x_t = 2 t, and the velocity 2; at w = 1 the error is 2 - 2 t.
    family = FlowMatching(
        SHAPE,
        Function(lambda w, x, *_: w * x),
        coupling=couplings.Paired(),
        time_sampler=lambda keys, _: jnp.array([0.0, 0.5, 1.0]),
    )
    figures = jax.jit(family.evaluate)(params, {"image": image, "noise": image + 2.0}, jax.random.key(0))
    np.testing.assert_allclose(figures["loss"], [4.0, 1.0, 0.0], atol=1e-6)


# What training makes straight, on eight Gaussians on a circle.

ANGLES = 2 * np.pi * np.arange(8) / 8
MIXTURE = analytic.GaussianMixture(
    np.full(8, 1 / 8), np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1) * 1.5, np.full(8, 0.15)
)
NETWORK, SIZE, STEPS, GRID = MLP(hidden=64, depth=3), 128, 5000, 100


def fresh(key):
    return {"image": MIXTURE.sample(key, SIZE)[0].reshape(SIZE, *SHAPE)}


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def trained(family, draw, params, data, steps):
    """Weights after Adam's steps on the family's own loss; `draw(key)`, or a random part of `data`."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.warmup_cosine_decay_schedule(0.0, 3e-3, 100, steps))
    )

    def step(carry, key):
        params, state = carry
        if data is None:
            batch = draw(jax.random.fold_in(key, 1))
        else:
            batch = {k: v[jax.random.randint(jax.random.fold_in(key, 1), (SIZE,), 0, len(v))] for k, v in data.items()}
        grads = jax.grad(lambda p: family._loss(p, None, batch, Keys.of(key, SIZE))[0])(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(7), steps)
    return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]


@jax.jit
def followed(params, x_1):
    """The ends of the paths from noise [N, ...] in steps of 1/GRID, and the mean of |x_1 - x_0 - v|^2 on the way."""

    def velocity(x, t):
        return NETWORK.apply({"params": params}, x, jnp.full(len(x), 1000.0 * t), None)

    def step(x, i):
        t = 1.0 - i / GRID
        half = x - 0.5 / GRID * velocity(x, t)
        v = velocity(half, t - 0.5 / GRID)
        return x - v / GRID, v

    x_0, v = jax.lax.scan(step, x_1, jnp.arange(GRID))
    bend = jnp.mean(jnp.sum((x_1[None] - x_0[None] - v) ** 2, (2, 3, 4)))
    return x_0, x_1 - velocity(x_1, 1.0), bend


@pytest.fixture(scope="module")
def first():
    family = FlowMatching(SHAPE, NETWORK)
    begin = family.init(jax.random.key(0), None)[0]["model"]
    return begin, trained(family, fresh, begin, None, STEPS)


NOISE = jax.random.normal(jax.random.key(9), (4000, *SHAPE))


@pytest.mark.slow
def test_reflow_straightens_paths(first):
    """One round: the curvature falls at least five times, and the error of a single step as much."""
    _, teacher = first
    noise = jax.random.normal(jax.random.key(8), (40_000, *SHAPE))
    pairs = {"image": followed(teacher, noise)[0], "noise": noise}
    student = trained(FlowMatching(SHAPE, NETWORK, coupling=couplings.Paired()), fresh, teacher, pairs, STEPS)
    ends, steps, bends = zip(*(followed(params, NOISE) for params in (teacher, student)), strict=True)
    errors = [float(jnp.mean(jnp.sum((one - ends[0]) ** 2, -1))) for one in steps]
    own = [float(jnp.mean(jnp.sum((one - end) ** 2, -1))) for one, end in zip(steps, ends, strict=True)]
    likelihoods = [float(MIXTURE.log_prob(np.asarray(x, np.float64).reshape(-1, 2)).mean()) for x in (*ends, steps[1])]
    exact = float(MIXTURE.log_prob(np.asarray(MIXTURE.sample(jax.random.key(3), 4000)[0], np.float64)).mean())
    print(f"curvature {bends}, one-step error {errors}, of its own end {own}, log p {likelihoods}, exact {exact}")
    assert bends[0] > 5 * bends[1]
    assert errors[0] > 5 * errors[1] and own[0] > 5 * own[1]
    assert likelihoods[1] > exact - 0.5  # straight paths that still end in the data


@pytest.mark.slow
def test_optimal_transport_straightens_paths(first):
    begin, independent = first
    coupled = trained(FlowMatching(SHAPE, NETWORK, coupling=couplings.MinibatchOT()), fresh, begin, None, STEPS // 2)
    bends = [float(followed(params, NOISE)[2]) for params in (independent, coupled)]
    print(f"curvature {bends}")
    assert bends[0] > 3 * bends[1]
