"""Several runs side by side: a table of their figures and a sheet of their samples, from what is in the run folders."""

import dataclasses
import io
import itertools
import json
import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from rich import box
from rich.table import Table

from genjax.evaluation import figures, tables

SAMPLES = "evaluation.npz"  # within a run folder
_KEPT, _KEPT_POINTS = 40, 2000  # samples there
_LIKELIHOODS = ("nll_bpd", "iwae_bpd", "elbo_bpd")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run folder.

    Attributes:
        folder: the run folder.
        family: its registered name.
        dataset: what it was trained on; "?" before its evaluation.
        results: what `genjax evaluate` wrote; {} where there is nothing whole.
        name: of the folder, or as much of its path as tells it from others, see `distinct`.
        problem: why there are no results; None where there are.
    """

    folder: pathlib.Path
    family: str
    dataset: str
    results: Mapping[str, Any]
    name: str
    problem: str | None = None

    @property
    def measured_on(self) -> tuple[Any, ...]:
        """What has to be equal for distances to compare: data, split, numbers of images, weights of the features."""
        about = self.results.get("manifest", {})
        keys = ("dataset", "split", "n", "n_reference", "feature_network", "feature_network_hash")
        return tuple(about.get(key) for key in keys)

    def figure(self, name: str) -> Mapping[str, Any]:
        """Returns a figure of `evaluate.score`; {} where it was not measured."""
        found = self.results.get("frechet") if name == "frechet" else self.results.get("figures", {}).get(name)
        return found or {}

    def bits_per_dim(self) -> float | None:
        """Returns the least of the bounds on the bits/dim of held-out 8-bit images; None where there is none.

        Dequantization makes a flow's likelihood a bound too.
        """
        family = self.results.get("family", {})
        known = [family.get(f"test {name}") for name in _LIKELIHOODS]
        return min((value for value in known if value is not None), default=None)

    def per_thousand(self) -> float | None:
        """Returns the seconds that a thousand samples take once the sampler is compiled."""
        sampling = self.results.get("sampling")
        return 1000 * sampling["seconds"] / sampling["n"] if sampling else None


def read(folder: str | os.PathLike[str]) -> Entry | None:
    """Reads a run folder; returns None where it holds no run."""
    folder = pathlib.Path(folder)
    try:
        config = json.loads((folder / "config.json").read_bytes())
        family = str(config["family"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    path, name = folder / "evaluation.json", folder.resolve().name
    if not path.exists():
        return Entry(folder, family, "?", {}, name, "no evaluation yet")
    try:
        results = json.loads(path.read_bytes())
        entry = Entry(folder, family, str(results.get("manifest", {}).get("dataset", "?")), results, name)
        record(entry), _cells(entry), results["family"]  # all that is needed must be there
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Entry(folder, family, "?", {}, name, "evaluation.json is damaged or of another version")
    return entry


def distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Returns the runs with names that differ: the folder's, or where others have that too, the end of its path."""
    paths = [entry.folder.resolve().parts for entry in entries]

    def name(parts: tuple[str, ...]) -> str:
        ends = (parts[-length:] for length in range(1, len(parts)))
        found = next((end for end in ends if sum(other[-len(end) :] == end for other in paths) == 1), parts)
        return str(pathlib.PurePath(*found))

    return [dataclasses.replace(entry, name=name(parts)) for entry, parts in zip(entries, paths, strict=True)]


def grouped(entries: Sequence[Entry]) -> list[tuple[tuple[Any, ...], list[Entry]]]:
    """Returns the runs that have results, in groups whose distances compare, the best first in each."""

    def distance(entry: Entry) -> float:
        value = entry.figure("frechet").get("value")
        return math.inf if value is None else value

    def key(entry: Entry) -> tuple[str, ...]:
        return tuple(map(str, entry.measured_on))

    known = sorted((entry for entry in entries if entry.results), key=key)
    groups = [list(group) for _, group in itertools.groupby(known, key)]
    return [(group[0].measured_on, sorted(group, key=lambda e: (distance(e), e.name))) for group in groups]


def heading(measured_on: tuple[Any, ...]) -> str:
    """Returns in a line what a group of runs was measured on."""
    dataset, split, n, n_reference, network, network_hash = measured_on
    if n is None:
        return "no distances"
    features = f"; features of {network} {network_hash[:8]}" if network else ""
    return f"{dataset}, n = {n} against {n_reference} of {split}{features}"


