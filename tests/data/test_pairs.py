"""Pairs of images and noise on the disk: what is written comes back, and what is damaged is named."""

import itertools
import json
import shutil

import numpy as np
import pytest

from genjax.data import DataError, DataSpec, Pairs
from genjax.data.pairs import write_pairs

SPEC = DataSpec((2, 3, 1), 4, 7, ("a", "b", "c", "d"), levels=256)


def drawn(spec, batch=3):
    """Batches, of which the last is longer than needed."""
    rng = np.random.default_rng(0)
    while True:
        yield tuple(rng.normal(size=(batch, *spec.image_shape)).astype(np.float32) for _ in range(2))


@pytest.fixture
def folder(tmp_path):
    write_pairs(tmp_path / "pairs", SPEC, drawn(SPEC), np.arange(7) % 4, {"seed": 3})
    return tmp_path / "pairs"


def test_what_is_written_comes_back(folder):
    source = Pairs(str(folder))
    assert source.spec == SPEC and not source.flip
    batch = source.gather(np.array([6, 0, 6]))
    written = list(itertools.islice(drawn(SPEC), 3))
    expected = [np.concatenate([part[i] for part in written])[:7] for i in range(2)]
    np.testing.assert_array_equal(batch["image"], expected[0][[6, 0, 6]])
    np.testing.assert_array_equal(batch["noise"], expected[1][[6, 0, 6]])
    np.testing.assert_array_equal(batch["label"], [2, 0, 2])
    assert [array.dtype for array in batch.values()] == [np.float32, np.float32, np.int32]
    assert type(batch["image"]) is np.ndarray or batch["image"].flags.owndata  # a copy, not the file
    assert json.loads((folder / "pairs.json").read_text())["about"] == {"seed": 3}


def test_without_labels(tmp_path):
    spec = DataSpec((1, 1, 2), None, 4, levels=None)
    write_pairs(tmp_path, spec, drawn(spec), None, {})
    assert Pairs(str(tmp_path)).spec == spec and set(Pairs(str(tmp_path)).gather(np.arange(2))) == {"image", "noise"}


def test_pairs_are_not_written_over(folder):
    with pytest.raises(DataError, match="holds pairs already"):
        write_pairs(folder, SPEC, drawn(SPEC), None, {})


@pytest.mark.parametrize(
    "harm, words",
    [
        (lambda root: (root / "pairs.json").unlink(), "genjax pairs"),
        (lambda root: shutil.rmtree(root), "genjax pairs"),
        (lambda root: (root / "pairs.json").write_text("{"), "damaged"),
        (lambda root: (root / "pairs.json").write_text("{}"), "damaged"),
        (lambda root: (root / "pairs.json").write_text('{"format": 2}'), "format 2"),
        (lambda root: (root / "noise.npy").write_bytes(b"\x00" * 50), "cannot read"),
        (lambda root: np.save(root / "noise.npy", np.zeros((7, 2, 3, 1))), "float64"),
        (lambda root: np.save(root / "image.npy", np.zeros((6, 2, 3, 1), np.float32)), r"\(6, 2, 3, 1\)"),
        (lambda root: np.save(root / "label.npy", np.array([None] * 7)), "cannot read"),  # would be a pickle
    ],
)
def test_damage_is_named(folder, harm, words):
    harm(folder)
    with pytest.raises(DataError, match=words):
        _ = Pairs(str(folder)).spec
