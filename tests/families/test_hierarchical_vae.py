"""Bounds, divergences, draws and pictures of hierarchical VAEs, against closed forms."""

import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.config import build
from genjax.families import HierarchicalVAE
from genjax.families.base import Keys
from genjax.families.hierarchical_vae import divergences, log_ratios
from genjax.families.likelihoods import DiscretizedLogisticMixture, Gaussian
from genjax.families.objectives import ELBO
from genjax.networks.hierarchical import VDVAE, Latent, Normal

STATE = types.SimpleNamespace(step=jnp.zeros((), jnp.int32))
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@dataclasses.dataclass(frozen=True)
class LinearGaussian:
    """z_1 ~ N(0, 1), z_2 ~ N(0.8 z_1, 0.6^2), output 1.5 z_2 + 0.2, for images of one pixel; each q is a guess."""

    def check(self, image_shape):
        assert image_shape == (1, 1, 1)

    def latent_shapes(self):
        return ((1, 1, 1, 1), (1, 1, 1, 1))

    def apply(self, variables, x, noise, channels, kept=None, temperature=1.0):
        latents, above = [], jnp.zeros_like(noise[0])
        guesses = [(0.4, 0.0, 0.9), (0.5, 0.3, 0.5)]
        for i, (eps, (scale, std), (slope, pull, wide)) in enumerate(
            zip(noise, [(0.0, 1.0), (0.8, 0.6)], guesses, strict=True)
        ):
            prior, q = Normal(scale * above, jnp.full_like(above, math.log(std))), None
            drawn = prior.mean + temperature * std * eps
            if x is not None:
                q = Normal(slope * x[:, None] + pull * above, jnp.full_like(above, math.log(wide)))
                drawn = jnp.where(True if kept is None else i < kept, q.mean + wide * eps, drawn)
            above = drawn
            latents.append(Latent(above, prior, q))
        return jnp.repeat(1.5 * above[:, 0] + 0.2, channels, axis=-1), tuple(latents)


LINEAR = HierarchicalVAE((1, 1, 1), LinearGaussian(), Gaussian(std=0.5), output="mean")
LINEAR_PARAMS = {"model": {"network": {}, "likelihood": {}}}
run = functools.partial(jit, static_argnums=0)
evaluate = run(lambda family, *args: family.evaluate(LINEAR_PARAMS, *args))
generate = jit(lambda key, n: LINEAR.generate(LINEAR_PARAMS, key, n), static_argnums=1)
loss = run(lambda family, *args: family.phases()[0].loss(LINEAR_PARAMS["model"], STATE, *args))


def test_elbo_is_below_iwae_which_grows_towards_the_exact_marginal():
    """x ~ N(0.2, 1.5^2 (0.8^2 + 0.6^2) + 0.5^2) exactly."""
    std = math.sqrt(1.5**2 * (0.8**2 + 0.6**2) + 0.5**2)
    n = 10_000
    x = np.repeat(np.linspace(-3.0, 3.0, 3), n)
    batch = {"image": jnp.asarray(x, jnp.float32).reshape(-1, 1, 1, 1)}
    exact = -0.5 * ((x - 0.2) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)

    def gap(bound):
        gaps = (exact - np.asarray(bound)).reshape(3, n)
        return gaps.mean(1), 3 * gaps.std(1) / np.sqrt(n)

    found = {k: evaluate(dataclasses.replace(LINEAR, iwae_samples=k), batch, jax.random.key(0)) for k in (1, 4, 32)}
    elbo, *iwae = gap(found[4]["elbo"]), *(gap(found[k]["iwae"]) for k in found)
    # One draw is the ELBO with the divergence as drawn.
    assert np.all(np.abs(elbo[0] - iwae[0][0]) < elbo[1] + iwae[0][1])
    for (loose, noise_loose), (tight, noise_tight) in zip([elbo, *iwae[1:]], iwae[1:], strict=False):
        assert np.all(tight + noise_tight < loose - noise_loose)
    assert np.all(iwae[-1][0] > -iwae[-1][1]) and np.all(iwae[-1][0] < 0.05)
    np.testing.assert_allclose(found[4]["loss"], -found[4]["elbo"])
    assert "elbo_bpd" not in found[4]