def columns(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of runs that compare, as text; without the columns that none of them has."""
    lines = [_cells(entry) for entry in entries]
    header = [name for name in lines[0] if name == "run" or any(line[name] != "-" for line in lines)]
    return header, [[line[name] for name in header] for line in lines]


def _cells(entry: Entry) -> dict[str, str]:
    distance, ratio = entry.figure("frechet"), entry.results.get("ratio")
    kernel, modes, within = (entry.figure(name) for name in ("kernel_distance", "modes", "within"))

    def text(value: float | None, form: Callable[[float], str]) -> str:
        return "-" if value is None else form(value)

    def value_of(name: str, form: Callable[[float], str]) -> str:
        return text(entry.figure(name).get("value"), form)

    def share(value: float) -> str:
        return f"{value:.2f}"

    def with_half(value: float) -> str:
        high = distance.get("high")
        if high is None:
            return _short(value)
        half = high - value  # the lower one may be cut at zero
        form = tables.supported({"low": -half, "high": half})
        return f"{value:{form}} ±{half:{form}}"

    return {
        "run": entry.name,
        "distance": text(distance.get("value"), with_half),
        "ratio": text(ratio, lambda value: f"{value:.1f}"),
        "kernel": value_of("kernel_distance", lambda value: f"{value:{tables.supported(kernel)}}"),
        "modes": text(modes.get("value"), lambda value: f"{value:.0f}/{modes['total']}"),
        "in 3σ": text(within.get("value"), lambda value: f"{value:.1%}"),
        "log p": value_of("log_density", _short),
        "prec.": value_of("precision", share),
        "rec.": value_of("recall", share),
        "bpd": text(entry.bits_per_dim(), lambda value: f"≤{value:.2f}"),
        "size": text(entry.results.get("parameters"), tables.count),
        "train": text(entry.results.get("training_seconds"), tables.duration),
        "1000 in": text(entry.per_thousand(), tables.duration),
    }


def record(entry: Entry) -> dict[str, Any]:
    """Returns everything that is known of a run, flat, with all the digits."""
    distance, floor, about = entry.figure("frechet"), entry.results.get("floor", {}), entry.results.get("manifest", {})
    row: dict[str, Any] = {"run": entry.name, "family": entry.family, "dataset": entry.dataset}
    row |= {
        "distance": distance.get("value"),
        "distance_low": distance.get("low"),
        "distance_high": distance.get("high"),
    }
    row |= {"floor": floor.get("mean"), "ratio": entry.results.get("ratio")}
    for name, figure in entry.results.get("figures", {}).items():
        row |= {name: figure["value"], f"{name}_low": figure.get("low"), f"{name}_high": figure.get("high")}
        row |= {f"{name}_real": figure["real"]}
    row |= {"bits_per_dim_at_most": entry.bits_per_dim()}
    row |= {"parameters": entry.results.get("parameters"), "training_seconds": entry.results.get("training_seconds")}
    row |= {"sampling_seconds_per_1000": entry.per_thousand()}
    row |= {name: value for name, value in entry.results.get("family", {}).items()}
    kept = ("checkpoint_step", "n", "n_reference", "feature_network", "feature_network_hash")
    return row | {name: about.get(name) for name in kept}


LEGEND = (
    "distance: Frechet distance, with half of its 95% interval; ratio: to what real images get; kernel: kernel "
    "distance; bpd: a bound on the bits/dim of held-out images; size: weights of all networks; train: time to "
    "train; 1000 in: time for a thousand samples. The times are of the machine that each run was on."
)


def views(entries: Sequence[Entry]) -> list[tuple[str, Table]]:
    """Returns the runs as tables of about 80 columns, one for each group whose distances compare, with a line each."""
    found = []
    for key, group in grouped(entries):
        header, rows = columns(group)
        view = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for i, name in enumerate(header):
            view.add_column(name, justify="right" if i else "left", overflow="fold", no_wrap=i > 0)
        for row in rows:
            view.add_row(*row)
        found.append((heading(key), view))
    return found


def markdown(entries: Sequence[Entry]) -> str:
    """Returns the runs as Markdown, with a line and a table for each group whose distances compare."""
    parts = [(heading(key), *_coded(group)) for key, group in grouped(entries)]
    return "\n".join(f"{title}:\n\n{tables.to_markdown(header, rows)}" for title, header, rows in parts)


def latex(entries: Sequence[Entry]) -> str:
    """Returns the runs as LaTeX (booktabs), a `tabular` for each group whose distances compare."""
    parts = [(heading(key), *_coded(group)) for key, group in grouped(entries)]
    return "\n".join(f"% {title}\n{tables.to_latex(header, rows)}" for title, header, rows in parts)


def _coded(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    header, rows = columns(entries)
    return header, [[f"`{first}`", *others] for first, *others in rows]


def pack(samples: np.ndarray) -> bytes:
    """Returns the file of the samples that a sheet may show: the first ones, uint8 images or points."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=samples[: _KEPT if samples.dtype == np.uint8 else _KEPT_POINTS])
    return buffer.getvalue()


def sheet(entries: Sequence[Entry], columns: int = 20) -> Image.Image | None:
    """Returns samples of all the runs, a row each; None where no run has any.

    Images of one size share a scale; points are drawn as one picture a run.
    """
    rows: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
    for _, group in grouped(entries):
        for entry in group:
            samples = _samples(entry)
            if samples is not None:
                rows.setdefault(samples.shape[1:], []).append((entry.name, samples))
    parts = []
    for shape, runs in rows.items():
        names = [name for name, _ in runs]
        if shape[-1] in (1, 3) and runs[0][1].dtype == np.uint8:
            images = np.concatenate([np.resize(samples, (columns, *shape)) for _, samples in runs])
            parts.append(figures.grid(images, columns, row_labels=names))
        else:
            pictures = np.stack([np.asarray(figures.cloud(samples, side=192).convert("RGB")) for _, samples in runs])
            parts.append(figures.grid(pictures, 1, scale=1, row_labels=names))
    if not parts:
        return None
    gap = 16
    ground = Image.new(
        "RGB", (max(p.width for p in parts) + 2 * gap, sum(p.height + gap for p in parts) + gap), "white"
    )
    top = gap
    for part in parts:
        ground.paste(part, (gap, top), part)
        top += part.height + gap
    return ground


def _samples(entry: Entry) -> np.ndarray | None:
    try:
        with np.load(io.BytesIO((entry.folder / SAMPLES).read_bytes()), allow_pickle=False) as arrays:
            return arrays["samples"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _short(value: float) -> str:
    """Three digits, and no more than needed: "0.0412", "1.31", "128"."""
    return (
        f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.0e}"
    )
