"""The data source `folder`: pictures in a folder, with classes by subfolder, or labels and captions in a file."""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from genjax.config import printable, require
from genjax.data import images
from genjax.data.base import MEMORY_LIMIT, DataError, DataSpec, Opened, batch_of, fits, in_memory, read_all
from genjax.registry import register

METADATA = "metadata.jsonl"
# The most that a line of it may have in bytes, and what is in it in characters.
_LINE_BYTES, _TEXT_LENGTH, _LABEL_LENGTH = 2**20, 2**16, 2**10
_CLASSES = 2**20
_LOG = logging.getLogger(__name__)
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 200
_short = _repr.repr  # of what a stranger wrote, in an error


@register("data", "folder")
@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of images, searched with its subfolders in alphabetical order.

    Without `metadata.jsonl` the data set is every file with an image's suffix. With it, it is the files that it
    names, one JSON object a line: `file_name`, relative to the folder, and `text` (a caption) or `label` (a name, or
    a number from 0) or both, the same keys in every line. If the labels are not given there, the first level of
    subfolders gives the classes, when there are at least two subfolders and no image lies beside them.

    The folder is taken to come from strangers: what leads out of it, is no regular file or would unpack to a huge image
    is refused, and names are escaped where they are shown.

    Attributes:
        path: the folder.
        image_size: height and width to resize to; None keeps the images as they are, all of one size.
        center_crop: side of the central square cut out before the resize, in source pixels; None takes the largest
            square if there is an `image_size`, and otherwise the whole image.
        channels: 1 (grey), 3 (colour) or 4 (with transparency); other images are converted.
        flip: whether training mirrors images at random.
        on_error: what an unreadable image does: "raise" stops; "skip" leaves it out, names it and its reason in a
            warning, and lists it in `skipped`. With "skip", every image is decoded once when the folder is opened.
        max_pixels: height times width above which an image is refused before it is decoded.
        memory_limit: decoded images of up to this many bytes are kept in memory; above it, each batch is decoded
            when it is asked for.
    """

    path: str
    image_size: int | None = None
    center_crop: int | None = None
    channels: int = 3
    flip: bool = False
    on_error: str = "raise"
    max_pixels: int = images.MAX_PIXELS
    memory_limit: int = MEMORY_LIMIT

    def __post_init__(self) -> None:
        require(bool(self.path), "path: must be the path of a folder")
        images.check_sizes(self.image_size, self.center_crop)
        require(self.channels in (1, 3, 4), f"channels = {self.channels}: must be 1, 3 or 4")
        require(self.on_error in ("raise", "skip"), f"on_error = {self.on_error!r}: must be 'raise' or 'skip'")
        require(
            1 <= self.max_pixels <= images.PILLOWS_PIXELS,
            f"max_pixels = {self.max_pixels}: must be from 1 to {images.PILLOWS_PIXELS}",
        )
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

    def shown(i: int) -> str:
        return printable(str(root / entries[i].name))

    def read(i: int) -> np.ndarray | None:
        try:
            if not _is_inside(root, entries[i].name):
                raise images.ImageError("a link that leads out of the folder")
            path, size, crop = root / entries[i].name, config.image_size, config.center_crop
            return images.decode(path, config.channels, size, crop, config.max_pixels)
        except images.ImageError as error:
            if config.on_error == "raise":
                raise DataError(f"cannot read image {shown(i)}: {error}") from error
            failures[i] = str(error)
            return None

    shape = images.shape_after((None, None, config.channels), config.image_size, config.center_crop)
    if shape is None:
        first = next((image for image in map(read, range(len(entries))) if image is not None), None)
        shape = (0, 0, 0) if first is None else first.shape

    def read_checked(i: int) -> np.ndarray | None:
        image = read(i)
        if image is not None and image.shape != shape:
            raise DataError(f"image {shown(i)}: its shape is {image.shape}, not {shape}: set image_size")
        return image

    keep = fits(len(entries), shape, config.memory_limit)
    arrays, kept = np.empty(0, np.uint8), np.arange(len(entries))
    if keep or config.on_error == "skip":
        arrays, kept = read_all(len(entries), shape, lambda chunk: ((i, read_checked(i)) for i in chunk), keep)
    skipped = tuple((entries[i].name, failures[i]) for i in sorted(failures))
    for i, reason in sorted(failures.items()):
        _LOG.warning("skipped image %s: %s", shown(i), reason)
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
        raise DataError(f"cannot list folder {printable(str(error.filename))}: {error.strerror}") from error

    names = []
    try:
        for place, subfolders, files in os.walk(root, onerror=fail):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in files:
                if not name.startswith(".") and pathlib.Path(name).suffix.lower() in images.SUFFIXES:
                    names.append((pathlib.Path(place) / name).relative_to(root).as_posix())
    except RecursionError as error:
        raise DataError(f"cannot list folder {root}: folders within folders, too deep") from error
    if not names:
        raise DataError(f"folder {root}: no images in it; it may hold {', '.join(sorted(images.SUFFIXES))}")
    return [_Entry(name) for name in sorted(names)]


def _from_metadata(root: pathlib.Path) -> list[_Entry]:
    """Reads `metadata.jsonl`. Every mistake in it is an error, whatever `on_error` says."""
    path = root / METADATA
    entries: list[_Entry] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(root), 1):
        try:
            require(len(line) <= _LINE_BYTES, f"longer than {_LINE_BYTES} bytes")
            if not line.strip():
                continue
            entry = _entry(json.loads(line.decode()), root)
            before = seen.get(entry.name)
            require(before is None, f"file_name {_short(entry.name)} is also in line {before}")
            if entries:
                _check_alike(entry, entries[0])
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        seen[entry.name] = number
        entries.append(entry)
    if not entries:
        raise DataError(f"{path} names no images")
    return entries


def _lines(root: pathlib.Path) -> Iterator[bytes]:
    """Yields the lines of the metadata; of one that is too long, enough to see it."""
    path = root / METADATA
    try:
        if not _is_inside(root, METADATA):
            raise images.ImageError("a link that leads out of the folder")
        with images.open_regular(path) as file:
            while line := file.readline(_LINE_BYTES + 1):
                yield line
    except (OSError, images.ImageError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _is_inside(root: pathlib.Path, name: str) -> bool:
    """Whether a file is within the folder once all links are followed."""
    # Not `Path.resolve`, which raises where links go in a circle.
    return pathlib.Path(os.path.realpath(root / name)).is_relative_to(os.path.realpath(root))


def _entry(value: Any, root: pathlib.Path) -> _Entry:
    require(isinstance(value, dict), "not a JSON object")
    name, text, label = value.get("file_name"), value.get("text"), value.get("label")
    require(isinstance(name, str) and bool(name), "file_name: must be the path of an image, relative to the folder")
    require(text is None or isinstance(text, str), f"text: must be a string, not {_short(text)}")
    is_number = isinstance(label, int) and not isinstance(label, bool)
    is_label = label is None or isinstance(label, str) or is_number
    require(is_label, f"label: must be a name or a number, not {_short(label)}")
    # An embedding table has one row a label: a stray number must not ask for gigabytes.
    require(not is_number or 0 <= label < _CLASSES, f"label = {_short(label)}: must lie in [0, {_CLASSES})")
    for key, word, most in (("text", text, _TEXT_LENGTH), ("label", label, _LABEL_LENGTH)):
        require(not isinstance(word, str) or len(word) <= most, f"{key}: longer than {most} characters")
        require(not isinstance(word, str) or _is_unicode(word), f"{key} {_short(word)}: half of a character")
    require("\0" not in name and _is_unicode(name), f"file_name {_short(name)}: not a path")
    # Metadata come with downloaded data: they must not pull other files of the machine into the data set.
    inside = ".." not in pathlib.PurePath(name).parts and _is_inside(root, name)
    require(inside, f"file_name {_short(name)} leads out of the folder")
    return _Entry(pathlib.PurePath(name).as_posix(), text, label)


def _is_unicode(word: str) -> bool:
    """Whether a string can be written at all: JSON can give one half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def _check_alike(entry: _Entry, first: _Entry) -> None:
    for key in ("text", "label"):
        has, had = getattr(entry, key) is not None, getattr(first, key) is not None
        require(has == had, f"{'has a' if has else 'has no'} {key}, unlike the first line: all or none must have one")
    label = _short(entry.label)
    require(type(entry.label) is type(first.label), f"label {label}: names and numbers must not be mixed")


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
    names = sorted(set(labels))
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[label] for label in labels], np.int32), len(names), tuple(map(printable, names))
