import base64
import html.parser
import re

import numpy as np
import pytest

from genjax.evaluation import report, sweep
from genjax.evaluation.report import Report, Schedule, render, write_report

VOID = {"meta", "img", "source", "br", "link", "input", "hr"}
HOSTILE = "<script>alert('x')</script> & \"q\" {brace}"


class Page(html.parser.HTMLParser):
    """Reads a page, checks that its tags nest, and keeps what the tests ask for."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def headings(self) -> list[str]:
        return [text for text in self.texts if text in SECTIONS]


SECTIONS = (
    "Evaluation",
    "Widths of the average",
    "Samples",
    "Samples by class",
    "Samples over data",
    "Reconstructions",
    "Denoising of one batch",
    "Training",
    "Noise schedule",
    "Configuration",
)


@pytest.fixture(scope="module")
def evaluation():
    return {
        "frechet": {
            "label": "Frechet distance (digits classifier features)",
            **{"value": 2.34567, "low": 2.1, "high": 2.6, "n": 50},
        },
        "figures": {
            "recall": {"label": "Recall (k = 3)", "value": 0.5, "low": 0.36, "high": 0.64, "real": 0.9, "share": True},
            "class_score": {"label": HOSTILE, "value": 9.7, "low": None, "high": None, "real": 9.8},
        },
        "floor": {"mean": 1.25, "std": 0.125, "n": 50, "repeats": 10},
        "ratio": 1.8765,
        "agreement": {
            "label": "Agreement with the requested class (digits classifier)",
            **{"value": 0.96, "low": 0.865, "high": 0.989, "n": 50, "confidence": 0.95, "real": 0.994},
        },
        "manifest": {
            "n": 50,
            "n_reference": 360,
            "split": "test",
            "ema": True,
            "solver": {"name": "ddim", "eta": 0.0},
            "steps": 20,
        },
    }


@pytest.fixture(scope="module")
def full(evaluation):
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 20)
    with np.errstate(divide="ignore"):
        log_snr = 2 * np.log((1 - t) / t)
    return Report(
        title=HOSTILE,
        command=f"genjax train --config=configs/digits/ddpm.py --workdir='{HOSTILE}'",
        summary={HOSTILE: HOSTILE},
        evaluations=[evaluation],
        other_figures={HOSTILE: 3.14159},
        metrics={HOSTILE: (np.arange(5), np.arange(5.0)), "loss": (np.arange(100), rng.random(100))},
        samples=rng.integers(0, 256, (7, 8, 8, 1), np.uint8),
        labels=np.array([0, 0, 1, 1, 1, 2, -1]),
        class_names=(HOSTILE, "cat", "dog"),
        points={HOSTILE: rng.normal(size=(50, 2)), "samples": rng.normal(size=(20, 2))},
        pictures={
            "reconstructions": rng.integers(0, 256, (2, 6, 8, 8, 1), np.uint8),
            HOSTILE: np.zeros((1, 1, 8, 8, 3), np.uint8),
        },
        trajectory=rng.integers(0, 256, (12, 5, 8, 8, 1), np.uint8),
        schedule=Schedule(t=t, alpha=1 - t, sigma=t, log_snr=log_snr),
        ema_sweep=[sweep.row(width, 0.01, 500, 50, evaluation, {HOSTILE: width}) for width in (0.05, 0.1)],
        config=f"seed: 0\nname: {HOSTILE}\n",
        versions={"jax": HOSTILE},
    )


def test_full_page(full):
    text = render(full)
    page = Page(text)
    assert page.headings == [name for name in SECTIONS if name != "Samples"]
    for cell in ("2.35 [2.10, 2.60]", "1.25 ± 0.12", "1.88", "96.0% [86.5, 98.9]", "3.142", "yes"):
        assert cell in page.texts
    for cell in ("ddim(eta=0.0)", "50.0% [36.0, 64.0]", "90.0%", "9.7", "9.8"):
        assert cell in page.texts
    assert "Solver: ddim(eta=0.0), 20 steps." in text and "99.4%" in text and "360 of the test split" in text
    assert "of step 500" in text and "curve of distance" in text
    assert "Held-out images in the first row" in text and "from -3 to 3" not in text
    assert "FID" not in re.sub(r"base64,[^\"]*", "", text)


def test_page_needs_nothing_beside_it(full):
    page = Page(render(full))
    addresses = [value for name, value in page.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert addresses and all(value.startswith("data:") for value in addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    style = "".join(page.texts)
    assert "url(" not in style and "@import" not in style
    assert any(name == "content" and "default-src 'none'" in value for name, value in page.attributes)
    for value in addresses:
        data = base64.b64decode(value.split(",", 1)[1], validate=True)
        assert data.startswith((b"\x89PNG", b"GIF8", b"<?xml", b"<svg"))
        if value.startswith("data:image/svg"):
            assert not re.search(rb"(href|src)=\"https?:", data)


def test_everything_is_escaped(full):
    text = render(full)
    assert "<script" not in text
    page = Page(text)
    # The title, the heading, a fact, a figure, a curve, a class, the config and a version, each as it was given.
    assert sum(HOSTILE in part for part in page.texts) >= 9


def test_sections_without_contents_are_left_out(evaluation):
    page = Page(render(Report(title="run", command="genjax train")))
    assert page.headings == []
    without_class = evaluation | {"agreement": None, "ratio": None}
    images = np.zeros((3, 32, 32, 3), np.uint8)
    page = Page(render(Report(title="run", command="genjax train", samples=images, evaluations=[without_class])))
    assert page.headings == ["Evaluation", "Samples"]
    assert not any("Agreement" in text or "own class" in text for text in page.texts)


def test_pictures_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="pictures: latents is .*rows, columns"):
        render(Report(title="run", command="", pictures={"latents": np.zeros((4, 8, 8, 1), np.uint8)}))


def test_points_alone_have_figures_without_a_distance():
    figure = {"label": "Modes found of 8", "value": 7.0, "n": 50, "real": 8.0}
    manifest = {"n": 50, "n_reference": 50, "split": "test", "solver": None}
    page = Page(
        render(Report(title="", command="", evaluations=[{"figures": {"modes": figure}, "manifest": manifest}]))
    )
    assert {"Modes found of 8", "7", "8", "real data"} <= set(page.texts)
    assert not any("Frechet" in text or "ratio" in text for text in page.texts)
    assert any("other points of the same density" in text for text in page.texts)


def test_parts_of_a_metric_share_a_panel():
    curve = (np.arange(3), np.ones(3))
    names = ("train/loss", "train/mse_by_noise/0-0.1", "train/mse_by_noise/0.1-0.3", "eval/loss")
    page = Page(render(Report(title="run", command="genjax train", metrics=dict.fromkeys(names, curve))))
    curves = [value for name, value in page.attributes if name == "alt"]
    assert curves == [f"curve of {name}" for name in ("train/loss", "train/mse_by_noise", "eval/loss")]


def test_one_row_a_class(full):
    page = Page(render(full))
    names = [value for name, value in page.attributes if name == "alt" and value.startswith("samples of class")]
    assert names == [f"samples of class {name}" for name in ("any", HOSTILE, "cat", "dog")]


def test_write(tmp_path):
    path = tmp_path / "report.html"
    run = Report(title="digits é ±", command="genjax train")
    write_report(path, run)
    assert path.read_text(encoding="utf-8") == render(run)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_labels_must_fit():
    with pytest.raises(ValueError, match="2 for 3"):
        Report(title="", command="", samples=np.zeros((3, 8, 8, 1), np.uint8), labels=np.zeros(2, int))
    with pytest.raises(ValueError, match="uint8"):
        report.render(Report(title="", command="", samples=np.zeros((3, 8, 8, 1))))
