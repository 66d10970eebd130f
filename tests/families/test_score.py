"""Score models: every objective finds the score of a Gaussian and is the Fisher divergence up to its constant."""

import dataclasses
import functools
import types

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import analytic, processes
from genjax.families import Diffusion, Sampler, ScoreModel, score_matching, time_samplers, weightings
from genjax.families.base import Keys
from genjax.parameterizations import Eps, Score
from genjax.sampling import times
from tests.families.functions import Function

SHAPE = (1, 1, 2)
MEAN, COVARIANCE = np.array([0.5, -1.0]), np.array([[1.5, 0.5], [0.5, 1.5]])  # of eigenvalues 1 and 2
PLAIN = Score(scaled=False, scale_input=False)  # the output is the score, and the network sees x_t itself
DATA = {"process": processes.LinearVP(), "time_sampler": time_samplers.FixedTime(0.0)}  # no noise at t = 0
NOISY = {"process": processes.VE(sigma_min=0.1), "time_sampler": time_samplers.FixedTime(0.0)}
SLICED = score_matching.SlicedScoreMatching
OBJECTIVES = {
    "denoising": score_matching.DenoisingScoreMatching(),
    "implicit": score_matching.ImplicitScoreMatching(),
    "sliced": SLICED(variance_reduction=False),
    "sliced, normal": SLICED(variance_reduction=False, projection="normal", projections=2),
    "sliced, reduced": SLICED(),
    "sliced, normal, reduced": SLICED(projection="normal", projections=2),
}
# Normal projections differ from Rademacher's by their draws alone.
DEFAULT = [pytest.param(name, marks=[pytest.mark.slow] if "normal" in name else []) for name in OBJECTIVES]


@dataclasses.dataclass(frozen=True)
class Linear(Function):
    """A network W x + b."""

    function: object = None

    def apply(self, variables, x, label, cond, dropout=None):
        w = variables["params"]
        return (x.reshape(len(x), -1) @ w["w"] + w["b"][None]).reshape(x.shape)


START = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}


def minimum(family, images, key):
    """The minimum of the family's loss over linear networks: a quadratic's, so it is one Newton step away."""
    flat, unravel = jax.flatten_util.ravel_pytree(START)
    keys = Keys.of(key, len(images))
    loss = lambda w: family.phases()[0].loss(unravel(w), None, {"image": images}, keys)[0]  # noqa: E731
    gradient = jax.grad(loss)
    # A quadratic's Hessian is a difference of its gradients.
    columns = jax.vmap(gradient)(jnp.eye(len(flat)))
    return unravel(-jnp.linalg.solve(columns - gradient(flat)[None], gradient(flat)))


@pytest.mark.parametrize("name", DEFAULT)
def test_a_linear_network_finds_the_score_of_a_gaussian(name):
    """-Sigma^{-1} (x - mu) within 2% (relative L2), on the data themselves; by denoising at a small noise level."""
    n = {"denoising": 1_000_000, "sliced": 200_000, "sliced, normal": 200_000}.get(name, 100_000)
    family = ScoreModel(
        image_shape=SHAPE,
        network=Linear(),
        parameterization=PLAIN,
        matching=OBJECTIVES[name],
        **(NOISY if name == "denoising" else DATA),
    )
    target = analytic.Gaussian(MEAN, COVARIANCE)
    found = jax.jit(lambda key: minimum(family, target.sample(key, n).reshape(n, *SHAPE), key))(jax.random.key(0))
    x = np.asarray(target.sample(jax.random.key(1), 2000), np.float64)
    exact = -(x - MEAN) @ np.linalg.inv(COVARIANCE)
    error = x @ np.asarray(found["w"], np.float64) + np.asarray(found["b"]) - exact
    assert np.sqrt(np.mean(error**2) / np.mean(exact**2)) < 0.02


W = {"w": jnp.ones(())}  # what `Function` has for parameters
MIXTURE = analytic.GaussianMixture(np.array([0.4, 0.6]), np.array([[-1.0, 0.5], [1.0, 0.0]]), np.array([0.4, 0.7]))
CURVED = Function(
    lambda w, x, label, cond: w * jnp.sin(2.0 * x + jnp.roll(x, 1, -1) + 0.3 * label[:, None, None, None])
)


