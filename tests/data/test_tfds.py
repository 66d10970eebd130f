"""The source `tfds`: reading without TensorFlow, mocked data, and the errors that say what to do."""

import ast
import dataclasses
import io
import itertools
import os
import shlex
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from genjax import config
from genjax.data import TFDS, DataError, loader


def encoded(array, suffix):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, suffix)
    return buffer.getvalue()


def pictures():
    """Colour PNGs, and a grey JPEG, which TFDS's own decoding without TensorFlow cannot read as colour."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        yield encoded(rng.integers(0, 256, (6, 8, 3), np.uint8), "png")
    yield encoded(np.full((6, 8), 200, np.uint8), "jpeg")


class GenjaxPictures(tfds.core.GeneratorBasedBuilder):
    """A data set with encoded images and with features that nobody asked for."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "more": {"note": tfds.features.Text(), "mask": tfds.features.Image(shape=(None, None, 1))},
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for i, image in enumerate(pictures()):
            yield i, {"image": image, "label": i % 2, "more": {"note": "unused", "mask": b"not decoded"}}


@pytest.fixture(scope="module")
def pictures_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("pictures"))
    tfds.builder("genjax_pictures", data_dir=path).download_and_prepare(file_format="array_record")
    return path


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_encoded_images(pictures_dir, memory_limit):
    source = TFDS("genjax_pictures", data_dir=pictures_dir, center_crop=6, memory_limit=memory_limit)
    assert source.spec.image_shape == (6, 6, 3) and source.spec.size == 6
    assert source.spec.class_names == ("cat", "dog")
    batch = source.gather(np.array([5, 0, 3, 0]))
    rng = np.random.default_rng(0)
    expected = [rng.integers(0, 256, (6, 8, 3), np.uint8)[:, 1:7] for _ in range(5)]
    np.testing.assert_array_equal(batch["image"][1:], [expected[0], expected[3], expected[0]])
    np.testing.assert_array_equal(batch["image"][0], np.full((6, 6, 3), 200))
    np.testing.assert_array_equal(batch["label"], [1, 0, 1, 0])
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32


def test_images_of_many_sizes_need_a_size(pictures_dir):
    with pytest.raises(DataError, match="many sizes: set image_size"):
        _ = TFDS("genjax_pictures", data_dir=pictures_dir).spec
    assert TFDS("genjax_pictures", data_dir=pictures_dir, image_size=4).spec.image_shape == (4, 4, 3)


def test_an_image_that_does_not_fit_is_named(pictures_dir):
    source = TFDS("genjax_pictures", data_dir=pictures_dir, center_crop=7)
    with pytest.raises(DataError, match=r"'genjax_pictures'.*image 0: 8 x 6 pixels: smaller than the crop of 7"):
        _ = source.spec


def test_above_the_memory_limit_nothing_changes(digits_dir):
    in_memory, on_demand = TFDS(data_dir=digits_dir), TFDS(data_dir=digits_dir, memory_limit=1000)
    assert in_memory.spec.in_memory and not on_demand.spec.in_memory
    indices = np.array([3, 1400, 3, 77])
    for key, value in in_memory.gather(indices).items():
        np.testing.assert_array_equal(on_demand.gather(indices)[key], value)
    for threads, inline in zip(
        itertools.islice(loader.batches(on_demand, 0, 100), 20), loader.batches(in_memory, 0, 100), strict=False
    ):
        np.testing.assert_array_equal(threads["image"], inline["image"])


def test_decoded_images_are_resized_too(digits_dir):
    source = TFDS(data_dir=digits_dir, image_size=16)
    assert source.gather(np.arange(3))["image"].shape == (3, 16, 16, 1)


