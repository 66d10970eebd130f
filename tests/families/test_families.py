"""Losses, weightings, time samplers and generation of the diffusion families, on networks that are functions."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, processes, registry, solvers
from genjax.families import Diffusion, FlowMatching, Sampler, time_samplers, weightings
from genjax.families.base import Keys
from genjax.families.sampler import null_condition
from genjax.sampling import guidance, times
from tests.families.functions import Function

SHAPE = (4, 4, 1)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=10)
STATE = None  # the losses here read nothing of it
PARAMETERIZATIONS = {name: entry.build() for name, entry in registry.entries("parameterization").items()}
VP = processes.LinearVP()


def batch(n=64):
    return {
        "image": jax.random.uniform(jax.random.key(1), (n, *SHAPE), minval=-1.0),
        "label": jnp.arange(n, dtype=jnp.int32) % 10,
    }


ZERO = Function(lambda w, x, label, cond: 0.0 * w * x)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize(
    "weighting, on_x0",
    [
        (weightings.MinSNR(gamma=5.0), lambda snr: np.minimum(snr, 5.0)),
        (weightings.P2(k=1.0, gamma=1.0), lambda snr: snr / (1.0 + snr)),
        (weightings.EDMWeighting(sigma_data=0.5), lambda snr: (1 / snr + 0.25) / (0.25 / snr)),
    ],
    ids=["min_snr", "p2", "edm"],
)
@pytest.mark.parametrize("process", [VP, processes.VE(), processes.RectifiedFlow()], ids=["vp", "ve", "rf"])
def test_a_weighting_means_the_same_for_every_parameterization(name, weighting, on_x0, process):
    """Weight times the square error of the output is the published weight times the square error of x_0."""
    parameterization = PARAMETERIZATIONS[name]
    with jax.enable_x64(True):
        t = jnp.linspace(0.05, 0.95, 7)
        x_t, output = jax.random.normal(jax.random.key(0), (2, 7, 3), jnp.float64)
        moved = parameterization.to_x0(output + 0.1, x_t, t, process) - parameterization.to_x0(output, x_t, t, process)
        found = weighting(t, process, parameterization)[:, None] * 0.1**2 * np.ones((1, 3))
        snr = np.exp(process.log_snr(np.asarray(t)))
        np.testing.assert_allclose(found, on_x0(snr)[:, None] * moved**2, rtol=1e-6)


def test_sigmoid_weighting_is_the_elbo_weight_times_a_sigmoid():
    with jax.enable_x64(True):
        t, h = np.linspace(0.1, 0.9, 5), 1e-6
        slope = (VP.log_snr(t + h) - VP.log_snr(t - h)) / (2 * h)
        expected = -0.5 * slope / (1 + np.exp(VP.log_snr(t) - 1.0))
        found = weightings.Sigmoid(bias=1.0)(jnp.asarray(t), VP, PARAMETERIZATIONS["eps"])
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("weighting", [entry.build() for entry in registry.entries("weighting").values()], ids=str)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS.values(), ids=PARAMETERIZATIONS)
def test_weights_are_finite_where_training_goes(weighting, parameterization):
    for process in (VP, processes.VE(), processes.EDM(), processes.RectifiedFlow(), processes.CosineVP()):
        weight = weighting(jnp.array([1e-5, 1e-3, 0.5, 1.0]), process, parameterization)
        assert np.all(np.isfinite(weight)) and np.all(weight >= 0), process


def test_edm_training_is_unweighted_in_its_own_output():
    weight = weightings.EDMWeighting()(jnp.linspace(0, 1, 9), processes.EDM(), PARAMETERIZATIONS["edm"])
    np.testing.assert_allclose(weight, 1.0, rtol=1e-5)


def test_time_samplers():
    n, key = 20_000, jax.random.key(0)
    keys = Keys.of(key, n)
    uniform = np.sort(time_samplers.UniformTimes()(keys, VP))
    assert np.abs(uniform - np.linspace(0, 1, n)).max() < 2.0 / np.sqrt(n)
    strata = np.sort(time_samplers.LowDiscrepancy(t_min=0.0)(Keys.of(key, 100), VP))
    np.testing.assert_array_equal(np.floor(strata * 100 - strata[0] * 100 + 1e-3), np.arange(100))
    t = time_samplers.LogNormal(mean=-1.2, std=1.2)(keys, processes.EDM())
    log_sigma = np.log(processes.EDM().sigma(t))
    assert log_sigma.mean() == pytest.approx(-1.2, abs=0.05) and log_sigma.std() == pytest.approx(1.2, abs=0.05)
    t = np.asarray(time_samplers.LogitNormal(mean=0.5, std=0.8)(keys, VP), np.float64)
    logit = np.log(t / (1 - t))
    assert logit.mean() == pytest.approx(0.5, abs=0.03) and logit.std() == pytest.approx(0.8, abs=0.03)


def test_loss_of_a_network_that_says_nothing_is_the_noise():
    family = Diffusion(network=ZERO, image_shape=SHAPE, process=VP)
    loss, aux = family.phases()[0].loss({"w": jnp.ones(())}, STATE, batch(4096), Keys.of(jax.random.key(0), 4096))
    assert float(loss) == pytest.approx(1.0, abs=4 * np.sqrt(2 / (4096 * 16)))
    assert float(aux.metrics["mse"]) == pytest.approx(float(loss))


def test_flow_matching_regresses_on_eps_minus_x0():
    """On the straight path the best guess that ignores its input, 0, has loss 1 + E[x_0^2] = 4/3."""
    family = FlowMatching(network=ZERO, image_shape=SHAPE)
    loss, _ = family.phases()[0].loss({"w": jnp.ones(())}, STATE, batch(4096), Keys.of(jax.random.key(0), 4096))
    assert float(loss) == pytest.approx(4.0 / 3.0, rel=0.02)
    with pytest.raises(ValueError, match="learns the velocity"):
        FlowMatching(network=ZERO, image_shape=SHAPE, parameterization=parameterizations.Eps())


def test_condition_dropout():
    seen = []

    def network(w, x, label, cond):
        seen.append(np.asarray(cond["label"]))
        return w * x

    family = Diffusion(network=Function(network), image_shape=SHAPE, condition=("label",), condition_dropout=0.25)
    data = batch(2000)
    with jax.disable_jit():
        family._loss({"w": jnp.ones(())}, STATE, data, Keys.of(jax.random.key(0), 2000))
        family.evaluate({"model": {"w": jnp.ones(())}}, data, jax.random.key(0))
    dropped = seen[0] == -1
    assert dropped.mean() == pytest.approx(0.25, abs=4 * 0.5 / np.sqrt(2000))
    np.testing.assert_array_equal(seen[0][~dropped], np.asarray(data["label"])[~dropped])
    np.testing.assert_array_equal(seen[1], data["label"])


def test_generate_uses_the_condition_and_one_key_a_sample():
    # The estimate of x_0 is the class divided by ten, whatever the noise.
    def network(w, x, label, cond):
        return jnp.broadcast_to(cond["label"].reshape(-1, 1, 1, 1) / 10.0, x.shape)

    def family(scale):
        return Diffusion(
            network=Function(network),
            image_shape=SHAPE,
            parameterization=parameterizations.X0(),
            condition=("label",),
            sampler=Sampler(
                solver=solvers.DDPM(),
                times=times.trailing,
                steps=5,
                guidance=lambda *a: guidance.classifier_free(*a, scale=scale),
            ),
        )

    params, cond = {"model": {"w": jnp.ones(())}}, {"label": jnp.array([0, 3, 7], jnp.int32)}
    x = family(1.0).generate(params, jax.random.key(0), 3, cond)
    np.testing.assert_allclose(x, np.broadcast_to([[[[0.0]]], [[[0.3]]], [[[0.7]]]], (3, *SHAPE)), atol=1e-5)
    guided = family(2.0).generate(params, jax.random.key(0), 3, cond)  # null is -1: 2 c + 0.1
    np.testing.assert_allclose(guided[:, 0, 0, 0], [0.1, 0.7, 1.5], atol=1e-5)


def test_unconditional_generation_does_not_depend_on_the_batch():
    family = Diffusion(
        network=Function(lambda w, x, label, cond: 0.1 * x), image_shape=SHAPE, sampler=Sampler(solver=solvers.DDPM())
    )
    params = {"model": {"w": jnp.ones(())}}
    run = jax.jit(family.generate, static_argnums=2)
    np.testing.assert_allclose(
        run(params, jax.random.key(0), 2), run(params, jax.random.key(0), 5)[:2], rtol=1e-4, atol=1e-5
    )


def test_adaptive_steps_take_each_sample_with_its_own_condition():
    """As good as common steps on the whole batch, of which they do not depend; the trace has the same form."""

    def denoise(x_t, t, cond):
        assert x_t.shape[0] == cond["label"].shape[0]
        return jnp.broadcast_to(cond["label"][:, None] / 10.0, x_t.shape) + 0.1 * x_t

    cond, key, rf = {"label": jnp.array([0, 3, 7], jnp.int32)}, jax.random.key(0), processes.RectifiedFlow()
    end = np.array([1.0, 0.5, 0.1])
    trace = lambda x_t, x_0, t: {"state": x_t}  # noqa: E731
    sampler = lambda solver: Sampler(solver, lambda *_: end, 2, guidance.classifier_free)  # noqa: E731
    x, seen = sampler(solvers.Adaptive())(key, denoise, rf, (3, 2), cond, trace)
    others, others_seen = sampler(solvers.Adaptive(control="batch"))(key, denoise, rf, (3, 2), cond, trace)
    np.testing.assert_allclose(x, others, atol=1e-4)
    assert seen["state"].shape == (2, 3, 2)
    np.testing.assert_allclose(seen["state"], others_seen["state"], atol=1e-4)
    few = sampler(solvers.Adaptive())(key, denoise, rf, (2, 2), {"label": cond["label"][:2]})
    np.testing.assert_allclose(few, x[:2], rtol=1e-5, atol=1e-6)


def test_null_condition_is_minus_one():
    np.testing.assert_array_equal(null_condition({"label": jnp.arange(3)})["label"], [-1, -1, -1])


def test_mistakes_are_named():
    family = Diffusion(network=ZERO, image_shape=SHAPE, condition=("label",))
    with pytest.raises(ValueError, match=r"\(4, 4, 1\), but the data have \(8, 8, 1\)"):
        family.check(types.SimpleNamespace(image_shape=(8, 8, 1), num_classes=10))
    with pytest.raises(ValueError, match="have no labels"):
        family.check(types.SimpleNamespace(image_shape=SHAPE, num_classes=None))
    with pytest.raises(ValueError, match="condition_dropout = 1.5"):
        Diffusion(network=ZERO, image_shape=SHAPE, condition_dropout=1.5)
    with pytest.raises(ValueError, match="steps = 0"):
        Sampler(steps=0)


@pytest.mark.parametrize("parameterization", [parameterizations.Eps(), parameterizations.Score()], ids=["eps", "score"])
def test_sampling_from_zero_snr_needs_a_parameterization_that_knows_x0(parameterization):
    with pytest.raises(ValueError, match="without signal"):
        Diffusion(network=ZERO, image_shape=SHAPE, process=processes.CosineVP(), parameterization=parameterization)
    Diffusion(network=ZERO, image_shape=SHAPE, process=processes.CosineVP(), parameterization=parameterizations.V())


def test_guidance_needs_a_trained_null_condition():
    sampler = Sampler(guidance=guidance.classifier_free)
    with pytest.raises(ValueError, match="condition_dropout = 0"):
        Diffusion(network=ZERO, image_shape=SHAPE, condition=("label",), condition_dropout=0.0, sampler=sampler)


def test_wrong_options_of_guidance_are_found_before_sampling():
    sampler = Sampler(guidance=functools.partial(guidance.rescaled, prediction="noise"))
    with pytest.raises(ValueError, match="prediction = 'noise'"):
        Diffusion(network=ZERO, image_shape=SHAPE, condition=("label",), sampler=sampler)


def test_networks_that_do_not_fit_are_named():
    from genjax.networks import MLP

    spec = types.SimpleNamespace(image_shape=(4, 4, 3), num_classes=10, levels=256)
    for network, words in [
        (MLP(hidden=8, depth=1, num_classes=5), "num_classes = 5, but the data have 10"),
        (MLP(hidden=8, depth=1, num_classes=10, out_channels=1), r"returns \(4, 4, 1\) for images of \(4, 4, 3\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            Diffusion(network=network, image_shape=(4, 4, 3), condition=("label",)).check(spec)
    Diffusion(network=MLP(hidden=8, depth=1, num_classes=10), image_shape=(4, 4, 3), condition=("label",)).check(spec)
