"""From arrays to pictures: image grids, denoising strips and animations, curves.

Pictures of samples are PIL images, curves are SVG that reads on a light and on a dark page. Nothing here keeps state.
"""

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from genjax.config import require

Curve = tuple[np.ndarray, np.ndarray]

_CELL = 48  # pixels of an image's shorter side, at least, where the scale is left to us
_GREY = (128, 128, 128, 255)  # reads on white and on black
_LINES = ("#3b82c4", "#d9782d", "#3a9d6e", "#a565c9", "#8b9097")  # as well
_INK = "#010203"  # stands for the page's own text colour, see `_svg`
_POINTS = 800  # of a curve, at most
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp and searchable
    "svg.hashsalt": "genjax",  # the same data give the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    **{f"{part}.color": _INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}color": _INK for part in ("edge", "label")},
}


def natural_scale(images: np.ndarray) -> int:
    """Returns the whole factor that makes small images [..., H, W, C] large enough to see; 1 for large ones."""
    return max(1, -(-_CELL // min(images.shape[-3:-1])))


def grid(
    images: np.ndarray, columns: int, scale: int | None = None, row_labels: Sequence[str] | None = None
) -> Image.Image:
    """Returns images side by side, row by row, on a transparent ground.

    Args:
        images: uint8 [N, H, W, C] with C = 1 or 3.
        columns: images in a row.
        scale: whole factor by which pixels are repeated; None for `natural_scale`.
        row_labels: text in the left margin, one for each row.

    Returns:
        An RGBA image; its gaps are transparent.

    Raises:
        ValueError: no images, images of another type or shape, or another number of labels than of rows.
    """
    images = _checked(images, 4)
    scale = natural_scale(images) if scale is None else scale
    require(columns >= 1 and scale >= 1, f"columns = {columns}, scale = {scale}: must be at least 1")
    n, height, width, _ = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    gap = _gap(height * scale)
    large = images.repeat(scale, 1).repeat(scale, 2)
    canvas = np.zeros((rows, height * scale + gap, columns, width * scale + gap, 4), np.uint8)
    for index, image in enumerate(large):
        row, column = divmod(index, columns)
        canvas[row, : height * scale, column, : width * scale, :3] = image  # one channel becomes three
        canvas[row, : height * scale, column, : width * scale, 3] = 255
    flat = canvas.reshape(rows * (height * scale + gap), columns * (width * scale + gap), 4)[:-gap, :-gap]
    picture = Image.fromarray(flat)
    if row_labels is None:
        return picture
    require(len(row_labels) == rows, f"row_labels: {len(row_labels)} for {rows} rows")
    return _with_margin(picture, row_labels, height * scale + gap)


def sheet(samples: np.ndarray, columns: int) -> Image.Image:
    """Returns samples as one picture: images as a `grid`, points of the plane as a `cloud`."""
    return cloud(samples) if samples.dtype == np.float32 else grid(samples, columns)


def cloud(points: np.ndarray, side: int = 384, extent: float = 1.25) -> Image.Image:
    """Returns points of the plane, the denser the darker, on a white ground.

    Args:
        points: float [N, 1, 1, 2]: across, to the right, and up.
        side: of the picture, in pixels.
        extent: the picture shows [-extent, extent] both ways; what lies outside is left out.

    Raises:
        ValueError: an array of another shape.
    """
    require(points.ndim == 4 and points.shape[1:] == (1, 1, 2), f"points {points.shape}: [N, 1, 1, 2] is needed")
    across, up = points.reshape(-1, 2).T
    bins = min(side, max(48, 4 * round(len(points) ** 0.5)))  # few points get large dots, all of one size
    dot = max(size for size in range(1, side // bins + 1) if side % size == 0)
    edges = np.linspace(-extent, extent, side // dot + 1)
    counts = np.histogram2d(-up, across, (edges, edges))[0]
    shade = counts / max(1.0, np.quantile(counts[counts > 0], 0.9) if counts.any() else 1.0)
    pixels = (255 * (1 - 0.85 * np.minimum(shade, 1.0) ** 0.5)).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).convert("RGBA")


def strip(trajectory: np.ndarray, frames: int = 10, scale: int | None = None) -> Image.Image:
    """Returns the denoising of a batch: one row a sample, noise on the left, the result on the right.

    Args:
        trajectory: uint8 [T, B, H, W, C], from noise to image.
        frames: how many of the T moments to show, evenly spaced with the first and the last among them.
        scale: as in `grid`.

    Raises:
        ValueError: an array of another type or shape.
    """
    trajectory = _checked(trajectory, 5)
    chosen = trajectory[moments(len(trajectory), frames)]
    return grid(chosen.swapaxes(0, 1).reshape(-1, *chosen.shape[2:]), len(chosen), scale)


def moments(length: int, frames: int) -> np.ndarray:
    """Returns at most `frames` indices from 0 to length - 1, evenly spaced, the first and the last among them."""
    require(length >= 1 and frames >= 1, f"{frames} frames of {length}: must be at least 1")
    if frames == 1:
        return np.array([length - 1])
    return np.unique(np.linspace(0, length - 1, min(frames, length)).round().astype(int))


def animation(
    trajectory: np.ndarray, columns: int = 8, scale: int | None = None, frames: int = 40, seconds: float = 3.0
) -> bytes:
    """Returns the denoising of a batch as a GIF that repeats, the result held for a while.

    Args:
        trajectory: uint8 [T, B, H, W, C], from noise to image.
        columns: images in a row.
        scale: as in `grid`.
        frames: how many of the T moments to show, at most.
        seconds: from the first to the last.

    Raises:
        ValueError: an array of another type or shape.
    """
    trajectory = _checked(trajectory, 5)
    chosen = trajectory[moments(len(trajectory), frames)]
    pages = [_opaque(grid(batch, columns, scale), grey=chosen.shape[-1] == 1) for batch in chosen]
    durations = [max(20, round(1000 * seconds / len(pages)))] * (len(pages) - 1) + [1500]
    buffer = io.BytesIO()
    pages[0].save(
        buffer, "GIF", save_all=True, append_images=pages[1:], duration=durations, loop=0, disposal=1, optimize=False
    )
    return buffer.getvalue()


def png(picture: Image.Image) -> bytes:
    """Returns a picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def read_metrics(path: str | Path) -> dict[str, Curve]:
    """Reads a CSV file with a column `step` and one column a metric; an empty cell is a step without that metric.

    Returns:
        (steps, values) by metric, each float64 [points]; metrics without a value are left out.

    Raises:
        ValueError: no column `step`, or a cell that is no number.
    """
    curves: dict[str, tuple[list[float], list[float]]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        # A line without its end is one that a run is writing, or was when it was cut off.
        reader = csv.DictReader(line for line in file if line.endswith("\n"))
        require("step" in (reader.fieldnames or ()), f"{path}: has no column 'step'")
        for row in reader:
            for name, cell in row.items():
                if name not in (None, "step") and cell not in (None, ""):
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(float(row["step"]))
                    values.append(float(cell))
    return {name: (np.array(steps), np.array(values)) for name, (steps, values) in curves.items()}


def metric(curves: Mapping[str, Curve]) -> bytes:
    """Returns the curve of one training metric as SVG, or those of one metric by name.

    Of a long curve the running mean is drawn; behind it, pale, the curve itself where it is the only one. The axis is
    logarithmic where the values are positive and span more than a factor of 30.

    Args:
        curves: (steps, values) by name, each [points]; values that are not finite leave a gap.
    """
    curves = {name: (np.asarray(x, np.float64), np.asarray(y, np.float64)) for name, (x, y) in curves.items()}
    values = np.concatenate([y for _, y in curves.values()])
    finite = values[np.isfinite(values)]
    logarithmic = len(finite) > 0 and finite.min() > 0 and finite.max() > 30 * finite.min()
    smooth = {name: curve if len(curve[0]) < 60 else _running_mean(*curve) for name, curve in curves.items()}
    pale = next(iter(curves.values())) if len(curves) == 1 and len(values) >= 60 else None
    return lines(smooth, "step", logarithmic, pale)


def schedule(t: np.ndarray, alpha: np.ndarray, sigma: np.ndarray, log_snr: np.ndarray) -> tuple[bytes, bytes]:
    """Returns two SVGs over the time t: alpha and sigma, and log-SNR = log(alpha^2 / sigma^2).

    Args:
        t: [points], 0 for data and 1 for noise.
        alpha: [points].
        sigma: [points].
        log_snr: [points]; infinite ends are left out.
    """
    scales = lines({"alpha": (t, alpha), "sigma": (t, sigma)}, "t", logarithmic=bool(np.max(sigma) > 5))
    return scales, lines({"": (t, log_snr)}, "t")


def lines(curves: Mapping[str, Curve], xlabel: str, logarithmic: bool = False, pale: Curve | None = None) -> bytes:
    """Returns curves in one pair of axes as an SVG whose text takes the light or dark colour that the reader prefers.

    Args:
        curves: (x, y) by name; the names make a legend unless there is only one curve.
        xlabel: below the x axis.
        logarithmic: whether the y axis is.
        pale: (x, y) of a curve behind the first one, in a paler tone of its colour.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        axes = figure.add_subplot()
        if pale is not None:
            axes.plot(*_drawable(pale, logarithmic), color=_LINES[0], alpha=0.35, linewidth=0.8)
        for (name, curve), colour in zip(curves.items(), itertools.cycle(_LINES), strict=False):
            x, y = _drawable(curve, logarithmic)
            axes.plot(x, y, "o" if len(x) == 1 else "-", color=colour, linewidth=1.8, label=name)
        if logarithmic:
            axes.set_yscale("log")
        axes.set_xlabel(xlabel)
        axes.grid(color=_INK, alpha=0.12, linewidth=0.6)
        axes.margins(x=0.01)
        if len(curves) > 3:  # a long list would cover them
            figure.legend(loc="outside right upper", frameon=False, handlelength=1.4)
        elif len(curves) > 1:
            axes.legend(frameon=False, handlelength=1.4)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _svg(buffer.getvalue())


def scatter(points: Mapping[str, np.ndarray]) -> bytes:
    """Returns sets of points in one pair of axes as an SVG, the first in grey behind the others.

    The axes end where the first set does, and a little further, so that others' stray points hide nothing.

    Args:
        points: [N, 2] by name.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 4.6), layout="constrained", dpi=200)
        axes = figure.add_subplot()
        for (name, xy), colour in zip(points.items(), (_LINES[-1], *_LINES[:-1]), strict=False):
            # As a picture within the drawing: thousands of circles would be slow.
            x, y = np.asarray(xy, np.float64).T
            axes.scatter(x, y, s=4, color=colour, alpha=0.5, linewidths=0, label=name, rasterized=True)
        first = np.asarray(next(iter(points.values())), np.float64)
        low, high = first.min(0), first.max(0)
        room = 0.15 * (high - low).max()
        axes.set(xlim=(low[0] - room, high[0] + room), ylim=(low[1] - room, high[1] + room), aspect="equal")
        axes.locator_params(nbins=5)
        axes.grid(color=_INK, alpha=0.12, linewidth=0.6)
        figure.legend(loc="outside upper center", frameon=False, markerscale=3, ncols=len(points))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _svg(buffer.getvalue())


def _svg(data: bytes) -> bytes:
    """Gives a drawing the colour of text that suits the reader's page, and the reader's own sans-serif font."""
    style = (
        b"<style>svg{color:#333}text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif!important}"
        b"@media(prefers-color-scheme:dark){svg{color:#ccc}}</style>"
    )
    start = data.index(b">", data.index(b"<svg")) + 1
    return (data[:start] + style + data[start:]).replace(_INK.encode(), b"currentColor")


def _checked(images: np.ndarray, ndim: int) -> np.ndarray:
    images = np.asarray(images)
    wanted = "[N, H, W, C]" if ndim == 4 else "[T, B, H, W, C]"
    require(
        images.dtype == np.uint8 and images.ndim == ndim and images.shape[-1] in (1, 3) and images.size > 0,
        f"images: {images.dtype} {images.shape}; uint8 {wanted} with one or three channels is needed",
    )
    return images


def _gap(height: int) -> int:
    return max(2, height // 16)


def _with_margin(picture: Image.Image, labels: Sequence[str], pitch: int) -> Image.Image:
    """Puts one line of text to the left of each row of a grid."""
    font = ImageFont.load_default(size=min(20.0, max(9.0, 0.4 * pitch)))
    margin = int(max(font.getlength(label) for label in labels)) + 10
    wide = Image.new("RGBA", (picture.width + margin, picture.height))
    wide.paste(picture, (margin, 0))
    draw = ImageDraw.Draw(wide)
    for row, label in enumerate(labels):
        draw.text((margin - 10, (row + 0.5) * pitch), label, fill=_GREY, font=font, anchor="rm")
    return wide


def _opaque(picture: Image.Image, grey: bool) -> Image.Image:
    """Lays a picture on grey, as GIF has no half-transparent pixels; 256 greys are exact, colours are dithered."""
    ground = Image.new("RGBA", picture.size, _GREY)
    ground.alpha_composite(picture)
    return ground.convert("L") if grey else ground.convert("RGB").quantize(256)


def _running_mean(x: np.ndarray, y: np.ndarray) -> Curve:
    """Returns the mean over windows of a fortieth of the curve, at each whole window's middle."""
    window = max(2, len(y) // 40)
    mean = np.convolve(y, np.full(window, 1 / window), mode="valid")
    return x[(window - 1) // 2 : (window - 1) // 2 + len(mean)], mean


def _drawable(curve: Curve, logarithmic: bool) -> Curve:
    """Leaves the least and the greatest of each group of points of a long curve, and gaps where there is no height.

    No spike is lost that way, and the picture's size does not grow with the training.
    """
    x, y = (np.asarray(values, np.float64) for values in curve)
    if len(y) > _POINTS:
        groups = np.array_split(np.arange(len(y)), _POINTS // 2)
        rows = np.unique([[group[np.argmin(y[group])], group[np.argmax(y[group])]] for group in groups])
        x, y = x[rows], y[rows]
    return x, np.where(np.isfinite(y) & ((y > 0) | (not logarithmic)), y, np.nan)
