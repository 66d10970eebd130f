"""The straight path of flow matching."""

import dataclasses
import math
from typing import Any, ClassVar

from genjax.citation import bibtex
from genjax.config import require
from genjax.processes.base import GaussianPrior, exp, log, namespace
from genjax.registry import register

LIPMAN_2023 = bibtex(
    """
    @inproceedings{lipman2023flow,
      title = {Flow Matching for Generative Modeling},
      author = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and Le, Matthew},
      booktitle = {International Conference on Learning Representations},
      year = {2023}
    }
    """
)
LIU_2023 = bibtex(
    """
    @inproceedings{liu2023flow,
      title = {Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow},
      author = {Liu, Xingchao and Gong, Chengyue and Liu, Qiang},
      booktitle = {International Conference on Learning Representations},
      year = {2023}
    }
    """
)
ESSER_2024 = bibtex(
    """
    @inproceedings{esser2024scaling,
      title = {Scaling Rectified Flow Transformers for High-Resolution Image Synthesis},
      author = {Esser, Patrick and Kulal, Sumith and Blattmann, Andreas and Entezari, Rahim and M{\\"u}ller, Jonas and
                Saini, Harry and Levi, Yam and Lorenz, Dominik and Sauer, Axel and Boesel, Frederic and
                Podell, Dustin and Dockhorn, Tim and English, Zion and Rombach, Robin},
      booktitle = {International Conference on Machine Learning},
      year = {2024}
    }
    """
)


@register("process", "rectified_flow")
@dataclasses.dataclass(frozen=True)
class RectifiedFlow(GaussianPrior):
    """The straight path alpha = 1 - u, sigma = u, with u = shift t / (1 + (shift - 1) t) (Liu et al. 2023, eq. 1).

    The paper counts time from noise to data; here t = 0 is data.

    Attributes:
        shift: moves time towards noise for high resolutions (Esser et al. 2024, eq. 23); see `resolution_shift`.
        sigma_min: noise that is left at t = 0: sigma = u + sigma_min (1 - u) (Lipman et al. 2023, eq. 22).
    """

    shift: float = 1.0
    sigma_min: float = 0.0
    reference: ClassVar[str] = LIU_2023

    def __post_init__(self) -> None:
        require(self.shift > 0, f"shift = {self.shift}: must be positive")
        require(0.0 <= self.sigma_min < 1.0, f"sigma_min = {self.sigma_min}: must be in [0, 1)")

    def _denominator(self, t: Any) -> Any:
        return 1.0 + (self.shift - 1.0) * t

    def alpha(self, t: Any) -> Any:
        """Returns 1 - u."""
        return (1.0 - t) / self._denominator(t)

    def sigma(self, t: Any) -> Any:
        """Returns u + sigma_min (1 - u)."""
        return (self.shift * t + self.sigma_min * (1.0 - t)) / self._denominator(t)

    def log_snr(self, t: Any) -> Any:
        """Returns 2 log((1 - u) / (u + sigma_min (1 - u)))."""
        return 2.0 * (log(1.0 - t) - log(self.shift * t + self.sigma_min * (1.0 - t)))

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR, clipped to [0, 1]."""
        ratio = exp(0.5 * log_snr)  # alpha / sigma
        if not self.sigma_min:
            return 1.0 / (1.0 + self.shift * ratio)
        rest = namespace(ratio).maximum(1.0 - self.sigma_min * ratio, 0.0)
        return rest / (rest + self.shift * ratio)

    def d_alpha(self, t: Any) -> Any:
        """Returns -du/dt = -shift / (1 + (shift - 1) t)^2."""
        return -self.shift / self._denominator(t) ** 2 * namespace(t).ones_like(t)

    def d_sigma(self, t: Any) -> Any:
        """Returns (1 - sigma_min) du/dt."""
        return -(1.0 - self.sigma_min) * self.d_alpha(t)


def resolution_shift(pixels: int, reference: int) -> float:
    """Returns the shift at which images of another size have lost as much to noise (Esser et al. 2024, eq. 23).

    Args:
        pixels: of an image, or of its latents.
        reference: pixels of the images for which a shift of 1 is right; 256 x 256 in the paper, which measured that 3
            serves 1024 x 1024 better than the equation's 4.
    """
    require(pixels >= 1 and reference >= 1, f"pixels = {pixels}, reference = {reference}: must be at least 1")
    return math.sqrt(pixels / reference)


def flux_shift(tokens: int) -> float:
    """Returns FLUX.1-dev's shift: from e^0.5 at 256 tokens to e^1.15 at 4096, its logarithm linear in the tokens.

    Args:
        tokens: what the transformer attends to: (height / 16) (width / 16) pixels, 4096 at 1024 x 1024.
    """
    require(tokens >= 1, f"tokens = {tokens}: must be at least 1")
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))
