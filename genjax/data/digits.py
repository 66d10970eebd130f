"""The TFDS builder `digits`: 1,797 real handwritten digits, 8 x 8 pixels, that come with scikit-learn.

Importing this module registers the builder, so that `tfds.load("digits")` finds it. Its features are tensors, because
TFDS writes `Image` features with TensorFlow.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from genjax import citation

REFERENCE = citation.bibtex("""
    @misc{alpaydin1998optical,
      author = {Alpaydin, E. and Kaynak, C.},
      title = {Optical Recognition of Handwritten Digits},
      year = {1998},
      howpublished = {UCI Machine Learning Repository},
      doi = {10.24432/C50P49}
    }""")

TEST_PER_CLASS = 36


def load_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's digits, in its order: images uint8 [1797, 8, 8, 1] and labels int32 [1797].

    The original values 0..16 become round(x * 255 / 16), halves upwards, in integer arithmetic.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    data = load_digits()
    original = data.images.astype(np.int32)
    return ((original * 255 + 8) // 16).astype(np.uint8)[..., None], data.target.astype(np.int32)


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the fixed split: `test`, 36 of each class at even distances in the file's order, and `train`, the rest.

    Even distances, because the file goes from writer to writer: both parts hold all of them.
    """
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        is_test[of_class[np.arange(TEST_PER_CLASS) * len(of_class) // TEST_PER_CLASS]] = True
    return {"train": np.flatnonzero(~is_test), "test": np.flatnonzero(is_test)}


class Digits(tfds.core.GeneratorBasedBuilder):
    """scikit-learn's handwritten digits: 1,437 for training, 360 for testing."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Handwritten digits, 8 x 8 pixels, the test part of the UCI optical digits as in scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            homepage="https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html",
            supervised_keys=("image", "label"),
            citation=citation.entry(REFERENCE),
            disable_shuffling=True,  # records in scikit-learn's order
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        images, labels = load_arrays()
        return {name: self._generate_examples(images, labels, i) for name, i in split_indices(labels).items()}

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in indices.tolist():
            yield i, {"image": images[i], "label": int(labels[i])}
