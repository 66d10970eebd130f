"""Likelihoods, dequantization, the first batch and generation of normalizing flows."""

import dataclasses
import functools
import importlib.util
import math
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config
from genjax.bijectors import merge_fixed
from genjax.families import NormalizingFlow
from genjax.families.base import Keys
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from genjax.training.state import sampling_params

ROOT = pathlib.Path(__file__).parents[2]
POINT, IMAGE = (1, 1, 2), (4, 4, 1)
POINTS = types.SimpleNamespace(image_shape=POINT, num_classes=3, levels=None)
IMAGES = types.SimpleNamespace(image_shape=IMAGE, num_classes=3, levels=256)
MLP = dict(name="residual_mlp", hidden=8, depth=1)
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def flow(bijector, shape=POINT, **kwargs):
    kwargs = dict(dequantize=shape == IMAGE) | kwargs
    return config.build("family", dict(name="normalizing_flow", image_shape=shape, bijector=bijector, **kwargs))


def coupling(swap, kind="spline", **kwargs):
    return dict(name=f"{kind}_coupling", swap=swap, conditioner=MLP | kwargs)


SPLINES = dict(name="chain", layers=(coupling(False), dict(name="actnorm"), coupling(True)))
GLOW = dict(
    name="multi_scale",
    levels=1,
    layer=dict(
        name="repeat",
        times=2,
        layer=dict(
            name="chain",
            layers=(
                dict(name="actnorm"),
                dict(name="invertible_1x1"),
                dict(name="affine_coupling", mask="channel", conditioner=MLP | dict(num_classes=3)),
            ),
        ),
    ),
)


def shaken(tree, amount):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + rng.normal(0, amount, leaf.shape).astype(np.float32), jax.device_get(tree))


@dataclasses.dataclass
class State:
    extra: dict


def test_the_density_integrates_to_one():
    """By the rectangle rule on a square that holds all but 1e-6 of it."""
    family = flow(SPLINES)
    params, extra = jit(lambda key: family.init(key, POINTS))(jax.random.key(0))
    places = np.linspace(-6.0, 6.0, 601)
    grid = jnp.asarray(np.stack(np.meshgrid(places, places), -1).reshape(-1, *POINT), jnp.float32)
    density = jnp.exp(jit(family.log_prob)({**extra, "model": shaken(params["model"], 0.1)}, grid))
    assert float(density.max()) > 0.3  # that of the normal distribution is 0.16
    assert float(density.sum() * (places[1] - places[0]) ** 2) == pytest.approx(1.0, abs=0.01)


def test_the_likelihood_of_the_identity_is_the_normal_distribution():
    family = flow(dict(name="planar"))
    params = {"model": {"w": np.zeros(POINT, np.float32), "u": np.zeros(POINT, np.float32), "b": np.float32(0)}}
    x = np.float32([[[[0.3, -0.2]]], [[[1.0, 2.0]]]])
    figures = jit(family.evaluate)(params, {"image": x, "label": np.zeros(2, np.int32)}, jax.random.key(0))
    expected = math.log(2 * math.pi) + 0.5 * np.array([0.13, 5.0])
    assert set(figures) == {"loss", "nll"}
    np.testing.assert_allclose(figures["nll"], expected, rtol=1e-5)
    np.testing.assert_allclose(jit(family.log_prob)(params, x), -expected, rtol=1e-5)


@pytest.mark.parametrize("bits", [8, 3])
def test_dequantization_fills_the_interval_of_a_level(bits):
    family = flow(dict(name="logit"), IMAGE, bits=bits)
    pixels = np.arange(256.0, dtype=np.float32)
    images = np.broadcast_to((pixels / 127.5 - 1.0)[:, None, None, None], (256, *IMAGE))
    run = jit(lambda images, key: family.to_reals(images, Keys.of(key, 256).each))
    x = np.asarray(run(images, jax.random.key(0)))
    size = 2.0 / 2**bits
    low = -1.0 + size * np.floor(np.arange(256) * 2**bits / 256)
    inside = (x - low[:, None, None, None]) / size
    assert -1e-5 < inside.min() < 0.01 and 0.99 < inside.max() < 1 + 1e-5
    assert inside.mean() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / inside.size))
    back = np.round((np.asarray(jit(family.to_images)(x)) + 1.0) * 127.5)
    assert np.abs(back - pixels[:, None, None, None]).max() <= 256 // 2**bits - 1


