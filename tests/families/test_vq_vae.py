"""VQ-VAE on networks that are multiplications: gradients, codes, generation; and the networks of the paper."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.config import build
from genjax.families import VQVAE
from genjax.families.base import Keys
from genjax.families.vq_vae import straight_through
from genjax.networks.spatial import ResidualDecoder, ResidualEncoder

SHAPE = (2, 3, 4)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=None, levels=256)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Multiplies a map by one number."""

    def check(self, image_shape):
        pass

    def clone(self, **given):
        assert tuple(given.values()) == (4,)
        return self

    def init(self, key, x):
        return {"params": jnp.float32(2.0)}

    def apply(self, variables, x):
        return variables["params"] * x


FAMILY = VQVAE(SHAPE, Scale(), Scale(), codes=5, latent=2, per_place=2, variance=0.5, commitment=0.25, dead_below=0.0)
X = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (6, *SHAPE)), jnp.float32)
BATCH, KEYS = {"image": X}, Keys.of(jax.random.key(1), 6)


@pytest.fixture(scope="module")
def params():
    """Parameters, and codes that stand for something."""
    roles, extra = FAMILY.init(jax.random.key(0), SPEC)
    codes = jax.random.normal(jax.random.key(0), (5, 2))
    extra["codebook"] = {"codes": codes, "counts": jnp.ones((5,)), "sums": codes}
    return {**extra, **roles}


def state(params):
    return types.SimpleNamespace(extra={name: params[name] for name in ("codebook", "frequencies")})


@jax.jit
def loss(model, extra):
    return FAMILY.phases()[0].loss(model, types.SimpleNamespace(extra=extra), BATCH, KEYS)