def differences(matching, parameterization, n=20_000):
    """The objective, what it is above the explicit Fisher divergence and the constant that is known, and the former."""
    process = processes.VE(sigma_min=0.2, sigma_max=2.0)
    family = ScoreModel(
        image_shape=SHAPE, network=CURVED, process=process, parameterization=parameterization, matching=matching
    )

    @jax.jit
    def run():
        key_data, key_t, key_eps, key_matching = jax.random.split(jax.random.key(3), 4)
        x_0, eps = MIXTURE.sample(key_data, n)[0], jax.random.normal(key_eps, (n, 2))
        t = jax.random.uniform(key_t, (n,))
        scale, sigma = family._scale(t)[:, None], process.sigma(t)[:, None]
        x_t = x_0 + sigma * eps
        exact = scale * (MIXTURE.denoise(process, x_t, t) - x_t) / sigma**2
        images, target = x_t.reshape(n, *SHAPE), -scale * eps / sigma

        def output(x):
            return family._output(W, x, t, None)

        objective = matching(output, images, target.reshape(images.shape), scale[:, 0], Keys.of(key_matching, n))
        explicit = jnp.mean((output(images).reshape(n, 2) - exact) ** 2, 1)
        # The constant is E|target|^2 - E|c score|^2 of denoising, and - E|c score|^2 of the others.
        known = jnp.mean((target**2 if matching == OBJECTIVES["denoising"] else 0.0) - exact**2, 1)
        return objective, objective - explicit - known, explicit

    return [np.asarray(values, np.float64) for values in run()]


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "plain"])
@pytest.mark.parametrize("name", DEFAULT)
def test_objectives_are_the_fisher_divergence_up_to_their_constant(name, scaled):
    _, difference, explicit = differences(OBJECTIVES[name], Score(scaled=scaled))
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    assert abs(difference.mean()) < 4 * error
    assert error < 0.05 * explicit.mean()  # the divergence itself is far above what is not resolved


@pytest.mark.slow
def test_variance_reduction_reduces_variance():
    """What the projections add to the spread of the exact objective of the same examples."""
    objective = {name: differences(matching, Score())[0] for name, matching in OBJECTIVES.items()}
    added = {name: np.std(values - objective["implicit"]) for name, values in objective.items()}
    assert added["sliced, reduced"] < 0.95 * added["sliced"]
    assert added["sliced, normal, reduced"] < 0.95 * added["sliced, normal"]


@pytest.mark.slow
def test_denoising_over_the_levels_of_a_ladder():
    """Song & Ermon 2019, eq. 5-6 with lambda = sigma^2, which the loss of the family 'diffusion' is too."""
    process = processes.VE(sigma_min=0.1, sigma_max=10.0)
    common = dict(
        image_shape=SHAPE,
        network=CURVED,
        process=process,
        parameterization=Score(label="log_sigma"),
        time_sampler=time_samplers.Levels(5),
    )
    data, keys = {"image": jax.random.normal(jax.random.key(0), (500, *SHAPE))}, Keys.of(jax.random.key(1), 500)
    family = ScoreModel(**common)
    loss = family.phases()[0].loss(W, None, data, keys)[0]
    np.testing.assert_allclose(loss, Diffusion(**common).phases()[0].loss(W, None, data, keys)[0], rtol=1e-6)
    t = np.asarray(time_samplers.Levels(5)(keys, process))
    sigma = np.exp(np.log(0.1) + np.arange(5) * np.log(10.0 / 0.1) / 4)
    np.testing.assert_allclose(np.unique(process.sigma(t)), sigma, rtol=1e-5)
    assert np.unique(t, return_counts=True)[1].min() > 60
    x = data["image"][:4]
    found = family.score({"model": W})(x, jnp.full(4, 0.25), None)
    level = np.log(sigma[1])
    seen = np.asarray(x) / np.sqrt(1 + sigma[1] ** 2)
    np.testing.assert_allclose(found, np.sin(2 * seen + np.roll(seen, 1, -1) + 0.3 * level) / sigma[1], rtol=1e-5)


PROCESSES = {
    "linear_vp": (processes.LinearVP(), 1.0),
    "sub_vp": (processes.SubVP(), 1.0),
    "rectified_flow": (processes.RectifiedFlow(), 0.999),
    "edm": (processes.EDM(), 1.0),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "linear_vp" else [pytest.mark.slow]) for name in PROCESSES]
)
def test_times_by_importance_leave_the_expected_loss_and_reduce_its_variance(name):
    process, t_max = PROCESSES[name]
    rng, n = {"t_min": 1e-3, "t_max": t_max}, 40_000
    data = {"image": jax.random.normal(jax.random.key(0), (n, *SHAPE))}
    losses = {}
    for sampler in (time_samplers.UniformTimes(**rng), time_samplers.ImportanceTimes(**rng)):
        family = ScoreModel(
            image_shape=SHAPE,
            network=CURVED,
            process=process,
            parameterization=Score(time_scale=3.0),
            weighting=weightings.LikelihoodWeighting(),
            time_sampler=sampler,
            sampler=Sampler(times=functools.partial(times.uniform, t_max=0.99)),  # with some signal
        )
        evaluate = jax.jit(family.evaluate)
        losses[type(sampler)] = np.asarray(evaluate({"model": W}, data, jax.random.key(1))["loss"], np.float64)
    uniform, importance = losses.values()
    error = np.sqrt((uniform.var() + importance.var()) / n)
    assert abs(uniform.mean() - importance.mean()) < 4 * error
    assert importance.var() < 0.9 * uniform.var()


