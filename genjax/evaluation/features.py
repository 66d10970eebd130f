"""Feature networks: from uint8 images to the vectors in which distances are taken.

The registered component is called with the training split and returns the network, trained or read from the cache:

    network = build("feature_network", {"name": "digits_classifier"})(images, labels)
    network.features(other_images)

The cache is the folder `GENJAX_CACHE`, else `genjax` in `XDG_CACHE_HOME`, else `~/.cache/genjax`.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import logging
import os
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from genjax.config import require
from genjax.evaluation import classifier
from genjax.interop import weights
from genjax.registry import register

_log = logging.getLogger(__name__)


class FeatureNetwork(Protocol):
    """What a distance needs of a network."""

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 of the weights, in hexadecimal; two figures compare only where it is the same."""
        ...

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns the features [N, D] in float64 of uint8 images [N, H, W, C]."""
        ...

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the class logits [N, K] in float64 of uint8 images [N, H, W, C]."""
        ...


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier, as a feature network."""

    name: str
    image_shape: tuple[int, int, int]
    params: classifier.Params = dataclasses.field(repr=False)
    hash: str

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns the last hidden layer [N, D] in float64 of uint8 images [N, H, W, C].

        Raises:
            ValueError: the images are not uint8, or not of the shape that the network was trained on.
        """
        return self._forward(images)[0]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits [N, K] in float64 of uint8 images [N, H, W, C].

        Raises:
            ValueError: the images are not uint8, or not of the shape that the network was trained on.
        """
        return self._forward(images)[1]

    def _forward(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = _checked(images)
        require(
            images.shape[1:] == self.image_shape,
            f"images of shape {images.shape[1:]}: {self.name} was trained on {self.image_shape}",
        )
        with _on_cpu():
            return classifier.forward(self.params, images)


@register("feature_network", "digits_classifier")
@dataclasses.dataclass(frozen=True)
class DigitsClassifier:
    """A small convolutional classifier trained on the data's own training split, within seconds.

    Its features say nothing across data sets and are not those of any published figure. Training is deterministic for
    one machine, number of cores and jax version (elsewhere the weights differ by rounding, and their hash says so). It
    runs on the CPU, with shifted and noisy copies of the images, so that the features hardly see the difference between
    what the network was trained on and what it was not.

    Attributes:
        features: number of features.
        width: channels of the first convolution.
        steps: training steps.
        batch_size: images a step.
        rate: peak learning rate of AdamW.
        shift: images are moved by up to this many pixels each way.
        noise: standard deviation of the noise added to images in [-1, 1].
        seed: of the initial weights, the batches and the augmentation.
    """

    features: int = 64
    width: int = 16
    steps: int = 600
    batch_size: int = 64
    rate: float = 4e-3
    shift: int = 1
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("features", "width", "steps", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: must be at least 1")
        require(self.rate > 0, f"rate = {self.rate}: must be positive")
        require(self.shift >= 0, f"shift = {self.shift}: must not be negative")
        require(self.noise >= 0, f"noise = {self.noise}: must not be negative")

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> Classifier:
        """Returns the classifier of a training split, from the cache where it has been trained before.

        Args:
            images: uint8 [N, H, W, C].
            labels: integers [N], from 0.

        Raises:
            ValueError: images or labels of another kind or shape.
        """
        images, labels = _checked(images), np.asarray(labels)
        require(len(images) > 0, "images: the training split is empty")
        require(
            labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer) and labels.min() >= 0,
            f"labels: {labels.dtype} {labels.shape}; integers from 0 are needed, one for each of {len(images)} images",
        )
        labels = labels.astype(np.int32)
        path = cache_folder() / "feature_networks" / f"digits_classifier-{self._key(images, labels)}.safetensors"
        tensors = _load(path)
        if tensors is None:
            tensors = self._train(images, labels)
            _save(path, tensors)
        params: dict[str, dict[str, Any]] = {}
        with _on_cpu():
            for name, value in tensors.items():
                layer, leaf = name.split(".")
                params.setdefault(layer, {})[leaf] = jax.numpy.asarray(value)
        return Classifier("digits_classifier", images.shape[1:], params, weights.weights_hash(tensors))

    def _train(self, images: np.ndarray, labels: np.ndarray) -> weights.Tensors:
        """Trains on the CPU wherever there is one, because GPUs sum in another order from run to run."""
        num_classes = int(labels.max()) + 1
        with _on_cpu():
            params = classifier.train(
                classifier.init(self.seed, images.shape[1:], num_classes, self.width, self.features),
                jax.random.key(self.seed),
                images,
                labels,
                steps=self.steps,
                batch_size=self.batch_size,
                rate=self.rate,
                shift=self.shift,
                noise=self.noise,
            )
        return {f"{layer}.{leaf}": np.asarray(x) for layer, leaves in params.items() for leaf, x in leaves.items()}

    def _key(self, images: np.ndarray, labels: np.ndarray) -> str:
        """Returns the hash of all that the weights depend on: data, settings, training code and jax version."""
        digest = hashlib.sha256()
        settings = json.dumps(dataclasses.asdict(self), sort_keys=True)
        for text in (settings, str(images.shape), jax.__version__, inspect.getsource(classifier)):
            digest.update(text.encode() + b"\0")
        digest.update(np.ascontiguousarray(images).data)
        digest.update(labels.data)
        return digest.hexdigest()[:32]


def cache_folder() -> Path:
    """Returns the folder of what can be computed again: `GENJAX_CACHE`, `XDG_CACHE_HOME/genjax`, `~/.cache/genjax`."""
    if own := os.environ.get("GENJAX_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "genjax"


def _checked(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    require(
        images.dtype == np.uint8 and images.ndim == 4,
        f"images: {images.dtype} {images.shape}; uint8 [N, H, W, C] is needed",
    )
    return images


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Runs what is inside on the CPU; on the default device where the CPU backend was left out (`JAX_PLATFORMS`)."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def _load(path: Path) -> weights.Tensors | None:
    """Reads cached weights; None where there are none or they are not what was written."""
    if not path.exists():
        return None
    try:
        return weights.read(path)[0]
    except weights.WeightsError as error:
        _log.warning("%s; training again", error)
        return None


def _save(path: Path, tensors: weights.Tensors) -> None:
    """Writes weights for the next time; a folder that is read-only is no error."""
    try:
        weights.write(path, tensors)
    except OSError as error:
        _log.warning("the feature network could not be cached in %s: %s", path, error)
