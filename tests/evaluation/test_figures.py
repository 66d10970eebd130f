import io
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image, ImageSequence

from genjax.evaluation import figures


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), np.uint8)


def test_grid_places_every_image_and_repeats_pixels(images):
    picture = np.asarray(figures.grid(images, columns=3, scale=5))
    gap = 2
    assert picture.shape == (3 * 20 + 2 * gap, 3 * 30 + 2 * gap, 4)
    for index, image in enumerate(images):
        top, left = index // 3 * (20 + gap), index % 3 * (30 + gap)
        cell = picture[top : top + 20, left : left + 30]
        assert (cell[..., 3] == 255).all()
        for row in range(20):
            np.testing.assert_array_equal(cell[row, ::5, :3], image[row // 5])
            np.testing.assert_array_equal(cell[row, 4::5, :3], image[row // 5])
    assert (picture[:, 30:32, 3] == 0).all()  # a gap
    assert (picture[44:, 32:, 3] == 0).all()  # no eighth and ninth image


def test_grid_of_grey_images():
    images = np.full((1, 8, 8, 1), 77, np.uint8)
    picture = np.asarray(figures.grid(images, columns=4))
    assert picture.shape == (48, 48, 4)
    assert (picture[..., :3] == 77).all()
    assert figures.natural_scale(np.zeros((2, 64, 64, 3))) == 1


def test_grid_labels_stand_in_the_margin(images):
    plain, labelled = (figures.grid(images, 3, 5, labels) for labels in (None, ("cat", "a long name", "<b>")))
    assert labelled.height == plain.height and labelled.width > plain.width
    margin = labelled.width - plain.width
    np.testing.assert_array_equal(np.asarray(labelled)[:, margin:], np.asarray(plain))
    assert np.asarray(labelled)[:, :margin, 3].any()
    with pytest.raises(ValueError, match="2 for 3 rows"):
        figures.grid(images, 3, 5, ("a", "b"))


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 2), np.uint8), np.zeros((0, 4, 4, 1), np.uint8)]
)
def test_wrong_images_are_refused(wrong):
    with pytest.raises(ValueError, match="uint8"):
        figures.grid(wrong, 2)


def test_strip_has_the_first_and_the_last_moment():
    trajectory = np.arange(21, dtype=np.uint8)[:, None, None, None, None] * np.ones((1, 2, 8, 8, 1), np.uint8)
    picture = np.asarray(figures.strip(trajectory, frames=5, scale=1))
    assert picture.shape == (2 * 8 + 2, 5 * 8 + 4 * 2, 4)
    assert picture[0, ::10, 0].tolist() == [0, 5, 10, 15, 20]
    assert figures.moments(3, 10).tolist() == [0, 1, 2]
    assert figures.moments(5, 1).tolist() == [4]


@pytest.mark.parametrize("channels", [1, 3])
def test_animation(channels):
    rng = np.random.default_rng(0)
    trajectory = np.repeat(rng.integers(0, 256, (6, 4, 4, 4, channels), np.uint8), 2, axis=0)[::2]
    gif = Image.open(io.BytesIO(figures.animation(trajectory, columns=2, scale=2, frames=6)))
    frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(gif)]
    assert gif.format == "GIF" and gif.info["loop"] == 0
    assert len(frames) == 6
    assert frames[0].size == (2 * 8 + 2, 2 * 8 + 2)
    if channels == 1:  # 256 greys are exact
        first, last = np.asarray(frames[0]), np.asarray(frames[-1])
        np.testing.assert_array_equal(first[:8:2, :8:2, 0], trajectory[0, 0, ..., 0])
        np.testing.assert_array_equal(last[10::2, 10::2, 0], trajectory[-1, 3, ..., 0])


def test_read_metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,eval/fd\n10,0.5,\n20,0.25,3.5\n30,nan,\n40,0.1")  # the last line is not complete
    curves = figures.read_metrics(path)
    assert curves["loss"][0].tolist() == [10, 20, 30]
    np.testing.assert_array_equal(curves["loss"][1], [0.5, 0.25, np.nan])
    assert [x.tolist() for x in curves["eval/fd"]] == [[20], [3.5]]
    path.write_text("iteration,loss\n1,2\n")
    with pytest.raises(ValueError, match="'step'"):
        figures.read_metrics(path)


