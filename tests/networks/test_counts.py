"""Parameter counts against the published ones, by shape evaluation alone."""

import jax
import pytest

from genjax.networks import DiT, UNet, count, param_shapes
from genjax.networks.unet import PRESETS

ADM = dict(num_classes=1000, out_channels=6)  # class-conditional, with a learned variance
DIT = dict(num_classes=1000, out_channels=8)  # the same, on 4-channel latents


@pytest.mark.parametrize(
    ("network", "image_shape", "millions"),
    [
        # Ho et al. 2020, appendix B: "35.7 million parameters, and our LSUN and CelebA-HQ models have 114 million".
        (UNet(preset="ddpm_cifar10"), (32, 32, 3), "35.7"),
        (UNet(preset="ddpm_256"), (256, 256, 3), "114"),
        # Dhariwal & Nichol 2021, table 11: ImageNet 64, 128, 256, 512 and LSUN (unconditional).
        (UNet(preset="adm_imagenet64", **ADM), (64, 64, 3), "296"),
        (UNet(preset="adm_imagenet128", **ADM), (128, 128, 3), "422"),
        (UNet(preset="adm_imagenet256", **ADM), (256, 256, 3), "554"),
        (UNet(preset="adm_imagenet512", **ADM), (512, 512, 3), "559"),
        (UNet(preset="adm_imagenet256", out_channels=6), (256, 256, 3), "553"),
        # Peebles & Xie 2023, table 4.
        (DiT(size="S", patch_size=2, **DIT), (32, 32, 4), "33"),
        (DiT(size="B", patch_size=2, **DIT), (32, 32, 4), "130"),
        (DiT(size="L", patch_size=2, **DIT), (32, 32, 4), "458"),
        (DiT(size="XL", patch_size=2, **DIT), (32, 32, 4), "675"),
    ],
    ids=lambda value: (
        None if isinstance(value, str | tuple) else value.preset if hasattr(value, "preset") else value.size
    ),
)
def test_count_is_the_papers(network, image_shape, millions):
    digits = len(millions.partition(".")[2])
    assert f"{count(network, image_shape) / 1e6:.{digits}f}" == millions


def test_ddpm_cifar10_to_the_last_digit():
    # The authors' code, as counted in its PyTorch ports (google/ddpm-cifar10-32).
    assert count(UNet(preset="ddpm_cifar10"), (32, 32, 3)) == 35_746_307


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("ddpmpp", 61_804_419), ("ncsnpp", 62_758_787), ("ddpmpp_deep", 106_632_579), ("ncsnpp_deep", 107_586_947)],
)
def test_song_to_the_last_digit(preset, parameters):
    # The layers of score_sde_pytorch's models vp/cifar10_ddpmpp(_deep)_continuous and ve/cifar10_ncsnpp(_deep)_
    # continuous, added up by hand from its source; the 128 frequencies of NCSN++ are fixed there, and no weights here.
    assert count(UNet(preset=preset), (32, 32, 3)) == parameters


def test_adm_to_the_last_digit():
    # 256x256_diffusion_uncond.pt of the authors. Conditional networks have here one row of the class table more.
    assert count(UNet(preset="adm_imagenet256", out_channels=6), (256, 256, 3)) == 552_814_086


def test_dit_xl_2_to_the_last_digit():
    # The authors' code counts 675,129,632, of which 256 x 1152 are the fixed positions, no parameters here.
    assert count(DiT(size="XL", patch_size=2, **DIT), (32, 32, 4)) + 256 * 1152 == 675_129_632


def test_the_null_class_is_one_row():
    unconditional, conditional = UNet(), UNet(num_classes=10)
    rows = 11 * 4 * conditional.channels
    assert count(conditional, (32, 32, 3)) - count(unconditional, (32, 32, 3)) == rows


def test_counting_computes_nothing():
    shapes = param_shapes(UNet(), (16, 16, 1))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_the_images_that_its_name_says(preset):
    number = preset.lstrip("abcdefghijklmnopqrstuvwxyz_")
    side = int(number) if number not in ("", "10") else 32  # those of CIFAR-10 say no side
    UNet(preset=preset).check((side, side, 3))
