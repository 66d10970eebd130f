"""Convolutions with rules of their own for derivatives, against JAX's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.networks.convolution import convolution, transposed

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
how = dict(padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def plain(x, weights, stride, padded=True):
    padding = "SAME" if padded else "VALID"
    return jax.lax.conv_general_dilated(x, weights, (stride, stride), **how | {"padding": padding})


def plain_transposed(y, weights, stride):
    turned = jnp.flip(weights, (0, 1)).swapaxes(2, 3)
    return jax.lax.conv_transpose(y, turned, (stride, stride), **how)


@pytest.mark.parametrize("kernel, stride", [(4, 2), (3, 1), (3, 2)])
def test_first_and_second_derivatives_are_those_of_jax_s_own(kernel, stride):
    """Square norms of gradients and their gradients, of a convolution and of its adjoint at once."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (1, 2, 3, 2), (1, 2 * stride, 3 * stride, 3), (kernel, kernel, 3, 2)
    small, large, weights = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))

    def penalties(up, down):
        def square(f, x, w):
            first = jax.grad(lambda x, w: jnp.sin(f(x, w, stride)).sum(), (0, 1))(x, w)
            return sum(jnp.square(leaf).sum() for leaf in first)

        return lambda small, large, w: square(up, small, w) + square(down, large, w)

    found, expected = (
        jit(jax.value_and_grad(penalties(*layers), (0, 1, 2)))(small, large, weights)
        for layers in ((transposed, convolution), (plain_transposed, plain))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2), found, expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_derivatives_without_padding(stride):
    """The same of the convolution alone, at the odd sides that a filter before it leaves."""
    keys = jax.random.split(jax.random.key(0), 2)
    x, weights = jax.random.normal(keys[0], (2, 5, 7, 3)), jax.random.normal(keys[1], (3, 3, 3, 2))

    def penalty(f):
        def square(x, w):
            first = jax.grad(lambda x, w: jnp.sin(f(x, w, stride, padded=False)).sum(), (0, 1))(x, w)
            return sum(jnp.square(leaf).sum() for leaf in first)

        return jit(lambda x, w: (f(x, w, stride, padded=False), jax.value_and_grad(square, (0, 1))(x, w)))

    found, expected = penalty(convolution)(x, weights), penalty(plain)(x, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2), found, expected)


def test_transposed_is_the_adjoint():
    keys = jax.random.split(jax.random.key(0), 3)
    y, x, w = (jax.random.normal(k, s) for k, s in zip(keys, [(2, 2, 3, 4), (2, 4, 6, 3), (4, 4, 3, 4)], strict=True))
    found, expected = jit(lambda: (jnp.vdot(y, convolution(x, w, 2)), jnp.vdot(transposed(y, w, 2), x)))()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
