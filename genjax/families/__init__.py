"""One file a model family: its phases and how it generates. No loop, no optimizer."""

from genjax.families.autoencoder import Autoencoder
from genjax.families.base import Aux, Batch, Extra, Family, Params, Phase, State
from genjax.families.cycle_gan import CycleGAN
from genjax.families.diffusion import Diffusion
from genjax.families.dmd import DMD
from genjax.families.flow_matching import FlowMatching
from genjax.families.gan import GAN
from genjax.families.hierarchical_vae import HierarchicalVAE
from genjax.families.normalizing_flow import NormalizingFlow
from genjax.families.progressive_distillation import ProgressiveDistillation
from genjax.families.sampler import Sampler
from genjax.families.score import ScoreModel
from genjax.families.stylegan2 import StyleGAN2
from genjax.families.vae import VAE
from genjax.families.vq_vae import VQVAE

__all__ = [
    "DMD",
    "GAN",
    "VAE",
    "VQVAE",
    "Autoencoder",
    "Aux",
    "Batch",
    "CycleGAN",
    "Diffusion",
    "Extra",
    "Family",
    "FlowMatching",
    "HierarchicalVAE",
    "NormalizingFlow",
    "Params",
    "Phase",
    "ProgressiveDistillation",
    "Sampler",
    "ScoreModel",
    "State",
    "StyleGAN2",
]
