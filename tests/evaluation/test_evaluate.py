import hashlib
import json
import math

import numpy as np
import pytest
from rich.console import Console

from genjax import __version__
from genjax.evaluation import distances, evaluate
from genjax.evaluation.manifest import Manifest, Provenance
from genjax.evaluation.neighbours import neighbours

PROVENANCE = Provenance(
    dataset="digits",
    split="test",
    seed=7,
    checkpoint_step=100,
    ema=True,
    solver={"name": "ddim", "eta": 0.5, "knots": (1, 2)},
    times={"name": "karras", "rho": 7.0},
    steps=20,
    guidance={"name": "classifier_free", "scale": 2.0},
)


class Means:
    """A feature network that can be computed by hand: the means of the columns; the brighter half is the class."""

    name = "column_means"
    hash = hashlib.sha256(b"column means").hexdigest()

    def features(self, images):
        return images.astype(np.float64).mean((1, 3))

    def logits(self, images):
        columns = self.features(images)
        return np.stack([columns[:, :2].sum(1), columns[:, 2:].sum(1)], 1)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (n, 4, 4, 1), np.uint8) for name, n in (("a", 40), ("train", 60), ("test", 30))}


@pytest.fixture(scope="module")
def result(images):
    labels = Means().logits(images["a"]).argmax(1)
    labels[:10] = 1 - labels[:10]
    test_labels = Means().logits(images["test"]).argmax(1)
    against = evaluate.reference(Means(), images["train"], images["test"], test_labels)
    return evaluate.score(images["a"], labels, against, PROVENANCE)


def test_figures(result, images):
    a, train, test = (images[name].astype(np.float64).mean((1, 3)) for name in ("a", "train", "test"))
    assert result["frechet"]["value"] == distances.frechet_from_features(a, test)
    assert result["floor"] == distances.floor(train, test, 40, seed=7)._asdict()
    assert result["ratio"] == result["frechet"]["value"] / result["floor"]["mean"]
    assert result["agreement"]["value"] == 0.75
    assert result["agreement"]["real"] == 1.0
    assert result["agreement"]["low"] < 0.75 < result["agreement"]["high"]


def test_labels_say_what_was_measured(result):
    assert result["frechet"]["label"] == "Frechet distance (column means features)"
    assert "FID" not in json.dumps(result)


def test_manifest_says_on_what(result):
    assert Manifest.from_dict(result["manifest"]) == Manifest(
        **vars(PROVENANCE),
        feature_network="column_means",
        feature_network_hash=Means.hash,
        n=40,
        n_reference=30,
        genjax_version=__version__,
    )


def test_more_samples_than_training_images(images):
    many = np.concatenate([images["a"], images["a"]])
    against = evaluate.reference(Means(), images["train"], images["test"])
    result = evaluate.score(many, None, against, PROVENANCE)
    assert result["frechet"]["n"] == result["floor"]["n"] == result["manifest"]["n"] == 60
    assert result["agreement"] is None


def test_same_images_everywhere_have_no_ratio():
    images = np.zeros((5, 4, 4, 1), np.uint8)
    assert evaluate.score(images, None, evaluate.reference(Means(), images, images), PROVENANCE)["ratio"] is None


def test_json_round_trip(result, tmp_path):
    evaluate.write(tmp_path / "evaluation.json", result)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    score = found["figures"]["class_score"]
    assert score["low"] is score["high"] is None  # so few samples are one split, which tells no interval
    found["figures"]["class_score"] |= {"low": result["figures"]["class_score"]["low"]}
    found["figures"]["class_score"] |= {"high": result["figures"]["class_score"]["high"]}
    assert found == result
    evaluate.write(tmp_path / "evaluation.json", {"family": {"loss": float("nan")}, "n": 3})
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"family": {"loss": None}, "n": 3}


def test_table_in_80_columns(result):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(evaluate.table([result, result | {"agreement": None, "ratio": None}]))
    text = console.export_text()
    rows = [line.split() for line in text.splitlines() if line.startswith("ddim")]
    assert len(rows) == 2  # neither is broken over two lines
    low, value, high = (evaluate.plain(result["frechet"], result["frechet"][name]) for name in ("low", "value", "high"))
    assert rows[0][:6] == ["ddim", "20", "40", value, f"[{low},", f"{high}]"]
    assert rows[0][6:9] == evaluate.spread(result).split()
    assert rows[1][9] == "-"
    assert text.startswith("Frechet distance (column means features)")


