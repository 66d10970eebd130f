"""The builder that ships with the project: scikit-learn's digits, unchanged, in a fixed split, without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from genjax.data import TFDS, DataError, digits

PROGRAM = """
import sys
import genjax.data
slow = {"jax", "tensorflow_datasets", "grain", "sklearn"} & set(sys.modules)
assert not slow, f"importing genjax.data imports {slow}"
from genjax.data import TFDS, loader
source = TFDS(data_dir=sys.argv[1])
stream = loader.batches(source, seed=0, batch_size=8)
batch = next(stream)
assert batch["image"].shape == (8, 8, 8, 1), batch["image"].shape
assert TFDS(dataset="cifar10", mock=True).spec.num_classes == 10
assert "tensorflow" not in sys.modules
print(source.spec.size)
"""


@pytest.fixture(scope="module")
def splits(digits_dir):
    whole = {}
    for name in ("train", "test"):
        source = TFDS(split=name, data_dir=digits_dir)
        whole[name] = source.gather(np.arange(source.spec.size))
    return whole


def test_content_is_that_of_scikit_learn(splits):
    data = load_digits()
    expected = {}
    for image, label in zip(np.floor(data.images * 255 / 16 + 0.5), data.target, strict=True):
        expected.setdefault((image.astype(np.uint8).tobytes(), int(label)), []).append(1)
    found = [
        (image.tobytes(), int(label))
        for part in splits.values()
        for image, label in zip(part["image"], part["label"], strict=True)
    ]
    assert len(found) == 1797
    assert sorted(found) == sorted(key for key, times in expected.items() for _ in times)
    assert splits["train"]["image"].dtype == np.uint8 and splits["train"]["label"].dtype == np.int32
    assert splits["train"]["image"].max() == 255


def test_split_is_disjoint_complete_and_stratified(splits):
    labels = load_digits().target
    parts = digits.split_indices(labels)
    assert not set(parts["train"]) & set(parts["test"])
    assert sorted([*parts["train"], *parts["test"]]) == list(range(1797))
    np.testing.assert_array_equal(np.bincount(splits["test"]["label"]), [36] * 10)
    np.testing.assert_array_equal(np.bincount(splits["train"]["label"]), np.bincount(labels) - 36)
    for name, part in splits.items():  # the records are in scikit-learn's order, so the split does not move
        np.testing.assert_array_equal(part["label"], labels[parts[name]])


def test_spec(digits_dir):
    spec = TFDS(data_dir=digits_dir).spec
    assert (spec.image_shape, spec.num_classes, spec.size) == ((8, 8, 1), 10, 1437)
    assert spec.class_names == tuple("0123456789")


def test_two_processes_prepare_at_once_without_tensorflow(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "shared")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
        assert out.split() == [b"1437"]


def test_another_process_finishes_first(tmp_path, monkeypatch):
    load, calls = digits.load_arrays, []

    def overtaken():
        calls.append(1)
        if len(calls) == 1:  # while the first one writes, a second one prepares the data from start to end
            assert TFDS(data_dir=str(tmp_path)).spec.size == 1437
        return load()

    monkeypatch.setattr(digits, "load_arrays", overtaken)
    assert TFDS(data_dir=str(tmp_path)).spec.size == 1437
    assert len(calls) == 2
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_variable_names_the_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert TFDS().spec.size == 1437
    assert (tmp_path / "digits" / "1.0.0" / "dataset_info.json").exists()


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot prepare dataset 'digits'.*data_dir or TFDS_DATA_DIR"):
        _ = TFDS(data_dir=str(tmp_path / "file")).spec


def test_remains_of_a_broken_preparation(tmp_path):
    (tmp_path / "digits" / "1.0.0").mkdir(parents=True)
    with pytest.raises(DataError, match="no complete dataset: delete it"):
        _ = TFDS(data_dir=str(tmp_path)).spec
