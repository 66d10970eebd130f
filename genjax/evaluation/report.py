"""`report.html`: one page that holds all of a run and needs nothing beside it, no network and no script."""

import base64
import dataclasses
import html
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genjax.config import require
from genjax.evaluation import evaluate, figures, page, sweep
from genjax.files import write_whole

_CLASS_COLUMNS = 10  # samples in the row of a class
_PLAIN_COLUMNS = 12  # samples in a row without classes
_PLAIN_ROWS = 6
_ANIMATED = 42  # samples in the animation, at most
_CAPTIONS = {  # of the sheets that families draw
    "interpolations": "Each row leads from one image to another.",
    "levels": "Held-out images; below, row by row, more of their latents are kept and fewer drawn anew.",
    "reconstructions": "Held-out images in the first row, what the model makes of them in the last.",
    "style_mixing": "Coarse layers have the style of the row, fine ones that of the column.",
    "translations": "Images of the first domain, translated, and back; then those of the second.",
    "traversals": "One latent changes along each row, from -3 to 3; the others stay.",
    "truncation": "The truncation psi goes from 0 to 1 along each row.",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """What noise does over time, as arrays [points].

    Attributes:
        t: from 0, data, to 1, noise.
        alpha: factor of the image.
        sigma: standard deviation of the noise.
        log_snr: log(alpha^2 / sigma^2); may be infinite at the ends.
    """

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    log_snr: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a report shows; whatever is left empty has no section.

    Attributes:
        title: name of the experiment.
        command: the exact command to repeat the run.
        summary: a few facts that open the page, such as the number of parameters.
        evaluations: results of `evaluate.score` or `points.score`.
        other_figures: further figures of the run by name, such as bits per dimension.
        metrics: (steps, values) of each training metric, as `figures.read_metrics` gives them. Parts of one metric,
            such as "train/mse_by_noise/0.1-0.3", share a panel.
        samples: uint8 [N, H, W, C].
        labels: the class of each sample [N], -1 for none.
        class_names: names of the classes; their numbers where there are none.
        points: sets of points [N, 2] by name, the data first, where they are no images.
        pictures: further sheets by name, such as reconstructions, uint8 [rows, columns, H, W, C].
        trajectory: the denoising of one batch, uint8 [T, B, H, W, C], from noise to image.
        schedule: the noise schedule.
        ema_sweep: scores of averages of several widths, as `sweep.row` gives them.
        config: the resolved config, as text.
        versions: versions of what the run used, by name.
    """

    title: str
    command: str
    summary: Mapping[str, str] = dataclasses.field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()
    other_figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, figures.Curve] = dataclasses.field(default_factory=dict)
    samples: np.ndarray | None = None
    labels: np.ndarray | None = None
    class_names: Sequence[str] | None = None
    points: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    trajectory: np.ndarray | None = None
    schedule: Schedule | None = None
    ema_sweep: Sequence[sweep.Row] = ()
    config: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels is not None:
            require(
                self.samples is not None and len(self.labels) == len(self.samples),
                f"labels: {len(self.labels)} for {0 if self.samples is None else len(self.samples)} samples",
            )


def write_report(path: str | Path, run: Report) -> None:
    """Writes the page of a run; a reader sees the old page or the new one, never half of one.

    Raises:
        ValueError: pictures of a wrong type or shape.
    """
    write_whole(path, render(run))


def render(run: Report) -> str:
    """Returns the page of a run as HTML.

    Raises:
        ValueError: pictures of a wrong type or shape.
    """
    sections = (
        _evaluation(run),
        _ema_sweep(run),
        _samples(run),
        _points(run),
        _pictures(run),
        _denoising(run),
        _training(run),
        _schedule(run),
        _setup(run),
    )
    # Each word is a box of its own, so that a narrow page does not break a line after the dashes of an option.
    command = re.sub(r"\S+", lambda word: f"<span>{_text(word[0])}</span>", run.command)
    facts = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in run.summary.items())
    return page.PAGE.format(
        title=_text(run.title),
        style=page.STYLE,
        command=f'<pre class="command">{command}</pre>',
        facts=f'<dl class="facts">{facts}</dl>' if facts else "",
        body="\n".join(section for section in sections if section),
    )


def _evaluation(run: Report) -> str:
    parts = [_figure_table(result) for result in run.evaluations]
    if run.other_figures:
        rows = "".join(_row(name, _number(value)) for name, value in run.other_figures.items())
        parts.append(f'<div class="wide others"><table><tbody>{rows}</tbody></table></div>')
    return _section("Evaluation", "".join(parts))


def _figure_table(result: Mapping[str, Any]) -> str:
    """One evaluation: the figures with the floor beside the distance, and the manifest folded in below."""
    distance, agreement = result.get("frechet"), result.get("agreement")
    manifest = result["manifest"]
    head = "".join(f'<th scope="col">{text}</th>' for text in ("", "samples", "real data", "ratio" if distance else ""))
    rows = ""
    if distance:
        ratio = "-" if result["ratio"] is None else f"{result['ratio']:.2f}"
        rows = _row(distance["label"], evaluate.bracket(distance), evaluate.spread(result), ratio)
    for figure in (*result.get("figures", {}).values(), agreement):
        if figure:
            rows += _row(figure["label"], evaluate.bracket(figure), evaluate.plain(figure, figure["real"]), "")
    note = f"{manifest['n']} samples against {manifest['n_reference']} of the {manifest['split']} split."
    if distance:
        floor = result["floor"]
        note += (
            f" Real data beside the Frechet distance is its floor: the distance of {floor['n']} training images to the "
            f"same images (mean ± standard deviation of {floor['repeats']} draws). Beside the classifier's figures it "
            "is the test split, beside all others training images in the place of the samples. The interval of the "
            "Frechet distance is of other samples of the same model, and leaves its bias as it is."
        )
    else:
        note += " Real data are other points of the same density."
    note += " Brackets are 95% intervals, of shares Wilson's."
    if agreement and agreement["real"] is not None:
        note += f" The classifier gives {agreement['real']:.1%} of the real images their own class."
    if manifest["solver"]:
        note += f" Solver: {_value(manifest['solver'])}, {manifest['steps']} steps."
    about = "".join(_row(key, _value(value)) for key, value in manifest.items())
    return (
        f'<div class="wide"><table class="scores"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="note">{_text(note)}</p>'
        f"<details><summary>Manifest</summary>{_plain_table(about)}</details>"
    )


def _ema_sweep(run: Report) -> str:
    if not run.ema_sweep:
        return ""
    first = run.ema_sweep[0]
    note = (
        f"Averages made after the training, of step {first['step']:.0f}, by their width as a share of the run "
        f"(sigma_rel). {first['n']:.0f} samples each, of the same noise."
    )
    panels = "".join(
        _panel(name, figures.lines(curves, "width of the average"))
        for name, curves in sweep.curves(run.ema_sweep).items()
    )
    return _section("Widths of the average", f'<p class="note">{_text(note)}</p><div class="panels">{panels}</div>')


def _samples(run: Report) -> str:
    if run.samples is None:
        return ""
    if run.labels is None:
        shown = run.samples[: _PLAIN_COLUMNS * _PLAIN_ROWS]
        return _section("Samples", _picture(figures.png(figures.grid(shown, _PLAIN_COLUMNS)), "samples", shown))
    rows = []
    for label in np.unique(run.labels):
        name = _class_name(run, int(label))
        row = np.asarray(run.samples)[np.asarray(run.labels) == label][:_CLASS_COLUMNS]
        # A short row takes its share of the width, so that its images are as large as the others'.
        picture = _picture(figures.png(figures.grid(row, _CLASS_COLUMNS)), f"samples of class {name}", row)
        share = f"{100 * len(row) / _CLASS_COLUMNS:g}%"
        rows.append(f'<dt>{_text(name)}</dt><dd><div style="width:{share}">{picture}</div></dd>')
    return _section("Samples by class", f'<dl class="classes">{"".join(rows)}</dl>')


def _points(run: Report) -> str:
    if not run.points:
        return ""
    svg = figures.scatter(run.points)
    image = f'<img class="points" src="{_uri("image/svg+xml", svg)}" alt="points of {_text(", ".join(run.points))}">'
    return _section("Samples over data", image)


def _pictures(run: Report) -> str:
    """A section for each of the family's own sheets."""
    sections = []
    for name, sheet in run.pictures.items():
        require(np.ndim(sheet) == 5, f"pictures: {name} is {np.shape(sheet)}; [rows, columns, H, W, C] is needed")
        image = figures.grid(sheet.reshape(-1, *sheet.shape[2:]), sheet.shape[1])
        heading = name.replace("_", " ").capitalize()
        note = f'<p class="note">{_CAPTIONS[name]}</p>' if name in _CAPTIONS else ""
        sections.append(_section(_text(heading), _picture(figures.png(image), heading, sheet) + note))
    return "\n".join(sections)


def _class_name(run: Report, label: int) -> str:
    if label < 0:
        return "any"
    return run.class_names[label] if run.class_names is not None else str(label)


def _denoising(run: Report) -> str:
    if run.trajectory is None:
        return ""
    trajectory = run.trajectory
    narrow = figures.strip(trajectory[:, :8], frames=10)
    columns = math.ceil(math.sqrt(1.25 * min(trajectory.shape[1], _ANIMATED)))  # about as tall as the strip
    whole = trajectory[:, : max(columns, min(trajectory.shape[1], _ANIMATED) // columns * columns)]
    scale = min(2, figures.natural_scale(trajectory))  # the browser enlarges it: noise does not compress
    moving = _uri("image/gif", figures.animation(whole, columns, scale))
    still = _uri("image/png", figures.png(figures.grid(whole[-1], columns, scale)))
    crisp = _crisp(trajectory)
    # Readers who ask their system for less motion get the result instead of the animation.
    animation = (
        f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
        f'<img class="{crisp}" src="{moving}" alt="the denoising of one batch, animated"></picture>'
    )
    return _section(
        "Denoising of one batch",
        f'<div class="pair"><figure>{_picture(figures.png(narrow), "the denoising of one batch", trajectory)}'
        f"<figcaption>From noise, left, to the result: one row a sample</figcaption></figure>"
        f"<figure>{animation}<figcaption>{len(trajectory)} moments, in time</figcaption></figure></div>",
    )


def _training(run: Report) -> str:
    groups: dict[str, dict[str, figures.Curve]] = {}
    for name, curve in run.metrics.items():
        whole, _, part = name.rpartition("/") if name.count("/") > 1 else (name, "", "")
        groups.setdefault(whole, {})[part] = curve
    panels = "".join(_panel(name, figures.metric(curves)) for name, curves in groups.items())
    return _section("Training", f'<div class="panels">{panels}</div>' if panels else "")


def _schedule(run: Report) -> str:
    if run.schedule is None:
        return ""
    s = run.schedule
    scales, log_snr = figures.schedule(s.t, s.alpha, s.sigma, s.log_snr)
    note = (
        "<p class='note'>x<sub>t</sub> = alpha(t) x<sub>0</sub> + sigma(t) eps; t = 0 is data, t = 1 is noise. "
        "log-SNR = log(alpha<sup>2</sup> / sigma<sup>2</sup>).</p>"
    )
    panels = _panel("alpha and sigma", scales) + _panel("log-SNR", log_snr)
    return _section("Noise schedule", f'{note}<div class="panels">{panels}</div>')


def _setup(run: Report) -> str:
    parts = []
    if run.config:
        parts.append(f"<details><summary>Resolved config</summary><pre>{_text(run.config)}</pre></details>")
    if run.versions:
        rows = "".join(_row(name, version) for name, version in run.versions.items())
        parts.append(f"<details><summary>Versions</summary>{_plain_table(rows)}</details>")
    return _section("Configuration", "".join(parts))


def _plain_table(rows: str) -> str:
    return f'<div class="wide"><table class="plain"><tbody>{rows}</tbody></table></div>'


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{heading}</h2>{body}</section>" if body else ""


def _panel(name: str, svg: bytes) -> str:
    image = f'<img src="{_uri("image/svg+xml", svg)}" alt="curve of {_text(name)}">'
    return f"<figure><figcaption>{_text(name)}</figcaption>{image}</figure>"


def _picture(data: bytes, alt: str, images: np.ndarray) -> str:
    return f'<img class="{_crisp(images)}" src="{_uri("image/png", data)}" alt="{_text(alt)}">'


def _crisp(images: np.ndarray) -> str:
    """The class of a picture of small images, whose pixels a browser must not blur."""
    return "crisp" if figures.natural_scale(images) > 1 else "smooth"


def _row(name: str, *cells: str) -> str:
    return f'<tr><th scope="row">{_text(name)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in cells)}</tr>'


def _value(value: Any) -> str:
    """A value of a manifest as text: a component reads `name(key=value, ...)`."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key}={item}" for key, item in value.items() if key != "name")
        name = value.get("name", "")
        return f"{name}({inner})" if inner else str(name)
    return {None: "-", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
