"""Layers of the GANs' networks against the tables of their papers, by shape evaluation alone."""

import jax
import numpy as np

from genjax.networks import DCGANDiscriminator, DCGANGenerator, ResNetDiscriminator, ResNetGenerator


def kernels(network, *shape):
    """Shapes of all kernels [k, k, in, out] or [in, out], by path."""
    shapes = jax.eval_shape(lambda key: network.init(key, np.zeros((1, *shape), np.float32)), jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(shapes["params"])
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
    return {path.removesuffix("/kernel"): shape for path, shape in named.items() if path.endswith("/kernel")}


def test_dcgan_of_radford_et_al_figure_1():
    """From 100 numbers to 4x4x1024, then 5 sizes up to 64x64; here with kernels of size 4, as in the authors' code."""
    assert kernels(DCGANGenerator((64, 64, 3)), 100) == {
        "in": (100, 4 * 4 * 1024),
        "up_1": (4, 4, 512, 1024),
        "up_2": (4, 4, 256, 512),
        "up_3": (4, 4, 128, 256),
        "out": (4, 4, 3, 128),
    }


def test_standard_cnns_of_miyato_et_al_table_3():
    """For 32x32 images: 4x4x512 in the generator's middle, and seven convolutions before the discriminator's logit."""
    assert list(kernels(DCGANGenerator((32, 32, 3), channels=64, smooth=True), 128).values()) == [
        (128, 4 * 4 * 512),
        (3, 3, 64, 3),
        (4, 4, 256, 512),
        (4, 4, 128, 256),
        (4, 4, 64, 128),
    ]
    assert kernels(DCGANDiscriminator(64, "spectral", interleaved=True), 32, 32, 3) == {
        "conv_0": (3, 3, 3, 64),
        "conv_1": (4, 4, 64, 64),
        "conv_2": (3, 3, 64, 128),
        "conv_3": (4, 4, 128, 128),
        "conv_4": (3, 3, 128, 256),
        "conv_5": (4, 4, 256, 256),
        "conv_6": (3, 3, 256, 512),
        "head/logit": (4 * 4 * 512, 1),
    }


def test_residual_networks_of_gulrajani_et_al_appendix_f():
    """Three blocks that double, two that halve and two that do not, all of 128 channels; projections around the former.

    Where a block keeps the size there is no projection, and of 8x8 pixels the mean goes to the logit.
    """
    block = {"conv_0": (3, 3, 128, 128), "conv_1": (3, 3, 128, 128)}
    projected = block | {"skip": (1, 1, 128, 128)}
    first = {"conv_0": (3, 3, 3, 128), "conv_1": (3, 3, 128, 128), "skip": (1, 1, 3, 128)}

    def table(blocks):
        return {f"block_{i}/{name}": shape for i, layers in enumerate(blocks) for name, shape in layers.items()}

    ends = {"in": (128, 4 * 4 * 128), "out": (3, 3, 128, 3)}
    assert kernels(ResNetGenerator((32, 32, 3)), 128) == ends | table([projected] * 3)
    expected = {"head/logit": (128, 1)} | table([first, projected, block, block])
    assert kernels(ResNetDiscriminator(), 32, 32, 3) == expected