def test_what_is_measured_beside_the_distance(result, images):
    network = Means()
    a, train, test = (network.features(images[name]) for name in ("a", "train", "test"))
    found = result["figures"]
    assert list(found) == ["kernel_distance", "precision", "recall", "density", "coverage", "class_score"]
    kernel = distances.kernel_distance(a, test, seed=7)
    assert tuple(found["kernel_distance"][name] for name in ("value", "low", "high", "n")) == (*kernel[:3], 40)
    # Thirty images of the test split, so as many samples; all of the former, so their order says nothing.
    own = neighbours(test, a[:30])
    for name in ("precision", "recall", "coverage"):
        assert found[name]["value"] == getattr(own, name).value and found[name]["n"] == 30
        assert 0.5 < found[name]["real"] <= 1  # training images are of the same distribution
    assert found["density"]["value"] == pytest.approx(own.density.value)
    assert found["class_score"]["value"] == distances.class_score(network.logits(images["a"])).value
    assert found["class_score"]["real"] == distances.class_score(network.logits(images["test"])).value
    assert len(train) == 60


def test_few_images_have_no_neighbours(images):
    against = evaluate.reference(Means(), images["train"], images["test"][:5])
    found = evaluate.score(images["a"], None, against, PROVENANCE)["figures"]
    assert list(found) == ["kernel_distance", "class_score"]


def test_details_in_80_columns(result):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    numbers = {"value": -1.234567e-4, "low": -2.5e-4, "high": 1.5e-4, "real": -1e-9}
    kernel = result["figures"]["kernel_distance"] | numbers
    console.print(
        evaluate.details(result | {"figures": result["figures"] | {"kernel_distance": kernel}}, {"test elbo_bpd": 1.25})
    )
    lines = console.export_text().splitlines()
    agreement = next(line for line in lines if line.startswith("Agreement with the requested class "))
    assert agreement.split()[5:] == ["75.0%", "[59.8,", "85.8]", "100.0%"]  # Wilson's interval of 30 of 40
    distance = next(line for line in lines if line.startswith("Kernel distance "))
    assert distance.split()[2:] == ["-0.00012", "[-0.00025,", "0.00015]", "0.00000"]
    precision = next(line for line in lines if line.startswith("Precision (k = 3) "))
    assert precision.split()[4] == f"{result['figures']['precision']['value']:.1%}"
    assert any(line.split() == ["test", "elbo_bpd", "1.25"] for line in lines)
    assert not any("column means" in line for line in lines)  # the table above names the network


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.0507359, 0.0054424, 0.0960293, "0.051 [0.005, 0.096]"),  # the half is 0.045, two digits of which are seen
        (3.2901717, 2.9904855, 3.589858, "3.29 [2.99, 3.59]"),
        (-1539.6, -1839.2, -1240.1, "-1540 [-1839, -1240]"),
        (9.996, 9.9, 10.0999, "9.996 [9.900, 10.100]"),
        (0.0441234, math.nan, math.nan, "0.04412"),
        (25.0, None, None, "25"),
        (4.0, 4.0, 4.0, "4 [4, 4]"),
        (math.nan, None, None, "-"),
        (None, None, None, "-"),
    ],
)
def test_a_figure_has_the_digits_that_its_interval_supports(value, low, high, text):
    assert evaluate.bracket({"label": "x", "value": value, "low": low, "high": high}) == text


def test_table_refuses_other_features(result):
    other = result | {"manifest": result["manifest"] | {"feature_network_hash": "0" * 64}}
    with pytest.raises(ValueError, match="do not compare"):
        evaluate.table([result, other])


def test_manifest_round_trip():
    manifest = Manifest(**vars(PROVENANCE), feature_network="f", feature_network_hash="ab", n=2, n_reference=3)
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest
    assert manifest.genjax_version == __version__
    with pytest.raises(ValueError, match="did you mean 'solver'"):
        Manifest.from_dict(manifest.to_dict() | {"solvr": None})
    with pytest.raises(ValueError, match="missing key 'ema'"):
        Manifest.from_dict({k: v for k, v in manifest.to_dict().items() if k != "ema"})
    with pytest.raises(ValueError, match="no plain value"):
        Provenance(dataset="digits", split="test", seed=0, checkpoint_step=0, ema=True, solver={"name": object()})
    numbers = Provenance(dataset="digits", split="test", seed=np.int64(3), checkpoint_step=0, ema=np.bool_(False))
    assert json.dumps(numbers.seed) == "3" and numbers.ema is False
