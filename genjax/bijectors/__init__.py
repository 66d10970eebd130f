"""Invertible functions with a known Jacobian determinant, in plain functional JAX: the layers of normalizing flows.

Adding one: a file with a frozen dataclass registered as kind "bijector" that fulfils `Bijector`, and its import here.
"""

from genjax.bijectors.actnorm import ActNorm
from genjax.bijectors.amortized import forward_each, inverse_each, size, unflatten
from genjax.bijectors.base import Bijector, merge_fixed, split_fixed
from genjax.bijectors.compose import Chain, Repeat
from genjax.bijectors.coupling import AdditiveCoupling, AffineCoupling, SplineCoupling
from genjax.bijectors.invertible_1x1 import Invertible1x1
from genjax.bijectors.logit import Logit
from genjax.bijectors.multi_scale import MultiScale, Squeeze
from genjax.bijectors.planar import Planar
from genjax.bijectors.radial import Radial

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijector",
    "Chain",
    "Invertible1x1",
    "Logit",
    "MultiScale",
    "Planar",
    "Radial",
    "Repeat",
    "SplineCoupling",
    "Squeeze",
    "forward_each",
    "inverse_each",
    "merge_fixed",
    "size",
    "split_fixed",
    "unflatten",
]
