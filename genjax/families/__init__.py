"""One file a model family: its phases and how it generates. No loop, no optimizer."""

from genjax.families.autoencoder import Autoencoder
from genjax.families.base import Aux, Batch, Extra, Family, Params, Phase, State
from genjax.families.classifier import Classifier
from genjax.families.consistency import ConsistencyModel
from genjax.families.cycle_gan import CycleGAN
from genjax.families.diffusion import Diffusion
from genjax.families.dmd import DMD
from genjax.families.flow_matching import FlowMatching
from genjax.families.gan import GAN
from genjax.families.guided_distillation import GuidedDistillation
from genjax.families.hierarchical_vae import HierarchicalVAE
from genjax.families.improved_diffusion import ImprovedDiffusion
from genjax.families.meanflow import MeanFlow
from genjax.families.normalizing_flow import NormalizingFlow
from genjax.families.progressive_distillation import ProgressiveDistillation
from genjax.families.sampler import Sampler
from genjax.families.scm import SCM
from genjax.families.score import ScoreModel
from genjax.families.shortcut import Shortcut
from genjax.families.stochastic_interpolant import StochasticInterpolant
from genjax.families.stylegan2 import StyleGAN2
from genjax.families.vae import VAE
from genjax.families.vdm import VDM
from genjax.families.vq_vae import VQVAE

__all__ = [
    "DMD",
    "GAN",
    "SCM",
    "VAE",
    "VDM",
    "VQVAE",
    "Autoencoder",
    "Aux",
    "Batch",
    "Classifier",
    "ConsistencyModel",
    "CycleGAN",
    "Diffusion",
    "Extra",
    "Family",
    "FlowMatching",
    "GuidedDistillation",
    "HierarchicalVAE",
    "ImprovedDiffusion",
    "MeanFlow",
    "NormalizingFlow",
    "Params",
    "Phase",
    "ProgressiveDistillation",
    "Sampler",
    "ScoreModel",
    "Shortcut",
    "State",
    "StochasticInterpolant",
    "StyleGAN2",
]
