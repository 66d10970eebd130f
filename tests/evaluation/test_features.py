import logging

import numpy as np
import pytest
import safetensors.numpy

from genjax import config
from genjax.evaluation import classifier, distances, features
from tests.compiling import optimized

TINY = {"name": "digits_classifier", "features": 8, "width": 2, "steps": 3, "batch_size": 8}


@pytest.fixture(scope="module")
def network(digits, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, optimized():
        patch.setenv("GENJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        return config.build("feature_network", {"name": "digits_classifier"})(digits["train"], digits["train_labels"])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(digits):
    return lambda **changes: config.build("feature_network", TINY | changes)(digits["train"], digits["train_labels"])


def test_accuracy_on_real_digits(network, digits):
    assert distances.agreement(network.logits(digits["test"]), digits["test_labels"]).value >= 0.98


def test_features_tell_digits_from_noise_and_from_a_missing_class(network, digits):
    test = network.features(digits["test"])
    floor = distances.floor(network.features(digits["train"]), test, 1000)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1000, 8, 8, 1), np.uint8)
    without_8 = digits["train"][digits["train_labels"] != 8][:1000]
    assert distances.frechet_from_features(network.features(noise), test) > 10 * floor.mean
    assert distances.frechet_from_features(network.features(without_8), test) > floor.mean + 5 * floor.std


def test_shapes_and_batches(network, digits):
    images = digits["test"][:300]
    both = network.features(images), network.logits(images)
    assert both[0].shape == (300, 64) and both[1].shape == (300, 10)
    assert both[0].dtype == both[1].dtype == np.float64
    # Chunks are padded to one size, so that neither the number nor the place of an image changes its features.
    np.testing.assert_allclose(network.features(images[290:291]), both[0][290:291], rtol=1e-5, atol=1e-5)
    assert network.image_shape == (8, 8, 1)
    assert network.name == "digits_classifier"


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 1)), np.zeros((8, 8, 1), np.uint8), np.zeros((2, 9, 8, 1), np.uint8)]
)
def test_wrong_images_are_refused(network, images):
    with pytest.raises(ValueError, match="images"):
        network.features(images)


def test_colour_images_of_any_size(cache):
    images = np.random.default_rng(0).integers(0, 256, (20, 13, 18, 3), np.uint8)
    network = config.build("feature_network", TINY)(images, np.arange(20) % 4)
    assert network.features(images).shape == (20, 8)
    assert network.logits(images).shape == (20, 4)


def test_training_again_gives_the_same_weights(cache, tiny):
    first = tiny()
    (path,) = cache.rglob("*.safetensors")
    path.unlink()
    assert tiny().hash == first.hash
    assert len(first.hash) == 64 and int(first.hash, 16) >= 0
    assert tiny(seed=1).hash != first.hash


def test_cache_is_reused(cache, tiny, digits, monkeypatch):
    first = tiny()
    expected = first.features(digits["test"])
    monkeypatch.setattr(classifier, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    again = tiny()
    assert again.hash == first.hash
    np.testing.assert_array_equal(again.features(digits["test"]), expected)


def test_cache_key_has_settings_and_data(cache, tiny, digits):
    tiny()
    tiny(seed=1)
    labels = digits["train_labels"].copy()
    labels[0] = (labels[0] + 1) % 10
    config.build("feature_network", TINY)(digits["train"], labels)
    config.build("feature_network", TINY)(255 - digits["train"], digits["train_labels"])
    assert len(list(cache.rglob("*.safetensors"))) == 4
    assert not list(cache.rglob("*.part"))


@pytest.mark.parametrize("damage", ["flipped bit", "cut", "empty", "other weights"])
def test_damaged_cache_is_made_again(cache, tiny, damage, caplog):
    first = tiny()
    (path,) = cache.rglob("*.safetensors")
    good = path.read_bytes()
    if damage == "flipped bit":
        path.write_bytes(good[:-5] + bytes([good[-5] ^ 64]) + good[-4:])
    elif damage == "cut":
        path.write_bytes(good[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        safetensors.numpy.save_file({"conv0.w": np.zeros(3, np.float32)}, path)
    with caplog.at_level(logging.WARNING):
        assert tiny().hash == first.hash
    assert str(path) in caplog.text
    assert safetensors.numpy.load(path.read_bytes()).keys() == safetensors.numpy.load(good).keys()


def test_read_only_cache_is_no_error(tmp_path, monkeypatch, tiny, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert tiny().hash == tiny().hash
    assert "could not be cached" in caplog.text


def test_cache_folder(monkeypatch, tmp_path):
    for name in ("GENJAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert features.cache_folder() == tmp_path / ".cache" / "genjax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert features.cache_folder() == tmp_path / "xdg" / "genjax"
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path / "own"))
    assert features.cache_folder() == tmp_path / "own"


def test_wrong_settings_and_labels_are_refused(cache, digits):
    with pytest.raises(config.ConfigError, match="steps = 0"):
        config.build("feature_network", TINY | {"steps": 0})
    with pytest.raises(config.ConfigError, match="did you mean 'width'"):
        config.build("feature_network", TINY | {"widht": 2})
    make = config.build("feature_network", TINY)
    with pytest.raises(ValueError, match="labels"):
        make(digits["train"], digits["test_labels"])
    with pytest.raises(ValueError, match="labels"):
        make(digits["train"], digits["train_labels"] - 1)