def texts(svg: bytes) -> list[str]:
    return [x.text for x in xml.etree.ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_curves_are_svg_for_light_and_dark_pages():
    x = np.linspace(0, 1, 50)
    svg = figures.lines({"alpha": (x, 1 - x), "a<b&c": (x, x)}, "t")
    assert {"t", "alpha", "a<b&c"} <= set(texts(svg))
    assert b"prefers-color-scheme:dark" in svg and b"currentColor" in svg
    assert svg == figures.lines({"alpha": (x, 1 - x), "a<b&c": (x, x)}, "t")


def test_long_curves_keep_their_spikes_and_stay_small():
    steps = np.arange(100_000)
    values = np.zeros(100_000)
    values[70_001] = 5.0
    svg = figures.metric({"": (steps, values)})
    assert len(svg) < 200_000
    assert "5" in texts(svg)  # the axis reaches the spike


def test_parts_of_a_metric_share_axes_with_a_legend():
    steps = np.arange(100)
    parts = {"0-0.1": (steps, np.ones(100)), "0.1-0.3": (steps[:5], np.full(5, 2.0))}
    svg = figures.metric(parts)
    assert {"0-0.1", "0.1-0.3", "step"} <= set(texts(svg))
    many = parts | {name: (steps, np.full(100, 3.0)) for name in ("a", "b", "c")}
    assert {*many, "step"} <= set(texts(figures.metric(many)))


@pytest.mark.parametrize("values", [[np.nan], [1.0], [np.inf, 1.0], [], [1e-3, 1.0, 0.5], [0.0, 100.0]])
def test_awkward_metrics_are_drawn(values):
    assert "step" in texts(figures.metric({"": (np.arange(len(values)), np.array(values))}))


def test_schedule_leaves_infinite_ends_out():
    t = np.linspace(0, 1, 11)
    with np.errstate(divide="ignore"):
        scales, log_snr = figures.schedule(t, np.ones(11), 80 * t, -2 * np.log(80 * t))
    assert {"alpha", "sigma", "t"} <= set(texts(scales))
    assert not re.search(rb"[^a-z](nan|inf)[^a-z]", scales + log_snr)


def test_a_cloud_shows_points_where_they_are():
    points = np.float32([[0.6, 1.0], [0.6, 1.0], [-0.6, -1.0], [7.0, 0.0]]).reshape(-1, 1, 1, 2)
    shade = 255 - np.asarray(figures.sheet(points, 1).convert("L")).astype(int)
    rows, columns = np.nonzero(shade)
    up, right = 1 - 2 * rows / len(shade), 2 * columns / len(shade) - 1
    assert {(bool(u > 0), bool(r > 0)) for u, r in zip(up, right, strict=True)} == {(True, True), (False, False)}
    np.testing.assert_allclose(up[right > 0], 0.8, atol=0.05)
    np.testing.assert_allclose(right[right > 0], 0.48, atol=0.05)
    first, second = shade[rows, columns][up > 0], shade[rows, columns][up < 0]
    assert len(set(first)) == len(set(second)) == 1 and len(first) == len(second)  # dots of one size
    assert first[0] >= second[0]
    with pytest.raises(ValueError, match=r"\[N, 1, 1, 2\]"):
        figures.cloud(points[:, 0])


def test_points_are_a_picture_in_axes():
    rng = np.random.default_rng(0)
    svg = figures.scatter({"data": rng.normal(size=(500, 2)), "a<b&c": np.array([[1e6, 0.0], [0.0, 0.0]])})
    assert {"data", "a<b&c"} <= set(texts(svg)) and b"data:image/png;base64" in svg
    assert {"0", "2"} <= set(texts(svg)) and not any("000" in text for text in texts(svg))  # no axis ends at the stray
    assert len(svg) < 200_000
