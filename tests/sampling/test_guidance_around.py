"""Guidance rules around each other, from configs, in a sampler and with networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, sampling, solvers
from genjax.config import ConfigError, build, describe, named
from genjax.families.sampler import Sampler, null_condition
from genjax.networks import MLP, DiT, param_shapes
from genjax.sampling import guidance
from tests.sampling.guided import (
    COND,
    KEY,
    NULL,
    RF,
    TARGET,
    TIMES,
    VP,
    WEAK,
    T,
    X,
    bind,
    close,
    denoiser,
    guided,
    pair,
    rules,
)

# Around each other


def recording(sizes):
    def denoise(x_t, t, cond):
        sizes.append(len(x_t))
        return denoiser(VP)(x_t, t, cond)

    return denoise


def test_perturbed_attention_adds_to_other_guidance_in_one_batch():
    conditioned, null = pair()
    perturbed = 0.5 * conditioned
    for inner, plain, branches in [
        (guidance.conditional, conditioned, 2),
        (bind(guidance.classifier_free, scale=3.0), null + 3.0 * (conditioned - null), 3),
    ]:
        sizes = []
        rule = bind(guidance.perturbed_attention, guidance=inner, scale=1.5)
        close(guidance.guide(rule, recording(sizes), COND, NULL)(X, T), plain + 1.5 * (conditioned - perturbed))
        assert sizes == [branches * len(X)]


def test_perturbed_attention_needs_no_condition():
    null = denoiser(VP)(X, T, None)
    # A mixture asked without labels is the whole mixture; the entry of the request is all that there is.
    denoise = lambda x_t, t, cond: denoiser(VP)(x_t, t, {"label": jnp.full(len(x_t), -1), **cond})  # noqa: E731
    close(guidance.perturbed_attention(denoise, None, None, scale=2.0)(X, T), null + 2.0 * 0.5 * null)


def test_perturbed_attention_reaches_a_network_and_one_without_attention_refuses():
    shape, cond = (2, 4, 4, 1), {"label": jnp.array([0, 1])}
    x = jax.random.normal(KEY, shape)
    rule = bind(guidance.perturbed_attention, layers=("block_0",), scale=2.0)
    network = DiT(depth=1, hidden=8, heads=1, num_classes=2)
    key = iter(jax.random.split(KEY, 100))
    params = jax.tree.map(lambda leaf: jax.random.normal(next(key), leaf.shape), param_shapes(network, shape[1:]))

    def denoise(network):
        apply = lambda params, *args: network.apply({"params": params}, *args)  # noqa: E731
        return parameterizations.denoiser(apply, params, parameterizations.Eps(), VP)

    found = jax.jit(lambda x: guidance.guide(rule, denoise(network), cond, null_condition(cond))(x, T))(x)
    request = {"perturbed_attention": {"block_0": jnp.array([True, True])}}
    plain, perturbed = (jax.jit(denoise(network))(x, T, c) for c in (cond, cond | request))
    assert np.abs(plain - perturbed).max() > 0.1
    close(found, 3.0 * plain - 2.0 * perturbed, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="this network has no self-attention layer 'block_0'; valid: none"):
        guidance.guide(rule, denoise(MLP(hidden=8, depth=1, num_classes=2)), cond, null_condition(cond))(x, T)


def test_composition_is_composition_of_formulas_and_evaluates_once():
    conditioned, null = (np.asarray(d) for d in pair())
    plain = null + 4.0 * (conditioned - null)
    summed = plain + 0.5 * (conditioned - WEAK.denoise(VP, X, T, COND))
    inner = bind(
        guidance.autoguidance,
        weak=WEAK.denoiser(VP),
        scale=1.5,
        guidance=bind(guidance.classifier_free, scale=4.0),
    )
    sizes = []
    rule = bind(guidance.rescaled, guidance=inner, prediction="x0", phi=1.0)
    out = guidance.guide(rule, recording(sizes), COND, NULL, process=VP)(X, T)
    close(out, summed * (conditioned.std(1) / summed.std(1))[:, None])
    assert sizes == [2 * len(X)]
    within = bind(guidance.interval, guidance=rule, t_min=0.3, t_max=0.5)
    close(guided(within), out)
    close(guided(within, t=jnp.float32(0.2)), pair(t=jnp.float32(0.2))[0])


def test_rules_around_get_the_run_for_those_within():
    rule = bind(
        guidance.interval, guidance=bind(guidance.rescaled, guidance=guidance.cfg_pp, phi=0.0), t_min=0, t_max=1
    )
    close(guided(rule), guided(guidance.cfg_pp))
    with pytest.raises(ValueError, match="the guidance cfg_pp needs times"):
        rule(denoiser(VP), COND, NULL, process=VP)


def test_a_rule_of_ones_own_can_be_wrapped():
    own = lambda denoise, cond, null_cond: lambda x_t, t: 2.0 * denoise(x_t, t, cond)  # noqa: E731
    conditioned, _ = pair()
    rule = bind(guidance.rescaled, guidance=own, prediction="x0", phi=0.5)
    close(guided(rule), 1.5 * conditioned)


def test_a_memory_stands_still_outside_the_interval():
    """So that guidance up to t = 0.5 is guidance that starts there."""
    inner = bind(guidance.apg, scale=3.0, eta=0.3)
    rule = bind(guidance.interval, guidance=inner, t_min=0.0, t_max=0.5)
    whole = guidance.guide(rule, denoiser(VP), COND, NULL)
    late = guidance.guide(inner, denoiser(VP), COND, NULL)
    run = lambda denoise, times, x: sampling.solve(KEY, denoise, VP, solvers.DDIM(), times, x)  # noqa: E731
    middle = run(guidance.conditional(denoiser(VP), COND, NULL), TIMES[:3], X)
    close(run(whole, TIMES, X), run(late, TIMES[2:], middle))


def test_differences_are_taken_in_the_type_of_x():
    def half(x_t, t, cond):
        return denoiser(VP)(x_t, t, cond).astype(jnp.bfloat16)

    conditioned, null = (half(X, T, c).astype(jnp.float32) for c in (COND, NULL))
    np.testing.assert_array_equal(
        guidance.classifier_free(half, COND, NULL, jnp.float32(7.0))(X, T), null + 7.0 * (conditioned - null)
    )


# From configs

NESTED = dict(
    name="interval",
    t_min=0.2,
    t_max=0.6,
    guidance=dict(name="rescaled", phi=0.5, guidance=dict(name="apg", scale=3.0)),
)


def test_a_nested_config_is_the_nested_rule():
    rule = build("guidance", NESTED)
    by_hand = bind(
        guidance.interval,
        guidance=bind(guidance.rescaled, phi=0.5, guidance=bind(guidance.apg, scale=3.0)),
        t_min=0.2,
        t_max=0.6,
    )
    np.testing.assert_array_equal(guided(rule), guided(by_hand))
    spec = describe(rule)
    assert spec["guidance"]["guidance"]["scale"] == 3.0 and spec["guidance"]["prediction"] == "v"
    assert describe(build("guidance", spec)) == spec
    assert [entry.reference for entry in named(Sampler, {"guidance": spec})] == [
        "kynkaanniemi2024interval",
        "lin2024common",
        "sadat2025eliminating",
    ]


@pytest.mark.parametrize(
    "spec, words",
    [
        (dict(name="classifier"), "guidance: missing key 'log_prob'"),
        (dict(name="autoguidance", scale=2.0), "guidance: missing key 'weak'"),
        (dict(name="autoguidance", weak="runs/edm"), "guidance.weak = 'runs/edm': a teacher is given as dict"),
        (dict(name="interval", t_max=1.0), "guidance: missing key 't_min'"),
        (dict(name="cfg_pp", times=[1.0]), "guidance: unknown key 'times'; valid: scale"),
        (
            dict(name="interval", t_min=0.0, t_max=1.0, guidance="cfg"),
            "guidance.guidance = 'cfg': a guidance is given as dict",
        ),
        (
            dict(name="rescaled", guidance=dict(name="classifier_fre")),
            "guidance.guidance: there is no guidance 'classifier_fre'; did you mean 'classifier_free'?",
        ),
        (dict(name="rescaled", guidance=dict(name="apg", eta="x")), "guidance.guidance.eta = 'x': must be a number"),
    ],
)
def test_mistakes_in_configs_are_named(spec, words):
    with pytest.raises(ConfigError) as error:
        build("guidance", spec)
    assert str(error.value).startswith(words) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "rule, words",
    [
        (bind(guidance.interval, t_min=0.5, t_max=0.5), "t_min = 0.5, t_max = 0.5"),
        (bind(guidance.rescaled, prediction="velocty"), "did you mean 'velocity'"),
        (bind(guidance.cfg_zero_star, zero_steps=-1), "zero_steps = -1"),
        (bind(guidance.perturbed_attention, layers=()), "name the layers"),
    ],
)
def test_wrong_options_are_named(rule, words):
    with pytest.raises(ValueError, match=words):
        guided(rule)


def test_which_rules_need_the_null_condition():
    needs = {name: guidance.needs_null(rule) for name, rule in rules(VP).items()}
    assert [name for name, null in needs.items() if not null] == [
        "none",
        "classifier",
        "autoguidance",
        "perturbed_attention",
    ]
    within = lambda inner: bind(guidance.interval, guidance=inner, t_min=0.0, t_max=1.0)  # noqa: E731
    assert not guidance.needs_null(within(guidance.perturbed_attention))
    assert guidance.needs_null(within(bind(guidance.perturbed_attention, guidance=guidance.apg)))
    assert guidance.needs_null(lambda denoise, cond, null_cond: denoise)


def test_a_sampler_gives_a_rule_the_run():
    sampler = Sampler(steps=4, times=sampling.times.trailing, guidance=guidance.cfg_pp)
    times = sampling.times.trailing(RF, 4)
    denoise = guidance.cfg_pp(denoiser(RF), COND, NULL, RF, times)
    expected = sampling.sample(KEY, denoise, RF, solvers.DDIM(), times, X.shape)
    close(sampler(KEY, denoiser(RF), RF, X.shape, COND), expected, rtol=1e-6)


def test_a_sampler_without_a_condition_keeps_the_rules_that_need_none():
    denoise = lambda x_t, t, cond: TARGET.denoise(RF, x_t, t)  # noqa: E731
    plain, free, weak = (
        Sampler(steps=3, guidance=rule)(KEY, denoise, RF, X.shape)
        for rule in (
            guidance.conditional,
            guidance.classifier_free,
            bind(guidance.autoguidance, weak=WEAK.denoiser(RF)),
        )
    )
    np.testing.assert_array_equal(plain, free)
    assert np.abs(weak - plain).max() > 0.05