@pytest.mark.parametrize(
    ("dataset", "shape", "classes"),
    [("cifar10", (32, 32, 3), 10), ("fashion_mnist", (28, 28, 1), 10), ("lfw", (250, 250, 3), None)],
)
def test_mocked_data(dataset, shape, classes):
    source = config.build("data", {"name": "tfds", "dataset": dataset, "mock": True})
    assert (source.spec.image_shape, source.spec.num_classes) == (shape, classes)
    batch = source.gather(np.arange(source.spec.size))
    assert batch["image"].shape == (source.spec.size, *shape) and batch["image"].dtype == np.uint8
    assert ("label" in batch) == (classes is not None)
    if classes:
        assert set(batch["label"]) == set(range(classes))
    again = config.build("data", {"name": "tfds", "dataset": dataset, "mock": True}).gather(np.arange(4))
    np.testing.assert_array_equal(again["image"], batch["image"][:4])
    assert len(np.unique(batch["image"].reshape(source.spec.size, -1), axis=0)) == source.spec.size


def test_missing_data_set_names_the_command(tmp_path):
    place = str(tmp_path / "it's here")
    with pytest.raises(DataError) as caught:
        _ = TFDS("cifar10", data_dir=place).spec
    message = str(caught.value)
    assert "'cifar10'" in message and "not on disk" in message and "\n" not in message
    assert "pip install -e '.[tfds]'" in message
    # The command must be one that a shell and Python both read.
    program, *rest = shlex.split(message[message.index("python -c ") + len("python -c ") :])
    assert not rest
    call = ast.parse(program).body[-1].value
    assert call.func.attr == "download_and_prepare" and ast.literal_eval(call.keywords[0].value) == "array_record"
    assert [ast.literal_eval(node) for node in (call.func.value.args[0], call.func.value.keywords[0].value)] == [
        "cifar10",
        place,
    ]


@pytest.mark.parametrize("name", ["huggingface:mnist", "kubric:movi_a/128x128", "huggingface:a:1.0.0"])
@pytest.mark.parametrize("mock", [False, True])
def test_communities_data_sets_run_their_code_and_are_refused(name, mock):
    with pytest.raises(DataError, match="names a community's data set, whose code TFDS would fetch and run"):
        _ = TFDS(name, mock=mock).spec


def test_unknown_names_get_the_nearest(digits_dir):
    with pytest.raises(DataError, match=r"no TFDS dataset 'cifar_10'; did you mean 'cifar10'"):
        _ = TFDS("cifar_10", data_dir=digits_dir).spec
    with pytest.raises(DataError, match=r"Unknown split 'tran'. Should be one of \['train', 'test'\]"):
        _ = TFDS(split="tran", data_dir=digits_dir).spec
    with pytest.raises(DataError, match="'mnist/nothing'"):
        _ = TFDS("mnist/nothing", data_dir=digits_dir).spec
    with pytest.raises(DataError, match="no feature `image`"):
        _ = TFDS("ag_news_subset", mock=True).spec


def test_wrong_format_on_disk(digits_dir, tmp_path):
    shutil.copytree(os.path.join(digits_dir, "digits"), tmp_path / "digits")
    info = tmp_path / "digits" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="prepared as tfrecord, not as array_record. Delete that folder"):
        _ = TFDS(data_dir=str(tmp_path)).spec


@pytest.mark.parametrize("keep", [0, 0.5])
def test_damaged_records(digits_dir, tmp_path, keep):
    shutil.copytree(os.path.join(digits_dir, "digits"), tmp_path / "digits")
    (records,) = (tmp_path / "digits" / "1.0.0").glob("digits-train*")
    records.write_bytes(records.read_bytes()[: int(keep * records.stat().st_size)])
    with pytest.raises(DataError, match="'digits', split 'train'"):
        _ = TFDS(data_dir=str(tmp_path)).spec


@pytest.mark.parametrize(
    ("key", "value"), [("dataset", ""), ("image_size", 0), ("center_crop", -4), ("memory_limit", -1)]
)
def test_wrong_values_are_refused_when_built(key, value):
    with pytest.raises(config.ConfigError, match=key):
        config.build("data", {"name": "tfds", key: value})


def test_building_reads_nothing(tmp_path):
    source = TFDS(data_dir=str(tmp_path / "nowhere"), flip=True)
    assert hash(source) == hash(dataclasses.replace(source)) and source.flip
    assert not (tmp_path / "nowhere").exists()