@pytest.mark.parametrize("bits", [8, 5])
def test_a_uniform_density_costs_eight_bits_a_dimension(bits):
    """Between the two ends of [-1, 1] the density 1/2 gives every 8-bit value 1/256."""

    @dataclasses.dataclass(frozen=True)
    class Uniform:
        def forward(self, params, x, cond=None):
            z = jax.scipy.special.ndtri(jnp.clip(0.5 * (x + 1.0), 1e-6, 1 - 1e-6))
            log_det = jnp.log(0.5) - jax.scipy.stats.norm.logpdf(z)
            return z, log_det.sum((1, 2, 3))

    family = NormalizingFlow(IMAGE, Uniform(), bits=bits)
    images = (np.arange(128, dtype=np.float32) * 2 / 127.5 - 1.0).reshape(8, *IMAGE)
    figures = jit(family.evaluate)({"model": {}}, {"image": images}, jax.random.key(0))
    assert set(figures) == {"loss", "nll_bpd"}
    np.testing.assert_allclose(figures["nll_bpd"], 8.0, rtol=1e-5)


@functools.cache
def glow():
    """A conditional Glow on images, its state after the first loss, and the batch of that."""
    family = flow(GLOW, IMAGE, condition=("label",))
    family.check(IMAGES)
    params, extra = jit(lambda key: family.init(key, IMAGES))(jax.random.key(0))
    rng, n = np.random.default_rng(1), 32
    image = np.tanh(0.3 + 0.2 * rng.normal(size=(n, *IMAGE))).astype(np.float32)
    batch = {"image": image, "label": np.arange(n, dtype=np.int32) % 3}

    @jit
    def first(params, extra, batch):
        keys = Keys.of(jax.random.key(2), n)
        loss = family.phases()[0].loss
        (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params["model"], State(extra), batch, keys)
        return aux.extra, grads, family.to_reals(batch["image"], keys.each)

    extra, grads, x = first(params, extra, batch)
    again, *_ = first(params, extra, {**batch, "image": -batch["image"]})
    return family, params, extra, grads, again, batch, np.asarray(x)


def test_after_the_first_batch_actnorm_has_mean_zero_and_variance_one():
    _, params, extra, grads, *_, x = glow()
    layers = jax.device_get(merge_fixed(params["model"], extra["fixed"]))["level_0"]["layer"]
    # The couplings start as the identity, so the second actnorm sees no more than a rotation of what the first made.
    x = x.reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4)  # blocks of 2 x 2 pixels
    for i in range(2):
        actnorm, mixing = (jax.tree.map(lambda leaf: leaf[i], layers[f"layer_{j}"]) for j in range(2))  # noqa: B023
        assert np.all(actnorm["shift"] == 0) and np.all(actnorm["log_scale"] == 0)
        x = (x - actnorm["fixed"]["mean"]) / np.exp(actnorm["fixed"]["log_std"])
        np.testing.assert_allclose(x.mean(0), 0.0, atol=1e-5)
        np.testing.assert_allclose(x.std(0), 1.0, rtol=1e-4)
        lower = np.tril(mixing["lower"], -1) + np.eye(4)
        upper = np.triu(mixing["upper"], 1) + np.diag(mixing["fixed"]["sign"] * np.exp(mixing["log_scale"]))
        x = x @ mixing["fixed"]["permutation"] @ lower @ upper
    # And the first gradient is that of the initialized model: of the last layer that scales, it is 0.
    of_actnorm = grads["level_0"]["layer"]["layer_0"]
    assert float(jnp.abs(of_actnorm["log_scale"][-1]).max()) < 1e-5 and "fixed" not in of_actnorm


def test_later_batches_have_no_say():
    _, _, extra, _, again, *_ = glow()
    assert bool(extra["ready"]) and bool(again["ready"])
    jax.tree.map(np.testing.assert_array_equal, again["fixed"], extra["fixed"])


def test_generation_is_of_the_key_and_the_class():
    family, params, extra, *_ = glow()
    whole = {**extra, "model": shaken(params["model"], 0.1)}
    run = jit(lambda keys, labels: family.generate(whole, keys, 3, {"label": labels}))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), np.arange(3))
    one, other, turned = (
        np.asarray(run(keys[np.array(order)], np.int32(labels)))
        for order, labels in (([0, 1, 2], [0, 1, 2]), ([0, 1, 2], [0, 2, 2]), ([2, 0, 1], [2, 0, 1]))
    )
    assert one.shape == (3, *IMAGE)
    np.testing.assert_array_equal(one[[0, 2]], other[[0, 2]])
    assert np.abs(one[1] - other[1]).max() > 0.01
    np.testing.assert_array_equal(turned, one[[2, 0, 1]])


