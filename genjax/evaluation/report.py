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
from genjax.evaluation import evaluate, figures, sweep
from genjax.files import write_whole

_CLASS_COLUMNS = 10  # samples in the row of a class
_PLAIN_COLUMNS = 12  # samples in a row without classes
_PLAIN_ROWS = 6
_ANIMATED = 42  # samples in the animation, at most


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
        evaluations: results of `evaluate.score`.
        other_figures: further figures of the run by name, such as bits per dimension.
        metrics: (steps, values) of each training metric, as `figures.read_metrics` gives them. Parts of one metric,
            such as "train/mse_by_noise/0.1-0.3", share a panel.
        samples: uint8 [N, H, W, C].
        labels: the class of each sample [N], -1 for none.
        class_names: names of the classes; their numbers where there are none.
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
        _denoising(run),
        _training(run),
        _schedule(run),
        _setup(run),
    )
    # Each word is a box of its own, so that a narrow page does not break a line after the dashes of an option.
    command = re.sub(r"\S+", lambda word: f"<span>{_text(word[0])}</span>", run.command)
    facts = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in run.summary.items())
    return _PAGE.format(
        title=_text(run.title),
        style=_STYLE,
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
    floor, agreement = result["floor"], result["agreement"]
    distance = result["frechet"]
    head = "".join(f'<th scope="col">{text}</th>' for text in ("", "samples", "floor", "ratio"))
    ratio = "-" if result["ratio"] is None else f"{result['ratio']:.2f}"
    rows = _row(distance["label"], f"{distance['value']:.3f}", evaluate.spread(floor), ratio)
    if agreement:
        rows += _row(agreement["label"], evaluate.interval(agreement), "", "")
    note = (
        f"{distance['n']} samples against the {result['manifest']['n_reference']} images of the "
        f"{result['manifest']['split']} split. The floor is the distance of {floor['n']} training images to the same "
        f"images (mean ± standard deviation of {floor['repeats']} draws): what real images get."
    )
    if agreement:
        note += " The bracket is the 95% Wilson interval."
        if agreement["real"] is not None:
            note += f" The classifier gives {agreement['real']:.1%} of the real images their own class."
    if result["manifest"]["solver"]:
        note += f" Solver: {_value(result['manifest']['solver'])}, {result['manifest']['steps']} steps."
    manifest = "".join(_row(key, _value(value)) for key, value in result["manifest"].items())
    return (
        f'<div class="wide"><table class="scores"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="note">{_text(note)}</p>'
        f"<details><summary>Manifest</summary>{_plain_table(manifest)}</details>"
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


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1>{command}{facts}</header>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root {
  --ground: #fbfbfa; --card: #fff; --ink: #1d1f21; --soft: #62676d; --rule: #e3e4e6; --code: #f1f2f3;
}
@media (prefers-color-scheme: dark) {
  :root { --ground: #15171a; --card: #1c1f23; --ink: #e4e6e8; --soft: #9aa1a8; --rule: #2e3237; --code: #24282d; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5; -webkit-text-size-adjust: 100%;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 1rem; }
section {
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 1.25rem; margin-top: 1.25rem;
}
img { display: block; max-width: 100%; height: auto; }
.crisp { image-rendering: pixelated; }
.facts { display: flex; flex-wrap: wrap; gap: 0.5rem 2rem; margin: 0; }
.facts dt { color: var(--soft); font-size: 0.8rem; }
.facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.classes {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.4rem 0.9rem; align-items: center; margin: 0;
}
.classes dt { color: var(--soft); text-align: right; max-width: 8rem; overflow-wrap: anywhere; }
.classes dd { margin: 0; max-width: 40rem; }
.classes img, .pair img, .panels img { width: 100%; }
.pair {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: 1.25rem; align-items: start;
}
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1.25rem; }
figure { margin: 0; min-width: 0; }
figcaption { color: var(--soft); font-size: 0.875rem; margin-top: 0.4rem; }
.panels figcaption { color: var(--ink); font-weight: 600; margin: 0 0 0.25rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.45rem 0 0.45rem 1.25rem; border-bottom: 1px solid var(--rule); }
th[scope="row"] { text-align: left; font-weight: 400; padding-left: 0; }
th[scope="col"] { color: var(--soft); font-weight: 400; font-size: 0.875rem; }
.scores td { white-space: nowrap; }
.scores td:nth-child(2) { font-weight: 600; }
.plain { font-size: 0.875rem; }
.plain td { text-align: left; overflow-wrap: anywhere; width: 99%; }
.plain th[scope="row"] { color: var(--soft); white-space: nowrap; vertical-align: top; }
.note { color: var(--soft); font-size: 0.875rem; margin: 0.75rem 0 0; max-width: 46rem; }
.note + .panels { margin-top: 1rem; }
details { margin-top: 0.9rem; }
.others, details + .wide { margin-top: 1.25rem; }
summary { cursor: pointer; color: var(--soft); }
pre {
  background: var(--code); border-radius: 6px; padding: 0.8rem 1rem; margin: 0.5rem 0 0; overflow-x: auto;
  font: 0.85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
.command { white-space: pre-wrap; margin: 0 0 1.25rem; }
.command span { display: inline-block; max-width: 100%; overflow-wrap: anywhere; }
@media (max-width: 36rem) {
  main { padding: 1.5rem 0.75rem 3rem; }
  section { padding: 1rem; }
  .scores tr {
    display: grid; grid-template-columns: 6rem 1fr 3rem; border-bottom: 1px solid var(--rule); padding: 0.4rem 0;
  }
  .scores th, .scores td { border: 0; padding: 0; text-align: left; }
  .scores th[scope="row"] { grid-column: 1 / -1; }
  .scores td:empty, .scores th:empty { display: none; }
}
@media print { section { break-inside: avoid; } }
"""
