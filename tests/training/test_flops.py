"""Counts of floating-point operations against those on paper, and the table of peaks."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from genjax.families.base import Aux, Phase
from genjax.networks import DiT, attention, param_shapes
from genjax.networks.counting import counting
from genjax.training.ema import EMA
from genjax.training.flops import mean_step_flops, peak_flops, step_flops
from genjax.training.optimizers import build_optimizer
from genjax.training.state import TrainState
from genjax.training.step import make_train_step
from tests.training import toys

A, B = jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((32, 32), jnp.float32)
PRODUCT = 2 * 64 * 32 * 32


def test_a_product_is_two_operations_a_term():
    assert step_flops(lambda a, b: a @ b, A, B) == PRODUCT


@pytest.mark.parametrize("inner", [1, 3])
def test_the_body_of_a_scan_counts_as_often_as_it_runs(inner):
    def repeated(a, b):
        def products(c):
            return lax.scan(lambda d, _: (d @ b, None), c, None, length=inner)[0] @ b

        return lax.scan(lambda c, _: (products(c), None), a, None, length=10)[0] @ b

    counters = 200  # of the loops themselves, at most
    forward = 10 * (inner + 1) + 1
    assert 0 <= step_flops(repeated, A, B) - forward * PRODUCT < counters
    both = jax.jit(jax.value_and_grad(lambda a, b: jnp.square(repeated(a, b)).sum(), (0, 1)))
    counted = step_flops(both, A, B) / PRODUCT
    assert 3 * forward <= counted < 3.2 * forward  # and the gradients of b are added up


def test_a_convolution_is_its_terms_within_the_image():
    x, kernel = jax.ShapeDtypeStruct((2, 32, 32, 8), jnp.float32), jax.ShapeDtypeStruct((3, 3, 8, 16), jnp.float32)

    def conv(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    taps = (3 * 32 - 2) ** 2  # of the 96 taps of a row, one at either end lies in the padding
    expected = 2 * 2 * 8 * 16 * taps
    assert step_flops(conv, x, kernel) == expected
    gradients = jax.grad(lambda x, kernel: conv(x, kernel).sum(), (0, 1))
    assert step_flops(gradients, x, kernel) == 2 * expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dit_is_its_products(dtype):
    """Six operations a weight and token, and attention; on latents of 32x32 the rest is 3%."""
    network, batch = DiT(size="S", patch_size=2, dtype=dtype), 2
    params = param_shapes(network, (32, 32, 4))
    x = jax.ShapeDtypeStruct((batch, 32, 32, 4), jnp.float32)

    def loss(params, x):
        return jnp.square(network.apply({"params": params}, x, jnp.zeros(batch), None)).mean()

    tokens, hidden, depth, patch = 256, 384, 12, 2 * 2 * 4
    block = tokens * (4 + 8) * hidden**2 + 2 * tokens**2 * hidden + 6 * hidden**2
    ends = tokens * 2 * patch * hidden + (256 + hidden + 2 * hidden) * hidden
    expected = 3 * 2 * batch * (depth * block + ends)
    assert 1.0 <= step_flops(jax.value_and_grad(loss), params, x) / expected < 1.03


def test_attention_is_counted_as_products_where_cudnn_would_run(monkeypatch):
    monkeypatch.setattr(attention, "cudnn_obstacle", lambda *_: None)
    assert attention.resolve("auto", 32, "bfloat16") == "cudnn"
    query = jax.ShapeDtypeStruct((2, 128, 4, 32), jnp.bfloat16)
    with pytest.raises(Exception, match="(?i)cudnn"):  # there is none here to trace it for
        jax.eval_shape(attention.attention, query, query, query)
    counted = step_flops(lambda q, k: attention.attention(q, k, k), query, query)
    assert 1.0 <= counted / (2 * 2 * 2 * 128 * 128 * 4 * 32) < 1.1  # and the softmax
    assert not counting.value


def test_a_lazy_phase_counts_in_proportion():
    """Two critic updates, a penalty in every third step and a generator update, of one product each."""
    weights = jnp.ones((64, 64))

    class Products(toys.Game):
        def init(self, key, spec):
            return {"critic": weights, "generator": weights}, {}

        def phases(self):
            loss = lambda params, state, batch, keys: ((batch["image"] @ params).sum(), Aux({}))  # noqa: E731
            return (
                Phase("critic", "critic", loss, repeat=2),
                Phase("penalty", "critic", loss, every=3),
                Phase("generator", "generator", loss),
            )

    family, state = (
        Products(),
        TrainState(
            step=jnp.int32(0),
            key=jax.random.key(0),
            params={"critic": weights, "generator": weights},
            opt={},
            ema={},
            extra={},
        ),
    )
    optimizers = {role: build_optimizer({"name": "sgd", "learning_rate": 0.1}, weights) for role in state.params}
    state = state.replace(opt={role: optimizer.init(weights) for role, optimizer in optimizers.items()})
    step_of = functools.partial(make_train_step, family, optimizers, EMA())
    batch = {"image": jnp.ones((2 * 32, 64))}
    product = 2 * 2 * 32 * 64 * 64  # forward, and the gradient by the weights
    counted = mean_step_flops(step_of, family.phases(), state, batch)
    assert 1.0 <= counted / ((2 + 1 / 3 + 1) * product) < 1.1
    assert 1.0 <= step_flops(step_of(), state, batch) / (4 * product) < 1.1


def test_what_is_traced_for_counting_is_not_run():
    @jax.jit
    def step(a, b):
        return a @ b if counting.value else a

    a, b = jnp.ones(A.shape), jnp.ones(B.shape)
    assert step_flops(step, a, b) == PRODUCT
    assert (step(a, b) == a).all()
    assert step_flops(step, a, b) == PRODUCT


@pytest.mark.parametrize(
    ("device_kind", "dtype", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.5),
        ("NVIDIA H100 PCIe", "float32", 378),
        ("NVIDIA H100 NVL", "bfloat16", 835.5),
        ("NVIDIA H200", "float16", 989.5),
        ("NVIDIA A100-SXM4-80GB", "float32", 156),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312),
        ("Tesla V100-SXM2-16GB", "float32", 15.7),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("Tesla T4", "float16", 65),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA L40S", "bfloat16", 362),
        ("NVIDIA L40", "bfloat16", None),
        ("NVIDIA A10", "bfloat16", 125),
        ("NVIDIA A10G", "bfloat16", None),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA GeForce RTX 3090 Ti", "bfloat16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16", None),
        ("TPU v4", "float32", 275),
        ("TPU v4 lite", "bfloat16", None),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v5", "bfloat16", 459),
        ("TPU v6 lite", "bfloat16", 918),
        ("cpu", "float32", None),
        ("NVIDIA H200", "float64", None),
    ],
)
def test_peaks(device_kind, dtype, tera):
    assert peak_flops(device_kind, dtype) == (None if tera is None else pytest.approx(tera * 1e12))
