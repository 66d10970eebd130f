"""Guidance by something beside the null condition, added to another rule or to none.

With the inner rule's estimate D and the conditional one D_cond, each is D + weight (D_cond - D_other), or a gradient in
the place of the difference.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.parameterizations import ConditionalDenoiser
from genjax.processes import Process
from genjax.registry import register
from genjax.sampling.core import StatefulDenoiser
from genjax.sampling.guidance.base import Evaluate, Evaluated, Perturbed, Rule, conditional, wrap
from genjax.sampling.guidance.trained import LogProb, Trained, denoiser_of, log_prob_of
from genjax.solvers import Denoiser

DHARIWAL_2021 = bibtex("""
@inproceedings{dhariwal2021diffusion,
  title = {Diffusion Models Beat {GAN}s on Image Synthesis},
  author = {Dhariwal, Prafulla and Nichol, Alex},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021}
}""")
KARRAS_2024 = bibtex(
    """
    @inproceedings{karras2024guiding,
      title = {Guiding a Diffusion Model with a Bad Version of Itself},
      author = {Karras, Tero and Aittala, Miika and Kynk{\\"a}{\\"a}nniemi, Tuomas and Lehtinen, Jaakko and Aila, Timo
                and Laine, Samuli},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2024}
    }
    """
)
AHN_2024 = bibtex(
    """
    @inproceedings{ahn2024selfrectifying,
      title = {Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance},
      author = {Ahn, Donghoon and Cho, Hyoungwon and Min, Jaewon and Jang, Wooseok and Kim, Jungwoo and Kim, SeonHwa and
                Park, Hyun Hee and Jin, Kyong Hwan and Kim, Seungryong},
      booktitle = {European Conference on Computer Vision},
      year = {2024}
    }
    """
)


# In a config the run folder of another model, as in `weak=dict(workdir="runs/edm_small")`.
RUN = {"kind": "teacher", "implied": "run"}


@register("guidance", "classifier", reference=DHARIWAL_2021)
def classifier(
    denoise: ConditionalDenoiser,
    cond: Any,
    null_cond: Any,
    process: Process,
    times: Any = None,
    *,
    log_prob: Annotated[LogProb | Trained, RUN],
    guidance: Rule = conditional,
    scale: float | Array = 1.0,
) -> Denoiser | StatefulDenoiser:
    """Classifier guidance: D + scale sigma^2 / alpha grad log p(y | x_t) (Dhariwal & Nichol 2021, algorithm 2).

    That is the paper's eps - scale sigma grad log p(y | x_t), for every process. At alpha = 0, without any signal, the
    classifier has nothing to say and is left out.

    Args:
        denoise: the denoiser, conditional or not; one that ignores the condition is guided by the classifier alone.
        cond: the condition, a pytree of leading axis B.
        null_cond: the condition that stands for none, of the same structure.
        process: the process of the run.
        times: the times of the run [steps + 1], where the inner rule needs them.
        log_prob: `(x_t [B, ...], t [], cond) -> log p(cond | x_t) [B]`, of a classifier of noisy images; or a run of
            the family `classifier`, on any process, which in a config is `log_prob=dict(workdir="runs/classifier")`.
        guidance: the rule that the gradient is added to.
        scale: s of the paper, a number or an array []; 0 is none.

    Returns:
        A denoiser.

    Raises:
        ValueError: the run is not one of a classifier.
    """
    ask = log_prob_of(log_prob, process)

    def around(inner: Evaluate, x_t: Array, t: Array, memory: Any, also: Sequence[Any]) -> Evaluated:
        guided, predictions, memory = inner(x_t, t, memory, also)
        gradient = jax.grad(lambda x: jnp.sum(ask(x, t, cond)))(x_t).astype(x_t.dtype)
        time = jnp.asarray(t, x_t.dtype)
        alpha = process.alpha(time)
        weight = jnp.where(alpha > 0, process.sigma(time) ** 2 / jnp.where(alpha > 0, alpha, 1.0), 0.0)
        return guided + jnp.asarray(scale, x_t.dtype) * weight * gradient, predictions, memory

    return wrap(guidance, denoise, cond, null_cond, process, times, around)


@register("guidance", "autoguidance", reference=KARRAS_2024)
def autoguidance(
    denoise: ConditionalDenoiser,
    cond: Any,
    null_cond: Any,
    process: Process | None = None,
    times: Any = None,
    *,
    weak: Annotated[ConditionalDenoiser | Trained, RUN],
    guidance: Rule = conditional,
    scale: float | Array = 2.0,
) -> Denoiser | StatefulDenoiser:
    """Autoguidance, away from a weaker model: D + (scale - 1) (D_cond - D_weak) (Karras et al. 2024).

    Args:
        denoise: the conditional denoiser.
        cond: the condition, a pytree of leading axis B, or None.
        null_cond: the condition that stands for none, of the same structure.
        process: the process of the run, where the inner rule or `weak` needs it.
        times: the times of the run [steps + 1], where the inner rule needs them.
        weak: a conditional denoiser for the same task that does worse: smaller, or trained for less time; or a run of
            it, on any process, which in a config is `weak=dict(workdir="runs/edm_small")`.
        guidance: the rule that the difference is added to.
        scale: w of the paper, a number or an array []; 1 is none.

    Returns:
        A denoiser.

    Raises:
        ValueError: the run's family has no denoiser.
    """
    worse = denoiser_of(weak, process)

    def around(inner: Evaluate, x_t: Array, t: Array, memory: Any, also: Sequence[Any]) -> Evaluated:
        guided, predictions, memory = inner(x_t, t, memory, also)
        difference = predictions[0] - worse(x_t, t, cond).astype(x_t.dtype)
        return guided + (jnp.asarray(scale, x_t.dtype) - 1.0) * difference, predictions, memory

    return wrap(guidance, denoise, cond, null_cond, process, times, around)


@register("guidance", "perturbed_attention", reference=AHN_2024)
def perturbed_attention(
    denoise: ConditionalDenoiser,
    cond: Any,
    null_cond: Any,
    process: Process | None = None,
    times: Any = None,
    *,
    guidance: Rule = conditional,
    layers: tuple[str, ...] = ("middle_attention",),
    scale: float | Array = 3.0,
) -> Denoiser | StatefulDenoiser:
    """Perturbed-attention guidance: D + scale (D_cond - D_perturbed) (Ahn et al. 2024, sec. 4).

    D_perturbed has the identity in the place of the self-attention map of the named layers. It is asked for by the
    condition's entry "perturbed_attention", `{layer: [B] of truth values}`, so that it is evaluated in one batch with
    the others; the networks of `genjax.networks` raise ValueError where they have no such layer. It needs no
    condition.

    Args:
        denoise: the conditional denoiser, of a network that reads the entry.
        cond: the condition, a mapping of arrays of leading axis B, or None.
        null_cond: the condition that stands for none, of the same structure.
        process: the process of the run, where the inner rule needs it.
        times: the times of the run [steps + 1], where the inner rule needs them.
        guidance: the rule that the difference is added to.
        layers: names of the layers: of a U-Net such as "middle_attention" or "down_1_attention_0", of a DiT "block_3".
        scale: s of the paper, a number or an array []; 0 is none.

    Returns:
        A denoiser.

    Raises:
        ValueError: no layers, or a condition that is no mapping.
    """
    require(len(layers) > 0, "layers = (): name the layers whose attention is perturbed")
    require(
        all(c is None or isinstance(c, Mapping) for c in (cond, null_cond)),
        f"perturbed attention is asked for in the condition, which must be a mapping or None, not {type(cond)}",
    )

    def around(inner: Evaluate, x_t: Array, t: Array, memory: Any, also: Sequence[Any]) -> Evaluated:
        perturbed = Perturbed(cond, tuple(layers))
        guided, (conditioned, other, *rest), memory = inner(x_t, t, memory, (perturbed, *also))
        guided = guided + jnp.asarray(scale, x_t.dtype) * (conditioned - other)
        return guided, (conditioned, *rest), memory

    return wrap(guidance, denoise, cond, null_cond, process, times, around)
