import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits() -> dict[str, np.ndarray]:
    """Real digits: of each class every fifth image is for testing, the rest for training."""
    data = load_digits()
    images = np.floor(data.images * 255 / 16 + 0.5).astype(np.uint8)[..., None]
    is_test = np.zeros(len(images), bool)
    for label in range(10):
        is_test[np.flatnonzero(data.target == label)[::5]] = True
    return {
        "train": images[~is_test],
        "train_labels": data.target[~is_test],
        "test": images[is_test],
        "test_labels": data.target[is_test],
    }