def test_generation_has_the_moments_of_the_flow():
    """Of actnorm alone: what it takes from the data it gives back, times the temperature."""
    family = flow(dict(name="actnorm"), temperature=0.5)
    fixed = {"fixed": {"mean": jnp.asarray([0.4, -0.3]), "log_std": jnp.log(jnp.asarray([0.1, 0.2]))}}
    params = {"model": {"shift": jnp.zeros(2), "log_scale": jnp.zeros(2)}, "fixed": fixed}
    x = np.asarray(jit(lambda key: family.generate(params, key, 4000))(jax.random.key(0))).reshape(-1, 2)
    np.testing.assert_allclose(x.mean(0), [0.4, -0.3], atol=4 * 0.1 / math.sqrt(4000))
    np.testing.assert_allclose(x.std(0), [0.05, 0.1], rtol=0.05)


def test_pictures_go_from_one_image_to_the_other():
    family, params, extra, *_, batch, _ = glow()
    few = jax.tree.map(lambda leaf: leaf[:4], batch)
    sheet = jit(family.pictures)({**extra, **params}, few, jax.random.key(0))["interpolations"]
    assert sheet.shape == (2, 8, *IMAGE)
    np.testing.assert_allclose(sheet[:, 0], few["image"][:2], atol=0.02)
    np.testing.assert_allclose(sheet[:, -1], few["image"][2:], atol=0.02)
    assert flow(SPLINES).pictures({}, few, jax.random.key(0)) == {}


@pytest.mark.parametrize(
    ("family", "spec", "words"),
    [
        (lambda: flow(dict(name="planar"), bits=9), POINTS, "bits = 9: must be from 1 to 8"),
        (lambda: flow(dict(name="planar"), bits=5), POINTS, "bits = 5, but dequantize = False"),
        (lambda: flow(dict(name="planar"), temperature=-1.0), POINTS, "temperature = -1.0"),
        (lambda: flow(dict(name="planar")), IMAGES, "image_shape = .1, 1, 2., but the data have"),
        (lambda: flow(dict(name="planar"), dequantize=True), POINTS, "the data are real numbers"),
        (lambda: flow(dict(name="planar"), IMAGE, dequantize=False), IMAGES, "pixels of 256 levels"),
        (
            lambda: flow(dict(name="planar"), condition=("label",)),
            POINTS,
            "num_classes = None, but the data",
        ),
        (
            lambda: flow(coupling(False, num_classes=4), condition=("label",)),
            POINTS,
            "num_classes = 4, but",
        ),
        (lambda: flow(dict(name="squeeze")), POINTS, "even height and width"),
        (lambda: flow(GLOW | dict(levels=3), IMAGE), IMAGES, "levels = 3"),
        (lambda: flow(coupling(False) | dict(mask="channl")), POINTS, "did you mean 'channel'"),
        (lambda: flow(dict(name="repeat", times=2, layer=dict(name="squeeze")), IMAGE), IMAGES, "cannot be repeated"),
        (lambda: flow(dict(name="chain", layers=({"name": "plan"},))), POINTS, r"layers\[0\]: there is no bijector"),
        (lambda: flow(dict(name="chain", layers=())), POINTS, "one bijector at least"),
        (lambda: flow(dict(name="chain", layers="planar")), POINTS, "must be a list of dict"),
    ],
)
def test_mistakes_are_named(family, spec, words):
    with pytest.raises(ValueError, match=words):
        family().check(spec)


@pytest.mark.slow
def test_the_spline_flow_finds_the_density_of_the_ring(tmp_path):
    """Through the loop: held-out cost within 0.05 nats of that of the true density, and as invertible as before."""
    spec = importlib.util.spec_from_file_location("ring", ROOT / "configs" / "ring" / "spline_flow.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = Experiment.from_config(module.get_config())
    state = train(experiment, tmp_path / "ring")
    params, source = sampling_params(state), experiment.eval_data
    images = source.gather(np.arange(source.spec.size))["image"]
    nll = jax.jit(experiment.family.evaluate)(params, {"image": images}, jax.random.key(0))["nll"]
    truth = -source.truth.log_prob(images.reshape(-1, 2))
    error = float(np.mean(np.asarray(nll, np.float64) - truth))
    assert -0.01 < error < 0.05  # nothing is better than the truth but by chance

    # Of what the flow generates, nearly all is near a mode.
    x = jax.jit(lambda key: experiment.family.generate(params, key, 4000))(jax.random.key(1)).reshape(-1, 2)
    distances = np.linalg.norm(np.asarray(x)[:, None] - source.truth.centres, axis=-1) / source.truth.sigma
    assert np.mean(distances.min(1) < 4.0) > 0.9
    assert np.bincount(distances.argmin(1)[distances.min(1) < 4.0], minlength=8).min() > 4000 / 8 / 2

    bijector, whole = experiment.family.bijector, merge_fixed(params["model"], params["fixed"])
    back, _ = jax.jit(bijector.inverse)(whole, jax.jit(bijector.forward)(whole, images)[0])
    assert float(jnp.abs(back - images).max()) <= 1e-4
