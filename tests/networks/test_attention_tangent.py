"""Derivatives of attention in both modes against those of its formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.networks import attention, attention_tangent


def dense(query, key, value):
    logits = jnp.einsum("btnd,bsnd->bnts", query, key) / jnp.sqrt(jnp.float32(query.shape[-1]))
    return jnp.einsum("bnts,bsnd->btnd", jax.nn.softmax(logits), value)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Three blocks of the nine keys, the last one of a single key."""
    monkeypatch.setattr(attention_tangent, "BLOCK", 4)


# What these tests cost is compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def draw(seed, shape=(2, 9, 3, 8)):
    rng = np.random.default_rng(seed)
    queries = (shape[0], 5, *shape[2:])
    return tuple(jnp.asarray(rng.normal(0, 2, size), jnp.float32) for size in (queries, shape, shape))


AT, ALONG = draw(0), draw(1)
dense_jvp = jit(lambda at, along: jax.jvp(dense, at, along))


def attend(query, key, value):
    return attention.attention(query, key, value, "xla")


def close(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(jnp.abs(b).max()))


def test_many_keys_are_looked_at_in_blocks():
    text = str(jax.make_jaxpr(lambda *a: jax.jvp(attend, a, a))(*AT))
    assert "attention_derivative" in text
    few = [a[:, :5] for a in AT]
    assert "attention_derivative" not in str(jax.make_jaxpr(lambda *a: jax.jvp(attend, a, a))(*few))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 2e-2)], ids=["float32", "bfloat16"])
def test_forward_mode_is_that_of_the_formula(dtype, tolerance):
    at, along = (tuple(a.astype(dtype) for a in values) for values in (AT, ALONG))
    out, tangent = jit(lambda at, along: jax.jvp(attend, at, along))(at, along)
    assert out.dtype == tangent.dtype == jnp.dtype(dtype)
    # Of the rounded inputs, in float32.
    at, along = (tuple(a.astype(jnp.float32) for a in values) for values in (at, along))
    for a, b in zip((out, tangent), dense_jvp(at, along), strict=True):
        error = jnp.linalg.norm((a.astype(jnp.float32) - b).ravel()) / jnp.linalg.norm(b.ravel())
        assert float(error) < tolerance


def test_large_logits_neither_overflow_nor_drown():
    query, key, value = AT
    at = (100 * query, key, value)
    found = jit(lambda at: jax.jvp(attend, at, ALONG))(at)
    close(found, dense_jvp(at, ALONG), 1e-3)


def squares(function, stop=True):
    """A loss like MeanFlow's: the value in one factor, and the derivative along a direction in the other."""

    def loss(at):
        out, tangent = jax.jvp(function, at, ALONG)
        return jnp.sum(jnp.sin(out) * (jax.lax.stop_gradient(tangent) if stop else tangent))

    return loss


@pytest.fixture(scope="module")
def gradient():
    return jit(jax.grad(squares(dense)))(AT)


@pytest.mark.parametrize("wrapper", [lambda f: f, jax.checkpoint, jax.vmap], ids=["plain", "remat", "vmap"])
def test_reverse_mode_goes_through_forward_mode(wrapper, gradient):
    many = wrapper is jax.vmap
    at = tuple(a[None] for a in AT) if many else AT
    found = jit(wrapper(jax.grad(squares(attend))) if many else jax.grad(wrapper(squares(attend))))(at)
    close([a[0] if many else a for a in found], gradient)


@pytest.mark.slow
def test_reverse_mode_of_the_derivative_itself():
    close(jit(jax.grad(squares(attend, stop=False)))(AT), jit(jax.grad(squares(dense, stop=False)))(AT))


def test_one_argument_alone_can_be_differentiated():
    query, key, value = AT
    found, expected = (jit(jax.grad(lambda q, f=f: jnp.sum(f(q, key, value) ** 2)))(query) for f in (attend, dense))
    close([found], [expected])


def test_vmap_is_a_loop():
    many = tuple(jnp.stack([a, 2 * a]) for a in AT)
    tangents = jit(jax.vmap(lambda *at: jax.jvp(attend, at, ALONG)[1]))(*many)  # one direction for both
    for i in range(2):
        close([tangents[i]], dense_jvp(tuple(a[i] for a in many), ALONG)[1:])


@jax.custom_vjp
def kernel(query, key, value):
    """Like cuDNN's it has no rule for forward mode, and one of its own for reverse mode: here it is marked by a 2."""
    return dense(query, key, value)


kernel.defvjp(lambda *a: (dense(*a), a), lambda kept, g: jax.vjp(dense, *kept)[1](2 * g))


def test_a_kernel_without_forward_mode_has_one_and_keeps_its_own_reverse_mode(monkeypatch, gradient):
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(kernel, AT, ALONG)
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, implementation: kernel(*a))
    monkeypatch.setattr(attention, "resolve", lambda *a: "cudnn")
    few = tuple(a[:, :3] for a in AT)  # a kernel of cuDNN has no rule for few keys either
    for at in (AT, few):
        along = tuple(jnp.ones_like(a) for a in at)
        found = jit(lambda at, along: jax.jvp(attend, at, along))(at, along)
        close(found[1:], dense_jvp(at, along)[1:])
    found = jit(jax.grad(jax.checkpoint(squares(attend))))(AT)
    close(found, [2 * g for g in gradient])


def temporaries(function, length):
    shape = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
    compiled = jit(function).lower(*[shape] * 6).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_number_of_tokens_not_with_its_square(monkeypatch):
    monkeypatch.setattr(attention_tangent, "BLOCK", 64)
    blocks = [temporaries(attention_tangent.derivative, length) for length in (512, 2048)]
    assert blocks[1] < 4.5 * blocks[0]
    matrices = [temporaries(lambda *a: jax.jvp(dense, a[:3], a[3:])[1], length) for length in (512, 2048)]
    assert matrices[1] > 14 * matrices[0]  # so that the bar above means something
    assert blocks[1] < matrices[1] / 10


def test_the_forward_pass_is_computed_once():
    """The transposed derivative asks for it again, and XLA sees that it is the same."""

    def products(function):
        loss = jax.jit(jax.grad(lambda at: jnp.sum(jnp.sin(function(*at)))))
        return loss.lower(AT).compile().as_text().count(" dot(")

    plain = functools.partial(jax.nn.dot_product_attention, implementation="xla")
    assert products(attend) == products(plain)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a CUDA GPU")
def test_cudnn_in_both_modes():
    at, along = ([a.astype(jnp.bfloat16) for a in values] for values in (AT, ALONG))
    cudnn = functools.partial(attention.attention, implementation="cudnn")
    tangent = jax.jit(lambda at, along: jax.jvp(cudnn, at, along)[1])(at, along).astype(jnp.float32)
    at, along = ([a.astype(jnp.float32) for a in values] for values in (at, along))
    np.testing.assert_allclose(tangent, jax.jvp(dense, at, along)[1], atol=0.1)
    half = lambda *a: cudnn(*(b.astype(jnp.bfloat16) for b in a)).astype(jnp.float32)  # noqa: E731
    for a, b in zip(jax.jit(jax.grad(squares(half)))(AT), jax.grad(squares(dense))(AT), strict=True):
        np.testing.assert_allclose(a, b, atol=0.05 * float(jnp.abs(b).max()))