def test_divergence_is_the_mean_of_the_log_ratio():
    """Of three layers in two groups, in each of which the divergence is summed over space and channels."""
    rng, n = np.random.default_rng(0), 20_000

    def latent(layers):
        shape = (layers, 2, 1, 3)
        prior, q = (Normal(*jnp.asarray(0.5 * rng.normal(size=(2, 1, *shape)), jnp.float32)) for _ in range(2))
        noise = jnp.asarray(rng.normal(size=(n, *shape)), jnp.float32)
        return Latent(q.mean + jnp.exp(q.log_std) * noise, prior, q)

    groups = [latent(2), latent(1)]
    closed = np.asarray(divergences(groups))
    assert closed.shape == (1, 3)
    alone = [jax.tree.map(lambda leaf, i=i: leaf[:, i : i + 1], groups[0]) for i in range(2)] + groups[1:]
    for divergence, one in zip(closed[0], alone, strict=True):
        ratios = np.asarray(log_ratios([one]))
        np.testing.assert_allclose(divergence, -ratios.mean(), atol=4 * ratios.std() / np.sqrt(n))
    np.testing.assert_allclose(log_ratios(groups), sum(log_ratios([one]) for one in alone), rtol=1e-4, atol=1e-4)


def test_loss_measures_its_parts_and_free_bits_are_of_layers():
    batch = {"image": jnp.linspace(-1.0, 1.0, 6).reshape(-1, 1, 1, 1)}
    keys = Keys.of(jax.random.key(1), 6)
    value, aux = loss(LINEAR, batch, keys)
    parts = {name: float(v) for name, v in aux.metrics.items()}
    layers = ["kl/00_1x1", "kl/01_1x1"]
    assert set(parts) == {"elbo", "kl", "reconstruction", *layers}
    assert float(value) == pytest.approx(parts["kl"] + parts["reconstruction"], rel=1e-5)
    assert parts["kl"] == pytest.approx(sum(parts[name] for name in layers), rel=1e-5)
    assert parts["elbo"] == pytest.approx(-float(value), rel=1e-5)
    free = sum(parts[name] for name in layers) / 2  # between the two
    bits = dataclasses.replace(LINEAR, objective=ELBO(free_bits=free))
    with_free, _ = loss(bits, batch, keys)
    expected = parts["reconstruction"] + sum(max(parts[name], free) for name in layers)
    assert float(with_free) == pytest.approx(expected, rel=1e-5)


def test_generation_depends_on_the_sample_alone_and_has_the_prior_s_moments(key):
    many = np.asarray(generate(key, 4000))
    np.testing.assert_allclose(generate(key, 2), many[:2], atol=1e-6)
    assert many.mean() == pytest.approx(0.2, abs=4 * 1.5 / np.sqrt(4000))
    assert many.std() == pytest.approx(1.5, rel=4 / np.sqrt(8000))  # 1.5 (0.8^2 + 0.6^2)^(1/2)
    cold = dataclasses.replace(LINEAR, temperature=0.5).generate(LINEAR_PARAMS, key, 2)
    np.testing.assert_allclose(cold - 0.2, 0.5 * (many[:2] - 0.2), rtol=1e-4, atol=1e-6)


def test_figures_and_pictures_of_8_bit_images():
    family = dataclasses.replace(LINEAR, likelihood=DiscretizedLogisticMixture(2), iwae_samples=2)
    x = jnp.linspace(-1.0, 1.0, 3).reshape(-1, 1, 1, 1)
    figures = evaluate(family, {"image": x}, jax.random.key(0))
    assert set(figures) == {"loss", "elbo", "kl", "mse", "iwae", "elbo_bpd", "iwae_bpd"}
    assert {value.shape for value in figures.values()} == {(3,)}
    np.testing.assert_allclose(figures["elbo_bpd"], -figures["elbo"] / math.log(2), rtol=1e-6)
    sheets = jit(LINEAR.pictures)(LINEAR_PARAMS, {"image": x}, jax.random.key(0))
    assert {name: sheet.shape for name, sheet in sheets.items()} == {
        "reconstructions": (2, 3, 1, 1, 1),
        "levels": (3, 3, 1, 1, 1),
    }
    z_1 = 0.4 * x  # and z_2 = 0.5 x + 0.3 z_1, where there is no noise
    np.testing.assert_allclose(sheets["reconstructions"], [x, 1.5 * (0.5 * x + 0.3 * z_1) + 0.2], rtol=1e-5)
    np.testing.assert_array_equal(sheets["levels"][0], x)
    assert np.abs(sheets["levels"][1] - sheets["levels"][2]).min() > 1e-3


NETWORK = VDVAE(levels=((4, 1, 2), (2, 1, 1)), width=4, bottleneck=0.5, latent_channels=2)
FAMILY = HierarchicalVAE((4, 4, 1), NETWORK, Gaussian())
draw = jit(FAMILY.draw)
X = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (3, 4, 4, 1)), jnp.float32)
KEYS = Keys.of(jax.random.key(5), 3).each
ALL = jnp.int32(3)


@pytest.fixture(scope="module")
def start():
    """New parameters."""
    return jit(lambda key: FAMILY.init(key, None))(jax.random.key(0))[0]["model"]