def test_gradients_pass_straight_through():
    rng = np.random.default_rng(1)
    z, codes = jnp.asarray(rng.normal(size=(2, 7)), jnp.float32)
    value = straight_through(z, codes)
    np.testing.assert_allclose(value, codes, rtol=1e-6, atol=1e-6)
    to_z, to_codes = jax.grad(lambda z, e: (straight_through(z, e) ** 3).sum(), (0, 1))(z, codes)
    np.testing.assert_allclose(to_z, 3 * codes**2, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(to_codes, 0.0)


def test_loss_and_its_gradients_by_hand(params):
    """With z = a x and the image b e: the encoder learns of b (b e - x) and of commitment; the codebook of nothing."""
    extra = state(params).extra
    (value, aux), (to_model, to_extra) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params["model"], extra)
    x = np.asarray(X, np.float64)
    z, codes = 2.0 * x.reshape(6, 2, 3, 2, 2), np.asarray(extra["codebook"]["codes"], np.float64)
    chosen = ((z[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
    e = codes[chosen].reshape(x.shape)
    z = z.reshape(x.shape)
    mse, commitment = ((2 * e - x) ** 2).mean(), ((z - e) ** 2).mean()
    assert float(value) == pytest.approx(mse / 0.5 + 0.25 * commitment, rel=1e-5)
    assert float(aux.metrics["mse"]) == pytest.approx(mse, rel=1e-5)
    assert float(aux.metrics["commitment"]) == pytest.approx(commitment, rel=1e-5)
    to_encoder = (2 * (2 * e - x) * 2 / 0.5 * x + 0.25 * 2 * (z - e) * x).mean()
    assert float(to_model["encoder"]) == pytest.approx(to_encoder, rel=1e-4)
    assert float(to_model["decoder"]) == pytest.approx((2 * (2 * e - x) * e / 0.5).mean(), rel=1e-4)
    for leaf in jax.tree.leaves(to_extra):
        np.testing.assert_array_equal(leaf, 0.0)
    # What is carried on: the codebook's averages, and how often a code stood at a place.
    count = 0.99 + 0.01 * np.bincount(chosen.reshape(-1), minlength=5)
    np.testing.assert_allclose(aux.extra["codebook"]["counts"], count, rtol=1e-5)
    here = (chosen[..., None] == np.arange(5)).mean(0)
    np.testing.assert_allclose(aux.extra["frequencies"], 0.99 * 0.2 + 0.01 * here, rtol=1e-5)


def test_codes_are_numbers_of_maps(params):
    chosen = FAMILY.encode(params, X)
    assert (chosen.shape, chosen.dtype) == ((6, 2, 3, 2), jnp.int32)
    embedded = FAMILY.embed(params, chosen)
    np.testing.assert_array_equal(embedded[..., 2:], params["codebook"]["codes"][chosen[..., 1]])
    image = FAMILY.decode(params, chosen)
    np.testing.assert_allclose(image, 2.0 * embedded)
    figures = FAMILY.evaluate(params, BATCH, jax.random.key(0))
    np.testing.assert_allclose(figures["mse"], ((image - X) ** 2).mean((1, 2, 3)), rtol=1e-5)
    assert float(figures["loss"].mean()) == pytest.approx(
        float(loss(params["model"], state(params).extra)[0]), rel=1e-5
    )
    sheets = FAMILY.pictures(params, BATCH, jax.random.key(0))
    np.testing.assert_allclose(sheets["reconstructions"], jnp.stack([X, image]))


def test_generation_draws_each_place_by_its_frequencies(params, key):
    rng = np.random.default_rng(3)
    frequencies = rng.dirichlet(np.ones(5), size=(2, 3, 2))
    frequencies[0, 0, 0] = [0, 0, 1, 0, 0]
    drawn = {**params, "frequencies": jnp.asarray(frequencies, jnp.float32)}
    run = jax.jit(FAMILY.generate, static_argnums=2)
    images = run(drawn, key, 4000)
    np.testing.assert_array_equal(run(drawn, key, 3), images[:3])
    codes = np.asarray(params["codebook"]["codes"])
    np.testing.assert_allclose(images[:, 0, 0, :2], np.broadcast_to(2 * codes[2], (4000, 2)), rtol=1e-6)
    mean = 2 * np.einsum("hwpk,kd->hwpd", frequencies, codes).reshape(SHAPE)
    np.testing.assert_allclose(images.mean(0), mean, atol=4 * 2 * codes.std() * 1.5 / np.sqrt(4000))


def test_the_paper_s_networks_fit_each_other():
    """Two halvings and two blocks of 256 channels (van den Oord et al. 2017, section 4.1)."""
    encoder, decoder = ResidualEncoder(dtype="bfloat16"), ResidualDecoder(dtype="bfloat16")
    family = VQVAE((32, 32, 3), encoder, decoder, codes=512, latent=16, per_place=10)
    spec = types.SimpleNamespace(image_shape=(32, 32, 3), num_classes=10, levels=256)
    family.check(spec)
    params, extra = jax.eval_shape(lambda key: family.init(key, spec), jax.random.key(0))
    assert extra["frequencies"].shape == (8, 8, 10, 512)
    model = params["model"]
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    chosen = jax.eval_shape(family.encode, {**extra, **params}, x)
    image = jax.eval_shape(family.decode, {**extra, **params}, chosen)
    assert (chosen.shape, image.shape, image.dtype) == ((2, 8, 8, 10), x.shape, jnp.dtype("float32"))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, extra))} == {jnp.dtype("float32")}
    block = 9 * 256**2 + 256 + 256**2 + 256
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in model.items()}
    assert sizes["encoder"] == (16 * 3 * 256 + 256) + (16 * 256**2 + 256) + 2 * block + (256 * 160 + 160)
    assert sizes["decoder"] == (9 * 160 * 256 + 256) + 2 * block + (16 * 256**2 + 256) + (16 * 256 * 3 + 3)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="divisible by 4 to be halved 2 times"):
        VQVAE((6, 8, 1), ResidualEncoder(), ResidualDecoder())
    spec = types.SimpleNamespace(image_shape=(8, 8, 1), num_classes=None, levels=256)
    with pytest.raises(ValueError, match=r"the decoder makes \(4, 4, 1\) of what"):
        VQVAE((8, 8, 1), ResidualEncoder(hidden=4), ResidualDecoder(hidden=4, halvings=1)).check(spec)
    with pytest.raises(ValueError, match=r"but the data have \(8, 8, 1\)"):
        FAMILY.check(spec)
    for wrong in (dict(codes=0), dict(decay=1.0), dict(dead_below=1.0), dict(variance=0.0), dict(commitment=-1.0)):
        name = next(iter(wrong))
        with pytest.raises(ValueError, match=f"{name} = "):
            dataclasses.replace(FAMILY, **wrong)
    with pytest.raises(ValueError, match="hidden = 0"):
        build("spatial_encoder", {"name": "residual", "hidden": 0})
