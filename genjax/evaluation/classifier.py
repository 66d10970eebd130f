"""The small convolutional classifier behind the `digits_classifier` features: plain JAX functions on a dict of arrays.

It is made for small images with labels (8x8 grey digits first of all) and trains within seconds on two CPU cores.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

Params = dict[str, dict[str, Array]]

_SMALLEST_SIDE = 4  # convolutions halve the image while its shorter side is above this


def init(seed: int, image_shape: tuple[int, ...], num_classes: int, width: int, features: int) -> Params:
    """Returns initial parameters (He et al. 2015), float32; drawn by NumPy, which spares half of the compilation.

    Args:
        seed: of the weights.
        image_shape: (H, W, C) of the images.
        num_classes: number of logits.
        width: channels of the first convolution; each halving of the image doubles them.
        features: size of the last hidden layer.
    """
    height, breadth, channels = image_shape
    shapes: dict[str, tuple[int, ...]] = {"conv0": (3, 3, channels, width)}
    while min(height, breadth) > _SMALLEST_SIDE:
        height, breadth = math.ceil(height / 2), math.ceil(breadth / 2)
        shapes[f"conv{len(shapes)}"] = (3, 3, width, 2 * width)
        width *= 2
    shapes["features"] = (height * breadth * width, features)
    shapes["logits"] = (features, num_classes)
    rng = np.random.default_rng(seed)
    return {
        name: {
            "w": jnp.asarray(rng.normal(0, math.sqrt(2 / math.prod(shape[:-1])), shape), jnp.float32),
            "b": jnp.zeros(shape[-1]),
        }
        for name, shape in shapes.items()
    }


def apply(params: Params, images: Array) -> tuple[Array, Array]:
    """Returns the features [B, D] (the last hidden layer) and the logits [B, K] of images [B, H, W, C] in [-1, 1]."""
    x = images
    for index in range(len(params) - 2):
        layer = params[f"conv{index}"]
        stride = 1 if index == 0 else 2
        x = jax.lax.conv_general_dilated(
            x, layer["w"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.silu(x + layer["b"][None, None, None])
    hidden = params["features"]
    x = jax.nn.silu(x.reshape(len(x), -1) @ hidden["w"] + hidden["b"][None])
    return x, x @ params["logits"]["w"] + params["logits"]["b"][None]


def normalize(images: Array) -> Array:
    """Maps uint8 images to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def augment(key: Array, images: Array, shift: int, noise: float) -> Array:
    """Moves every image [B, H, W, C] by up to `shift` pixels each way and adds Gaussian noise of that deviation.

    The rim that comes into view is filled by the image's own edge, so that no background colour is assumed.
    """
    key_shift, key_noise = jax.random.split(key)
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    starts = jax.random.randint(key_shift, (len(images), 2), 0, 2 * shift + 1)
    moved = jax.vmap(lambda image, yx: jax.lax.dynamic_slice(image, (yx[0], yx[1], 0), images.shape[1:]))
    return moved(padded, starts) + noise * jax.random.normal(key_noise, images.shape)


@functools.partial(jax.jit, static_argnames=("steps", "batch_size", "rate", "shift", "noise"))
def train(
    params: Params,
    key: Array,
    images: Array,
    labels: Array,
    *,
    steps: int,
    batch_size: int,
    rate: float,
    shift: int,
    noise: float,
) -> Params:
    """Trains parameters on uint8 images [N, H, W, C] and int labels [N]: one compiled scan over the steps.

    AdamW with a cosine rate, cross-entropy with labels smoothed by 0.1, batches drawn with replacement and augmented.
    """
    num_classes = len(params["logits"]["b"])
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, rate, steps // 20, steps), weight_decay=1e-2)

    def loss(params: Params, x: Array, y: Array) -> Array:
        targets = optax.smooth_labels(jax.nn.one_hot(y, num_classes), 0.1)
        return optax.softmax_cross_entropy(apply(params, x)[1], targets).mean()

    def step(carry: tuple[Params, optax.OptState], index: Array) -> tuple[tuple[Params, optax.OptState], None]:
        params, opt_state = carry
        key_batch, key_augment = jax.random.split(jax.random.fold_in(key, index))
        rows = jax.random.randint(key_batch, (batch_size,), 0, len(images))
        x = augment(key_augment, normalize(images[rows]), shift, noise)
        updates, opt_state = optimizer.update(jax.grad(loss)(params, x, labels[rows]), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return params


_forward = jax.jit(lambda params, images: apply(params, normalize(images)))


def forward(params: Params, images: np.ndarray, chunk: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Returns features [N, D] and logits [N, K] in float64 of uint8 images [N, H, W, C].

    The images go through in chunks of one size, the last one padded, so that any N costs one compilation.
    """
    outputs = []
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk]
        padding = [(0, chunk - len(part))] + [(0, 0)] * (images.ndim - 1)
        outputs.append([np.asarray(y, np.float64)[: len(part)] for y in _forward(params, np.pad(part, padding))])
    features, logits = zip(*outputs, strict=True)
    return np.concatenate(features), np.concatenate(logits)