@pytest.mark.parametrize("name", PROCESSES)
def test_likelihood_weighting_is_the_diffusion_of_the_sde(name):
    """g^2 = d sigma^2 / dt - 2 (d log alpha / dt) sigma^2, and times by importance have density g^2 / sigma^2."""
    process, t_max = PROCESSES[name]
    with jax.enable_x64(True):
        t, h = np.linspace(0.1, 0.9, 9), 1e-6
        alpha, sigma = process.alpha, process.sigma
        slope = (sigma(t + h) ** 2 - sigma(t - h) ** 2) / (2 * h)
        g2 = slope - 2 * (np.log(alpha(t + h)) - np.log(alpha(t - h))) / (2 * h) * sigma(t) ** 2
        weighting = weightings.LikelihoodWeighting()
        # lambda is the weighting times the square of what the output is of the score: sigma, 1, and of eps sigma too.
        for parameterization, square in ((Score(), sigma(t) ** 2), (Score(scaled=False), 1.0), (Eps(), sigma(t) ** 2)):
            np.testing.assert_allclose(weighting(jnp.asarray(t), process, parameterization) * square, g2, rtol=1e-5)
        sampler = time_samplers.ImportanceTimes(0.01, t_max)
        density = 1 / (sampler.correction(jnp.asarray(t), process) * (t_max - 0.01))
        np.testing.assert_allclose(density / density[0], g2 / sigma(t) ** 2 / (g2[0] / sigma(t[:1]) ** 2), rtol=1e-5)
        drawn = np.asarray(sampler(Keys.of(jax.random.key(0), 4000), process))
    assert drawn.min() >= 0.01 - 1e-6 and drawn.max() <= t_max + 1e-6
    shares = [np.mean((drawn > a) & (drawn < b)) for a, b in ((0.1, 0.3), (0.3, 0.9))]
    exact = [float(process.log_snr(a) - process.log_snr(b)) for a, b in ((0.1, 0.3), (0.3, 0.9))]
    whole = float(process.log_snr(0.01) - process.log_snr(t_max))
    np.testing.assert_allclose(shares, np.array(exact) / whole, atol=0.03)


@pytest.mark.slow
def test_dequantized_models_return_levels():
    seen = []

    def network(w, x, label, cond):
        seen.append(x)
        return 0.1 * w * x

    pixels = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1))
    family = ScoreModel(
        image_shape=(4, 4, 1),
        network=Function(network),
        process=processes.LinearVP(),
        time_sampler=time_samplers.FixedTime(1e-4),
        dequantize=True,
        sampler=Sampler(times=times.uniform, steps=2),
    )
    params = {"model": W}
    family.evaluate(params, {"image": jnp.asarray(pixels / 127.5 - 1, jnp.float32)}, jax.random.key(0))
    offset = (np.asarray(seen[0]) + 1) * 128 - pixels  # u, and a little of the noise of sigma = 0.0032
    assert 0.45 < offset.mean() < 0.55 and np.abs(offset.std() - np.sqrt(1 / 12)) < 0.3
    images = np.asarray(family.generate(params, jax.random.key(1), 3))
    levels = (images + 1) * 127.5
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    again = family.generate(params, jax.random.key(1), 3, trace=lambda x_t, x_0, t: t)
    np.testing.assert_array_equal(again[0], images)
    points = types.SimpleNamespace(image_shape=(4, 4, 1), num_classes=None, levels=None)
    with pytest.raises(ValueError, match="dequantize = True, but the data have no levels"):
        family.check(points)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(matching=OBJECTIVES["implicit"], image_shape=(9, 9, 1)), "81 dimensions, and its limit is 64"),
        (dict(parameterization=Eps()), "family 'diffusion'"),
        (dict(**DATA), "take parameterization.scaled = False"),
        (dict(**DATA, parameterization=PLAIN), "matching = denoising: needs noise"),
        (dict(matching=OBJECTIVES["implicit"], uncertainty=CURVED), "uncertainty is of a loss"),
    ],
)
def test_what_cannot_work_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        ScoreModel(**{"image_shape": SHAPE, "network": CURVED, **options})


def test_wrong_values_are_named():
    for make, words in [
        (lambda: SLICED(projection="gauss"), "projection = 'gauss'"),
        (lambda: SLICED(projections=0), "projections = 0"),
        (lambda: score_matching.ImplicitScoreMatching(limit=0), "limit = 0"),
        (lambda: time_samplers.Levels(1), "n = 1"),
        (lambda: time_samplers.FixedTime(1.5), "t = 1.5"),
        (lambda: Score(label="sigma"), "label = 'sigma'"),
        (lambda: time_samplers.ImportanceTimes(0.0)(Keys.of(jax.random.key(0), 2), processes.LinearVP()), "infinite"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
