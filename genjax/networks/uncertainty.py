"""How well a loss can be met at each noise level, learnt beside the network: for uncertainty weighting.

A module of kind "uncertainty" is hashable, has its parameters in float32, and fulfils `Uncertainty`.
"""

from typing import Any, Protocol

import flax.linen as nn
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks.embeddings import fourier
from genjax.registry import register

KARRAS_2024 = bibtex("""
@inproceedings{karras2024analyzing,
  title = {Analyzing and Improving the Training Dynamics of Diffusion Models},
  author = {Karras, Tero and Aittala, Miika and Lehtinen, Jaakko and Hellsten, Janne and Aila, Timo and Laine, Samuli},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2024}
}""")


class Uncertainty(Protocol):
    """The contract of a learnt log-variance of a loss.

    `init(key, noise)["params"]` gives the parameters, and `apply({"params": params}, noise)` the log-variance [B]
    float32; `noise` is log(sigma / alpha) / 4, [B] float32, bounded at 5 on either side.
    """

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns `{"params": ...}`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the log-variance [B] float32."""
        ...


@register("uncertainty", "fourier", reference=KARRAS_2024)
class FourierUncertainty(nn.Module):
    """A linear layer on Fourier features of the noise level (Karras et al. 2024, section 2.2 and appendix B.1).

    It begins at 0, which weights nothing.

    Attributes:
        features: number of features, even; 128 in the paper's code.
        scale: standard deviation of their frequencies.
    """

    features: int = 128
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(
            self.features >= 2 and self.features % 2 == 0,
            f"features = {self.features}: must be an even number, at least 2",
        )
        require(self.scale > 0, f"scale = {self.scale}: must be positive")
        super().__post_init__()

    @nn.compact
    def __call__(self, noise: Array) -> Array:
        """Maps noise levels [B] to log-variances [B] float32."""
        waves = fourier(noise, self.features, scale=self.scale)
        return nn.Dense(1, kernel_init=nn.initializers.zeros, name="out")(waves)[:, 0]
