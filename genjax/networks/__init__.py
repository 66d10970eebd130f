"""Networks as Flax Linen modules: the only room that imports flax.linen.

Adding one: a file with a module registered as kind "network" that fulfils `Network`, and its import here.
"""

from genjax.networks.base import Condition, ImageShape, Network, count, param_shapes
from genjax.networks.dit import DiT
from genjax.networks.mlp import MLP
from genjax.networks.unet import UNet

__all__ = ["MLP", "Condition", "DiT", "ImageShape", "Network", "UNet", "count", "param_shapes"]
