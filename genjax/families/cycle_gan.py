"""CycleGAN: translation between two domains of images of which none are paired."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import component, require
from genjax.families import image_buffer
from genjax.families.adversarial import AdversarialLoss, LeastSquares
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State
from genjax.registry import register
from genjax.sampling.keys import sample_keys

ZHU_2017 = bibtex("""
@inproceedings{zhu2017unpaired,
  title = {Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks},
  author = {Zhu, Jun-Yan and Park, Taesung and Isola, Phillip and Efros, Alexei A.},
  booktitle = {IEEE International Conference on Computer Vision},
  year = {2017}
}""")

GENERATORS, DISCRIMINATORS = "generators", "discriminators"  # roles
BUFFERS, SOURCES = "buffers", "sources"  # in `extra`
SHOWN = 8  # columns of a sheet of pictures
_WAYS = (("a", "b"), ("b", "a"))
_IMAGES = {"a": "image", "b": "image_b"}  # of a batch


@register("family", "cycle_gan")
@dataclasses.dataclass(frozen=True)
class CycleGAN:
    """Two translators, one back from the other, and a discriminator for each domain (Zhu et al. 2017).

    It takes a batch with `image` of domain A and `image_b` of domain B, such as that of the source `unpaired`. The role
    "generators" has the translators "ab" and "ba", the role "discriminators" has "a" and "b"; each role is trained as a
    whole, the generators first. The discriminators see translations of the generators as they are after that, where
    the published code shows them those from before.

    A translator needs something to translate, but generating has no data: the family keeps the first images of domain
    B that training sees, and generates by translating a random one of them, its choice by the sample's key, to domain
    A, which is the one that the data's description is of.

    Attributes:
        image_shape: (H, W, C) of both domains.
        translator: network of both directions.
        discriminator: network of both discriminators; it may give a logit for each patch.
        loss: the adversarial loss.
        adversarial: its weight in the generators' objective; 2 makes `least_squares`, which has a factor 1/2, that of
            the paper, to which the other weights are relative.
        cycle: weight of the cycle-consistency loss, the paper's lambda.
        identity: weight of the identity loss, which asks a translator to leave images of its own target as they are;
            0 leaves it out (section 5.2: half of `cycle`, for paintings; the published code has that for all).
        buffer: how many generated images a discriminator's history has; 0 for none.
        sources: how many images of domain B are kept for generation.
    """

    image_shape: tuple[int, int, int]
    translator: Any = component("translator")
    discriminator: Any = component("discriminator")
    loss: AdversarialLoss = component("adversarial_loss", LeastSquares())
    adversarial: float = 2.0
    cycle: float = 10.0
    identity: float = 5.0
    buffer: int = 50
    sources: int = 64
    condition: ClassVar[tuple[str, ...]] = ()
    reference: ClassVar[str] = ZHU_2017

    def __post_init__(self) -> None:
        for name in ("adversarial", "cycle", "identity", "buffer"):
            require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: must be at least 0")
        require(self.sources >= 1, f"sources = {self.sources}: must be at least 1")
        self.translator.check(self.image_shape)
        self.discriminator.check(self.image_shape)

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        require(spec.second is not None, "the data are of one source, where two are needed: see the data `unpaired`")
        assert spec.second is not None
        for name, there in {"first": spec.image_shape, "second": spec.second.image_shape}.items():
            require(
                tuple(there) == tuple(self.image_shape),
                f"image_shape = {self.image_shape}, but the data's {name} source has {tuple(there)}",
            )

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the roles "generators" and "discriminators", and empty buffers."""
        keys, x = jax.random.split(key, 4), jnp.zeros((1, *self.image_shape))
        params = {
            GENERATORS: {
                "ab": self.translator.init(keys[0], x)["params"],
                "ba": self.translator.init(keys[1], x)["params"],
            },
            DISCRIMINATORS: {
                "a": self.discriminator.init(keys[2], x)["params"],
                "b": self.discriminator.init(keys[3], x)["params"],
            },
        }
        buffers = {domain: image_buffer.empty(self.buffer, self.image_shape) for domain in ("a", "b")}
        extra = {SOURCES: image_buffer.empty(self.sources, self.image_shape)}
        return params, extra | ({BUFFERS: buffers} if self.buffer else {})

    def phases(self) -> tuple[Phase, ...]:
        """Returns the phase of both generators and that of both discriminators."""
        return (
            Phase("generators", GENERATORS, self._generators_loss),
            Phase("discriminators", DISCRIMINATORS, self._discriminators_loss),
        )

    def translate(self, generators: Params, images: Array, way: str) -> Array:
        """Returns images [B, H, W, C] in [-1, 1] of the other domain; the way is "ab" or "ba"."""
        return self.translator.apply({"params": generators[way]}, images)

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: Any = None) -> Array:
        """Returns n images [n, H, W, C] of domain A: translations of random ones of the kept images of domain B."""
        kept = params[SOURCES]
        choose = jax.vmap(lambda key: jax.random.randint(key, (), 0, jnp.maximum(kept["count"], 1)))
        return self.translate(params[GENERATORS], kept["images"][choose(sample_keys(key, n))], "ba")

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns `cycle`, the mean absolute error of both ways there and back, and `loss`, the generators' objective.

        Both are per example [B]. Errors are in units of [-1, 1], averaged over pixels; `cycle_a` and `cycle_b` are
        those of each domain.
        """
        objective, terms = self._objective(params[GENERATORS], params[DISCRIMINATORS], batch)
        errors = {name: terms[name] for name in ("cycle_a", "cycle_b")}
        return {"loss": objective, "cycle": 0.5 * (errors["cycle_a"] + errors["cycle_b"]), **errors}

    def pictures(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the sheet "translations" [6, columns, H, W, C]: A, A to B, and back; B, B to A, and back."""
        rows = []
        for own, other in _WAYS:
            images = batch[_IMAGES[own]][:SHOWN]
            translated = self.translate(params[GENERATORS], images, own + other)
            rows += [images, translated, self.translate(params[GENERATORS], translated, other + own)]
        return {"translations": jnp.stack(rows)}

    def _judge(self, discriminators: Params, images: Array, domain: str) -> Array:
        return self.discriminator.apply({"params": discriminators[domain]}, images)

    def _objective(self, generators: Params, discriminators: Params, batch: Batch) -> tuple[Array, dict[str, Array]]:
        """What the generators minimize and its terms without their weights, each [B]; Zhu et al. 2017, eq. 3."""
        require("image_b" in batch, "the held-out data are of one source, where two are needed: see `unpaired`")
        terms: dict[str, Array] = {}
        total = jnp.zeros((len(batch["image"]),))
        for own, other in _WAYS:
            real, target = batch[_IMAGES[own]], batch[_IMAGES[other]]
            translated = self.translate(generators, real, own + other)
            back = self.translate(generators, translated, other + own)
            judged = self._judge(discriminators, target, other), self._judge(discriminators, translated, other)
            terms[f"adversarial_{other}"] = _mean(self.loss.generator(*judged))
            terms[f"cycle_{own}"] = _mean(jnp.abs(back - real))
            total = total + self.adversarial * terms[f"adversarial_{other}"] + self.cycle * terms[f"cycle_{own}"]
            if self.identity:
                kept = self.translate(generators, target, own + other)
                terms[f"identity_{other}"] = _mean(jnp.abs(kept - target))
                total = total + self.identity * terms[f"identity_{other}"]
        return total, terms

    def _generators_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        objective, terms = self._objective(params, state.params[DISCRIMINATORS], batch)
        return objective.mean(), Aux({name: value.mean() for name, value in terms.items()})

    def _discriminators_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        generators, buffers = state.params[GENERATORS], dict(state.extra.get(BUFFERS, {}))
        total, metrics = jnp.zeros(()), dict[str, Array]()
        for (own, other), drawn in zip(_WAYS, keys.split(2), strict=True):
            real = batch[_IMAGES[own]]
            fake = self.translate(generators, batch[_IMAGES[other]], other + own)
            if self.buffer:
                fake, buffers[own] = image_buffer.exchange(buffers[own], fake, drawn.each)
            judged = self._judge(params, real, own), self._judge(params, fake, own)
            total = total + _mean(self.loss.discriminator(*judged)).mean()
            metrics |= {f"real_{own}": judged[0].mean(), f"fake_{own}": judged[1].mean()}
        extra = {**state.extra, SOURCES: image_buffer.fill(state.extra[SOURCES], batch["image_b"])}
        return total, Aux(metrics, extra | ({BUFFERS: buffers} if self.buffer else {}))


def _mean(values: Array) -> Array:
    """The mean of what belongs to each example [B, ...], [B]."""
    return values.reshape(len(values), -1).mean(1)
