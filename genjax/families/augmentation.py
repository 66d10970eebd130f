"""Differentiable augmentation of what a discriminator sees, with a strength that adapts to overfitting (ADA).

Karras et al. 2020a, section 3 and appendix B. Every image that the discriminator is shown, real or generated, goes
through the same random transformations. As long as each is left out with a probability above 0, a generator that
matches the augmented distributions matches the plain ones, so that nothing of it leaks into the images.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from genjax.citation import bibtex
from genjax.config import nearest, require

KARRAS_2020A = bibtex("""
@inproceedings{karras2020training,
  title = {Training Generative Adversarial Networks with Limited Data},
  author = {Karras, Tero and Aittala, Miika and Hellsten, Janne and Laine, Samuli and Lehtinen, Jaakko and Aila, Timo},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}""")

BLIT = ("flip", "rotate90", "translate")
GEOMETRIC = ("scale", "rotate", "anisotropy", "shift")
COLOUR = ("brightness", "contrast", "luma_flip", "hue", "saturation")
CORRUPTION = ("noise", "cutout")
TRANSFORMS = (*BLIT, *GEOMETRIC, *COLOUR, *CORRUPTION)  # in the order in which they are applied

Strength = dict[str, Array]  # float32 []: "p", and of the images since p was last changed "signs" and "count"


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random transformations, each applied to an image with probability p, which training adapts.

    Where the sign of the discriminator's outputs on real images is positive too often, it overfits, and p grows; else
    it falls: `r_t = E[sign D(real)]`, towards 0.6 (section 3.2 of the paper).

    The geometric transformations of an image are one affine map, by bilinear interpolation of an image that is
    reflected at its border. The paper's code filters and samples at twice the size, which aliases less where the map
    shrinks. Its filters of frequency bands are not here.

    Attributes:
        transforms: names out of `TRANSFORMS`. The default is what the paper calls "bgc": blitting ("flip", "rotate90",
            "translate" by whole pixels), geometry ("scale", "rotate", "anisotropy", "shift" by fractions of pixels) and
            colour. Take none that would make of an image what the data do not have in other colours or places, such as
            flips of digits.
        p: probability at the start.
        target: of `r_t`; None leaves p as it is.
        speed: images in which p would go from 0 to 1.
        adjust_every: images after which p is changed.
        translate_max: largest translation, as a share of the size; uniform.
        scale_std: standard deviation of the logarithm to base 2 of the scale.
        rotate_max: largest angle, as a share of 180 degrees; uniform.
        anisotropy_std: as `scale_std`, of the width; that of the height is its inverse.
        shift_std: standard deviation of the shift, as a share of the size.
        brightness_std: standard deviation of what is added to images in [-1, 1].
        contrast_std: standard deviation of the logarithm to base 2 of the factor.
        hue_max: largest angle about the axis of greys, as a share of 180 degrees; uniform.
        saturation_std: standard deviation of the logarithm to base 2 of the factor.
        noise_std: the standard deviation of the noise is the absolute value of a normal number with this one.
        cutout_size: side of the square that becomes 0, as a share of the size.
    """

    transforms: tuple[str, ...] = (*BLIT, *GEOMETRIC, *COLOUR)
    p: float = 0.0
    target: float | None = 0.6
    speed: int = 500_000
    adjust_every: int = 256
    translate_max: float = 0.125
    scale_std: float = 0.2
    rotate_max: float = 1.0
    anisotropy_std: float = 0.2
    shift_std: float = 0.125
    brightness_std: float = 0.2
    contrast_std: float = 0.5
    hue_max: float = 1.0
    saturation_std: float = 1.0
    noise_std: float = 0.1
    cutout_size: float = 0.5
    reference: ClassVar[str] = KARRAS_2020A

    def __post_init__(self) -> None:
        for name in self.transforms:
            require(name in TRANSFORMS, f"transforms: {name!r}{nearest(str(name), TRANSFORMS)}")
        require(0 <= self.p <= 1, f"p = {self.p}: must be in [0, 1]")
        require(self.target is None or -1 < self.target < 1, f"target = {self.target}: must be None or in (-1, 1)")
        require(self.speed >= 1, f"speed = {self.speed}: must be at least 1")
        require(self.adjust_every >= 1, f"adjust_every = {self.adjust_every}: must be at least 1")
        for name in [field.name for field in dataclasses.fields(self) if field.name.endswith(("_std", "_max"))]:
            require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: must be at least 0")
        require(0 <= self.cutout_size <= 1, f"cutout_size = {self.cutout_size}: must be in [0, 1]")

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises ValueError where a transformation has no meaning for such images."""
        height, width, channels = image_shape
        for names, least in ((("hue", "saturation"), (3,)), (COLOUR, (1, 3))):
            found = [name for name in names if name in self.transforms]
            require(
                not found or channels in least,
                f"transforms: {', '.join(found)} are for images of {' or '.join(map(str, least))} channels, "
                f"not of {channels}",
            )
        require("rotate90" not in self.transforms or height == width, "transforms: rotate90 is for square images")

    def init(self) -> Strength:
        """Returns the strength before the first step."""
        return {"p": jnp.float32(self.p), "signs": jnp.float32(0.0), "count": jnp.float32(0.0)}

    def adapt(self, strength: Strength, logits: Array) -> Strength:
        """Returns the strength after the discriminator has seen real images.

        Every `adjust_every` images p moves by their number over `speed`, up where the mean sign is above the target.
        It stays in [0, 1].

        Args:
            strength: the strength that they were augmented with.
            logits: of real images [B].
        """
        signs, count = strength["signs"] + jnp.sign(logits).sum(), strength["count"] + len(logits)
        if self.target is None:
            return strength
        due = count >= self.adjust_every
        moved = strength["p"] + jnp.sign(signs / count - self.target) * count / self.speed
        return {
            "p": jnp.where(due, jnp.clip(moved, 0.0, 1.0), strength["p"]),
            "signs": jnp.where(due, 0.0, signs),
            "count": jnp.where(due, 0.0, count),
        }

    def __call__(self, keys: Array, images: Array, p: Array) -> Array:
        """Returns the images [B, H, W, C] transformed, each by its own key; at p = 0 they are what they were.

        Args:
            keys: one key an image [B].
            images: [B, H, W, C] in [-1, 1].
            p: probability of each transformation, float32 [].
        """
        return jax.vmap(lambda key, image: self._one(_Draws.of(key, p, self.transforms), image))(keys, images)

    def _one(self, draw: "_Draws", image: Array) -> Array:
        height, width, _ = image.shape
        if draw.any_of(*BLIT, *GEOMETRIC):
            image = warp(image, self._inverse(draw, jnp.array([width, height], jnp.float32)))
        if draw.any_of(*COLOUR):
            image = recolour(image, self._colour(draw))
        if draw.any_of("noise"):
            deviation = draw("noise", self.noise_std * jnp.abs(draw.normal("noise")), 0.0)
            image = image + deviation * jax.random.normal(draw.key, image.shape)
        if draw.any_of("cutout"):
            # In units of the image, which is 1 wide; no pixel lies within a hole of side 0.
            side, centre = draw("cutout", jnp.float32(self.cutout_size), 0.0), 0.5 + 0.5 * draw.uniform("cutout", 2)
            above, left = (jnp.abs((jnp.arange(n) + 0.5) / n - centre[i]) for i, n in enumerate((height, width)))
            image = image * (jnp.maximum(above[:, None], left[None, :]) >= side / 2)[:, :, None]
        return image

    def _inverse(self, draw: "_Draws", size: Array) -> Array:
        """The map [3, 3] from a pixel (x, y, 1) of the result to where it comes from, both about the centre."""
        quarter = jnp.floor(2.0 * (draw.uniform("rotate90") + 1.0))
        whole = jnp.round(size * self.translate_max * draw.uniform("translate", 2))
        scale = draw("scale", jnp.exp2(self.scale_std * draw.normal("scale")), 1.0)
        stretch = draw("anisotropy", jnp.exp2(self.anisotropy_std * draw.normal("anisotropy")), 1.0)
        angle = np.pi * self.rotate_max * draw.uniform("rotate", 2)
        # Two rotations, before and after the anisotropic scaling: one of them or both with probability p.
        either = 1.0 - jnp.sqrt(1.0 - draw.p)
        return _product(
            _scaling(jnp.where(draw.uniform("flip") < 0, draw("flip", -1.0, 1.0), 1.0), 1.0),
            _rotation(draw("rotate90", jnp.pi / 2 * quarter, 0.0)),
            _translation(-draw("translate", whole, 0.0)),
            _scaling(1.0 / scale, 1.0 / scale),
            _rotation(draw("rotate", angle[0], 0.0, p=either)),
            _scaling(1.0 / stretch, stretch),
            _rotation(draw("rotate", angle[1], 0.0, p=either, second=True)),
            _translation(-draw("shift", size * self.shift_std * draw.normal("shift", 2), 0.0)),
        )

    def _colour(self, draw: "_Draws") -> Array:
        """The map [4, 4] from a colour (r, g, b, 1) to that of the result."""
        brightness = draw("brightness", self.brightness_std * draw.normal("brightness"), 0.0)
        contrast = draw("contrast", jnp.exp2(self.contrast_std * draw.normal("contrast")), 1.0)
        mirrored = jnp.where(draw.uniform("luma_flip") < 0, draw("luma_flip", 1.0, 0.0), 0.0)
        angle = draw("hue", np.pi * self.hue_max * draw.uniform("hue"), 0.0)
        saturation = draw("saturation", jnp.exp2(self.saturation_std * draw.normal("saturation")), 1.0)
        return _product(
            _ALONG + saturation * _ACROSS + _ONE,
            _ALONG + jnp.cos(angle) * _ACROSS + jnp.sin(angle) * _TURNED + _ONE,
            (1.0 - 2.0 * mirrored) * _ALONG + _ACROSS + _ONE,
            contrast * (_ALONG + _ACROSS) + _ONE,
            np.eye(4, dtype=np.float32) + brightness * _OFFSET,
        )


# A colour (r, g, b, 1) is a part along the axis of greys, one across it, and the one; `_TURNED` is the second after a
# quarter turn about that axis.
_ONE = np.diag([0, 0, 0, 1]).astype(np.float32)
_ALONG = np.pad(np.full((3, 3), 1 / 3, np.float32), (0, 1))
_ACROSS = np.eye(4, dtype=np.float32) - _ALONG - _ONE
_TURNED = np.pad(np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32) / np.float32(np.sqrt(3)), (0, 1))
_OFFSET = np.outer([1, 1, 1, 0], [0, 0, 0, 1]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class _Draws:
    """All that one image draws: each transformation has its places in every table, whatever others are on.

    Attributes:
        key: for what else there is to draw.
        p: probability of a transformation, float32 [].
        transforms: those that are on.
        gates: uniform on [0, 1), [transforms, 2].
        uniforms: uniform on [-1, 1), likewise.
        normals: standard normal, likewise.
    """

    key: Array
    p: Array
    transforms: tuple[str, ...]
    gates: Array
    uniforms: Array
    normals: Array

    @classmethod
    def of(cls, key: Array, p: Array, transforms: tuple[str, ...]) -> "_Draws":
        tiny = float(jnp.finfo(jnp.float32).tiny)
        drawn = jax.random.uniform(key, (3, len(TRANSFORMS), 2), minval=tiny)
        normals = jax.scipy.special.ndtri(drawn[2])
        return cls(jax.random.fold_in(key, 1), p, transforms, drawn[0], 2.0 * drawn[1] - 1.0, normals)

    def any_of(self, *names: str) -> bool:
        return any(name in self.transforms for name in names)

    def uniform(self, name: str, n: int = 1) -> Array:
        """From [-1, 1): a number, or two [2]."""
        row = self.uniforms[TRANSFORMS.index(name)]
        return row if n == 2 else row[0]

    def normal(self, name: str, n: int = 1) -> Array:
        row = self.normals[TRANSFORMS.index(name)]
        return row if n == 2 else row[0]

    def __call__(
        self, name: str, value: Array | float, without: float, p: Array | None = None, second: bool = False
    ) -> Array:
        """The value with probability p, else what leaves the image as it is."""
        if name not in self.transforms:
            return jnp.full(jnp.shape(value), without)
        return jnp.where(self.gates[TRANSFORMS.index(name), int(second)] < (self.p if p is None else p), value, without)


def warp(image: Array, inverse: Array) -> Array:
    """Returns an image whose pixels come from elsewhere, by bilinear interpolation; it is reflected at its border.

    Args:
        image: [H, W, C].
        inverse: [3, 3] float32, from a pixel (x, y, 1) of the result to its place in the image, both in pixels from
            the centre.
    """
    height, width, channels = image.shape
    centre = jnp.array([(width - 1) / 2, (height - 1) / 2])[:, None]
    x, y = jnp.meshgrid(jnp.arange(width, dtype=jnp.float32), jnp.arange(height, dtype=jnp.float32))
    places = jnp.stack([x.ravel(), y.ravel()]) - centre
    places = jnp.matmul(inverse[:2, :2], places, precision="highest") + inverse[:2, 2:] + centre
    corner = jnp.floor(places)
    share = places - corner
    corner = corner.astype(jnp.int32)
    pixels, total = image.reshape(height * width, channels), jnp.zeros((height * width, channels), image.dtype)
    for right in (0, 1):
        for below in (0, 1):
            column, row = _reflected(corner[0] + right, width), _reflected(corner[1] + below, height)
            weight = (share[0] if right else 1.0 - share[0]) * (share[1] if below else 1.0 - share[1])
            total += weight[:, None] * pixels[row * width + column]
    return total.reshape(image.shape)


def recolour(image: Array, colour: Array) -> Array:
    """Returns an image [H, W, 3] whose pixels (r, g, b, 1) a matrix [4, 4] maps; [H, W, 1] by the mean of its rows."""
    if image.shape[2] == 1:
        row = colour[:3].mean(0)
        return image * row[:3].sum() + row[3]
    return jnp.matmul(image, colour[:3, :3].T, precision="highest") + colour[:3, 3][None, None]


def _reflected(index: Array, n: int) -> Array:
    """Where an index lies in a row of n that is mirrored about its first and its last element, again and again."""
    period = max(2 * (n - 1), 1)
    index = index % period
    return jnp.minimum(index, period - index) if n > 1 else jnp.zeros_like(index)


def _product(*matrices: ArrayLike) -> Array:
    return functools.reduce(functools.partial(jnp.matmul, precision="highest"), map(jnp.asarray, matrices))


def _scaling(x: Array | float, y: Array | float) -> Array:
    return jnp.diag(jnp.stack([jnp.asarray(x), jnp.asarray(y), jnp.float32(1.0)]))


def _rotation(angle: Array) -> Array:
    c, s, o = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle)
    return jnp.stack([jnp.stack([c, -s, o]), jnp.stack([s, c, o]), jnp.array([0.0, 0.0, 1.0])])


def _translation(offset: Array) -> Array:
    return jnp.eye(3).at[:2, 2].set(offset)
