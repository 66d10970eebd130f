"""The data source `folder`: pictures in a folder, with classes by subfolder, or labels and captions in a file."""

import dataclasses
import functools
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np

from genjax.config import require
from genjax.data import images
from genjax.data.base import MEMORY_LIMIT, DataError, DataSpec, Opened, batch_of, fits, in_memory, read_all
from genjax.registry import register

METADATA = "metadata.jsonl"
_LOG = logging.getLogger(__name__)


@register("data", "folder")
@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of images, searched with its subfolders in alphabetical order.

    Without `metadata.jsonl` the data set is every file with an image's suffix. With it, it is the files that it
    names, one JSON object a line: `file_name`, relative to the folder, and `text` (a caption) or `label` (a name, or
    a number from 0) or both, the same keys in every line. If the labels are not given there, the first level of
    subfolders gives the classes, when there are at least two subfolders and no image lies beside them.

    Attributes:
        path: the folder.
        image_size: height and width to resize to; None keeps the images as they are, all of one size.
        center_crop: side of the central square cut out before the resize, in source pixels; None takes the largest
            square if there is an `image_size`, and otherwise the whole image.
        channels: 1 (grey), 3 (colour) or 4 (with transparency); other images are converted.
        flip: whether training mirrors images at random.
        on_error: what an unreadable image does: "raise" stops; "skip" leaves it out, names it and its reason in a
            warning, and lists it in `skipped`. With "skip", every image is decoded once when the folder is opened.
        memory_limit: decoded images of up to this many bytes are kept in memory; above it, each batch is decoded
            when it is asked for.
    """

    path: str
    image_size: int | None = None
    center_crop: int | None = None
    channels: int = 3
    flip: bool = False
    on_error: str = "raise"
    memory_limit: int = MEMORY_LIMIT

    def __post_init__(self) -> None:
        require(bool(self.path), "path: must be the path of a folder")
        images.check_sizes(self.image_size, self.center_crop)
        require(self.channels in (1, 3, 4), f"channels = {self.channels}: must be 1, 3 or 4")
        require(self.on_error in ("raise", "skip"), f"on_error = {self.on_error!r}: must be 'raise' or 'skip'")
        require(self.memory_limit >= 0, f"memory_limit = {self.memory_limit}: must be at least 0 bytes")

    @property
    def spec(self) -> DataSpec:
        """The description of the data.

        Raises:
            DataError: the folder or its metadata cannot be read, or an image cannot and is not to be skipped.
        """
        return self._contents.opened.spec

    @property
    def captions(self) -> tuple[str, ...] | None:
        """One caption an image, in the order of the indices, or None if the folder has none."""
        return self._contents.captions

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of every image that was left out."""
        return self._contents.skipped

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the images and labels of the indices; see `genjax.data.base.Source`."""
        return self._contents.opened.gather(indices)

    @functools.cached_property
    def _contents(self) -> "_Contents":
        return _open(self)


@dataclasses.dataclass(frozen=True)
class _Contents:
    opened: Opened
    captions: tuple[str, ...] | None
    skipped: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class _Entry:
    name: str  # relative to the folder
    text: str | None = None
    label: str | int | None = None


def _open(config: Folder) -> _Contents:
    root = pathlib.Path(config.path).expanduser()
    if not root.is_dir():
        raise DataError(f"folder {config.path!r}: there is no such folder")
    entries = _from_metadata(root) if (root / METADATA).exists() else _from_files(root)
    labels, num_classes, class_names = _classes(entries)
    failures: dict[int, str] = {}

    def read(i: int) -> np.ndarray | None:
        try:
            return images.decode(root / entries[i].name, config.channels, config.image_size, config.center_crop)
        except images.ImageError as error:
            if config.on_error == "raise":
                raise DataError(f"cannot read image {root / entries[i].name}: {error}") from error
            failures[i] = str(error)
            return None

    shape = images.shape_after((None, None, config.channels), config.image_size, config.center_crop)
    if shape is None:
        first = next((image for image in map(read, range(len(entries))) if image is not None), None)
        shape = (0, 0, 0) if first is None else first.shape

    def read_checked(i: int) -> np.ndarray | None:
        image = read(i)
        if image is not None and image.shape != shape:
            raise DataError(f"image {root / entries[i].name}: its shape is {image.shape}, not {shape}: set image_size")
        return image

    keep = fits(len(entries), shape, config.memory_limit)
    arrays, kept = np.empty(0, np.uint8), np.arange(len(entries))
    if keep or config.on_error == "skip":
        arrays, kept = read_all(len(entries), shape, lambda chunk: ((i, read_checked(i)) for i in chunk), keep)
    skipped = tuple((entries[i].name, failures[i]) for i in sorted(failures))
    for name, reason in skipped:
        _LOG.warning("skipped image %s: %s", root / name, reason)
    if skipped:
        _LOG.warning("skipped %d of %d images in %s", len(skipped), len(entries), root)
    if len(kept) == 0:
        raise DataError(f"folder {root}: none of its {len(entries)} images can be read")

    kept_labels = None if labels is None else labels[kept]

    def gather(indices: np.ndarray) -> dict[str, np.ndarray]:
        found = [image for i in kept[indices].tolist() if (image := read_checked(i)) is not None]
        if len(found) < len(indices):
            raise DataError(f"folder {root}: an image that could be read when the folder was opened no longer can")
        return batch_of(np.stack(found), None if kept_labels is None else kept_labels[indices])

    captions = tuple(str(entries[i].text) for i in kept) if entries[0].text is not None else None
    spec = DataSpec(shape, num_classes, len(kept), class_names, in_memory=keep)
    return _Contents(Opened(spec, in_memory(arrays, kept_labels) if keep else gather), captions, skipped)


def _from_files(root: pathlib.Path) -> list[_Entry]:
    """Lists the images of a folder. Names that begin with a dot are left out, as `ls` does."""

    def fail(error: OSError) -> None:
        raise DataError(f"cannot list folder {error.filename}: {error.strerror}") from error

    names = []
    for place, subfolders, files in os.walk(root, onerror=fail):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and pathlib.Path(name).suffix.lower() in images.SUFFIXES:
                names.append((pathlib.Path(place) / name).relative_to(root).as_posix())
    if not names:
        raise DataError(f"folder {root}: no images in it; it may hold {', '.join(sorted(images.SUFFIXES))}")
    return [_Entry(name) for name in sorted(names)]


def _from_metadata(root: pathlib.Path) -> list[_Entry]:
    """Reads `metadata.jsonl`. Every mistake in it is an error, whatever `on_error` says."""
    path = root / METADATA
    entries: list[_Entry] = []
    seen: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = _entry(json.loads(line), root)
            require(entry.name not in seen, f"file_name {entry.name!r} is also in line {seen.get(entry.name)}")
            if entries:
                _check_alike(entry, entries[0])
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        seen[entry.name] = number
        entries.append(entry)
    if not entries:
        raise DataError(f"{path} names no images")
    return entries


def _entry(value: Any, root: pathlib.Path) -> _Entry:
    require(isinstance(value, dict), "not a JSON object")
    name, text, label = value.get("file_name"), value.get("text"), value.get("label")
    require(isinstance(name, str) and bool(name), "file_name: must be the path of an image, relative to the folder")
    require(text is None or isinstance(text, str), f"text: must be a string, not {text!r}")
    is_number = isinstance(label, int) and not isinstance(label, bool)
    require(label is None or isinstance(label, str) or is_number, f"label: must be a name or a number, not {label!r}")
    # An embedding table has one row a label: a stray number must not ask for gigabytes.
    require(not is_number or 0 <= label < 2**20, f"label = {label}: must lie in [0, {2**20})")
    require("\0" not in name, f"file_name {name!r}: not a path")
    # Metadata come with downloaded data: they must not pull other files of the machine into the data set.
    inside = (root / name).resolve().is_relative_to(root.resolve())
    require(inside and ".." not in pathlib.PurePath(name).parts, f"file_name {name!r} leads out of the folder")
    return _Entry(pathlib.PurePath(name).as_posix(), text, label)


def _check_alike(entry: _Entry, first: _Entry) -> None:
    for key in ("text", "label"):
        has, had = getattr(entry, key) is not None, getattr(first, key) is not None
        require(has == had, f"{'has a' if has else 'has no'} {key}, unlike the first line: all or none must have one")
    require(type(entry.label) is type(first.label), f"label {entry.label!r}: names and numbers must not be mixed")


def _classes(entries: list[_Entry]) -> tuple[np.ndarray | None, int | None, tuple[str, ...] | None]:
    """Returns the labels, int32 [N], their number and their names; None each if there are none."""
    labels: list[Any] = [entry.label for entry in entries]
    if labels[0] is None:
        parts = [pathlib.PurePosixPath(entry.name).parts for entry in entries]
        labels = [part[0] for part in parts]
        if any(len(part) == 1 for part in parts) or len(set(labels)) < 2:
            return None, None, None
    if isinstance(labels[0], int):
        return np.array(labels, np.int32), max(labels) + 1, None
    names = tuple(sorted(set(labels)))
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[label] for label in labels], np.int32), len(names), names
