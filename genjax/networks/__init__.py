"""Networks as Flax Linen modules: the only room that imports flax.linen.

Adding one: a file with a module registered as kind "network" that fulfils `Network` (or as another kind, with the
contract that its file states), and its import here.
"""

from genjax.networks.autoencoder import ConvDecoder, ConvEncoder, Decoder, Encoder, MLPDecoder, MLPEncoder
from genjax.networks.base import Condition, ImageShape, Network, count, param_shapes
from genjax.networks.classifier import NoisyClassifier, UNetEncoder
from genjax.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from genjax.networks.dit import DiT
from genjax.networks.edm2 import EDM2UNet
from genjax.networks.gan_resnet import ResNetDiscriminator, ResNetGenerator
from genjax.networks.hierarchical import VDVAE, Hierarchy
from genjax.networks.mlp import MLP
from genjax.networks.noise_schedule import MonotoneSchedule, NoiseSchedule
from genjax.networks.players import MLPDiscriminator, MLPGenerator
from genjax.networks.spatial import ResidualDecoder, ResidualEncoder
from genjax.networks.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from genjax.networks.translation import PatchDiscriminator, ResNetTranslator, Translator
from genjax.networks.uncertainty import FourierUncertainty, Uncertainty
from genjax.networks.unet import UNet

__all__ = [
    "MLP",
    "VDVAE",
    "Condition",
    "ConvDecoder",
    "ConvEncoder",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "Decoder",
    "DiT",
    "EDM2UNet",
    "Encoder",
    "FourierUncertainty",
    "Hierarchy",
    "ImageShape",
    "MLPDecoder",
    "MLPDiscriminator",
    "MLPEncoder",
    "MLPGenerator",
    "MonotoneSchedule",
    "Network",
    "NoiseSchedule",
    "NoisyClassifier",
    "PatchDiscriminator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "ResNetTranslator",
    "ResidualDecoder",
    "ResidualEncoder",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "Translator",
    "UNet",
    "Uncertainty",
    "UNetEncoder",
    "count",
    "param_shapes",
]
