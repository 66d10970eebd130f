"""What the tests of the data share."""

import pytest

from genjax.data import TFDS


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A TFDS data folder in which the digits are prepared."""
    path = str(tmp_path_factory.mktemp("tfds"))
    assert TFDS(data_dir=path).spec.size == 1437
    return path