@pytest.fixture(scope="module")
def model(start):
    """Parameters away from the zeros of the start."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), leaf.dtype), start)


def test_the_first_layers_are_kept_and_the_rest_is_drawn_from_the_prior(model):
    _, full = draw(model, KEYS, X, ALL, 1.0)
    assert [each.value.shape for each in full] == [(3, 1, 2, 2, 2), (3, 2, 4, 4, 2)]
    _, part = draw(model, KEYS, X, jnp.int32(2), 0.0)
    np.testing.assert_array_equal(full[0].value, part[0].value)
    np.testing.assert_array_equal(full[1].value[:, 0], part[1].value[:, 0])
    np.testing.assert_array_equal(part[1].value[:, 1], part[1].prior.mean[:, 1])  # at temperature 0
    assert np.abs(part[1].value[:, 1] - full[1].value[:, 1]).max() > 1e-3
    # All drawn from the prior, nothing of the image is left.
    none, _ = draw(model, KEYS, X, jnp.int32(0), 0.7)
    prior, latents = draw(model, KEYS, None, None, 0.7)
    np.testing.assert_allclose(none, prior, rtol=1e-4, atol=1e-5)
    assert latents[0].posterior is None
    assert np.abs(none - draw(model, KEYS, X, ALL, 0.7)[0]).max() > 1e-3


def test_examples_do_not_see_each_other(model):
    output, full = draw(model, KEYS, X, ALL, 1.0)
    moved, other = draw(model, KEYS, X.at[1].set(-X[1]), ALL, 1.0)
    for a, b in [(output, moved), *((a.value, b.value) for a, b in zip(full, other, strict=True))]:
        np.testing.assert_array_equal(np.delete(a, 1, 0), np.delete(b, 1, 0))
        assert np.any(a[1] != b[1])
    turned, _ = draw(model, KEYS[::-1], X[::-1], ALL, 1.0)
    np.testing.assert_allclose(turned[::-1], output, rtol=1e-4, atol=1e-5)


def test_a_new_model_has_standard_priors_and_small_residuals(start):
    """The prior's last convolution is zero, those of residual paths are scaled by 1/sqrt(N) (Child 2021, 3.2)."""
    _, latents = draw(start, KEYS, X, ALL, 1.0)
    for each in latents:
        np.testing.assert_array_equal(each.prior.mean, 0.0)
        np.testing.assert_array_equal(each.prior.log_std, 0.0)
    network = start["network"]
    inner = {name: np.abs(network["down_4"][name]["conv_3"]["kernel"]) for name in ("residual", "posterior")}
    # U(-a, a), a^2 = scale / fan-in, with a fan-in of two channels and three blocks down.
    assert 0.7 * np.sqrt(1 / 6) < inner["residual"].max() <= np.sqrt(1 / 6) < inner["posterior"].max() <= np.sqrt(1 / 2)
    kernel = network["down_4"]["residual"]["conv_1"]["kernel"]
    assert kernel.shape == (2, 3, 3, 2, 2)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.01  # blocks in a scan start apart


def test_the_paper_s_model_has_39_million_parameters():
    """Child 2021, table 2: CIFAR-10, 39M."""
    levels = ((32, 11, 22), (16, 6, 11), (8, 6, 6), (4, 3, 3), (1, 3, 1))
    family = HierarchicalVAE((32, 32, 3), VDVAE(levels=levels), DiscretizedLogisticMixture(10))
    shapes = jax.eval_shape(lambda key: family.init(key, None), jax.random.key(0))[0]
    assert round(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) / 1e6) == 39


@pytest.mark.parametrize("options", [dict(dtype="bfloat16"), dict(remat="nothing_saveable", unroll=2)])
def test_features_and_distributions_are_float32(options):
    family = dataclasses.replace(FAMILY, hierarchy=NETWORK.clone(**options))
    params = jax.eval_shape(lambda key: family.init(key, None)[0]["model"], jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}

    def value(model):
        output, latents = family.draw(model, KEYS, X)
        return output.sum(), (output, latents)

    _, drawn = jax.eval_shape(jax.grad(value, has_aux=True), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype("float32")}


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"\(4, 4, 1\), but the data have \(8, 8, 1\)"):
        FAMILY.check(types.SimpleNamespace(image_shape=(8, 8, 1), num_classes=None, levels=256))
    with pytest.raises(ValueError, match="for images of 4 x 4"):
        HierarchicalVAE((8, 8, 1), NETWORK)
    with pytest.raises(ValueError, match="temperature = -1"):
        HierarchicalVAE((4, 4, 1), NETWORK, temperature=-1.0)
    for wrong, words in [
        (dict(levels=((4, 1, 1), (3, 1, 1))), "proper divisor"),
        (dict(levels=((4, 1, 0),)), "each at least 1"),
        (dict(bottleneck=0.01), "bottleneck = 0.01"),
        (dict(unroll=0), "unroll = 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            build("hierarchy", {"name": "vdvae", "levels": ((4, 1, 1),), "width": 4, **wrong})
