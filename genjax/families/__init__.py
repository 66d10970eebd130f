"""One file a model family: its phases and how it generates. No loop, no optimizer."""

from genjax.families.base import Aux, Batch, Extra, Family, Params, Phase, State
from genjax.families.diffusion import Diffusion
from genjax.families.flow_matching import FlowMatching
from genjax.families.sampler import Sampler

__all__ = ["Aux", "Batch", "Diffusion", "Extra", "Family", "FlowMatching", "Params", "Phase", "Sampler", "State"]
