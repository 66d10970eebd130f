"""The data source `pairs`: images that a model made, each with the noise that it made it from.

A folder has `image.npy` and `noise.npy`, float32 [N, H, W, C], `label.npy`, int32 [N], where there are labels, and
`pairs.json`, which says what the data are and how they came about. It is written last: a folder without it is not
whole.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from genjax.config import printable
from genjax.data.base import MEMORY_LIMIT, DataError, DataSpec
from genjax.files import write_whole
from genjax.registry import register

ABOUT = "pairs.json"
FORMAT = 1


@register("data", "pairs")
@dataclasses.dataclass(frozen=True)
class Pairs:
    """Images with the noise that a model made each of, as `genjax pairs` writes them: the data of reflow.

    The images are float32 as the model gave them, neither clipped nor rounded. They are read from the disk as they are
    asked for, by way of the system's own cache.

    Attributes:
        path: the folder.
    """

    path: str

    @property
    def spec(self) -> DataSpec:
        """The description of the data; the levels are those of the data that the model was trained on.

        Raises:
            DataError: there is no such folder, or it is damaged.
        """
        return self._contents[0]

    @property
    def flip(self) -> bool:
        """False: a mirrored image belongs to other noise."""
        return False

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `{"image": float32 [B, H, W, C], "noise": float32 [B, H, W, C], "label": int32 [B]}`.

        No label if unlabelled.
        """
        return {name: array[indices] for name, array in self._contents[1].items()}

    @functools.cached_property
    def _contents(self) -> tuple[DataSpec, dict[str, np.ndarray]]:
        return _open(pathlib.Path(self.path).expanduser())


def write_pairs(
    path: str | os.PathLike[str],
    spec: DataSpec,
    draw: Iterable[tuple[np.ndarray, np.ndarray]],
    labels: np.ndarray | None,
    about: Mapping[str, Any],
) -> None:
    """Writes a folder of pairs, batch by batch.

    Args:
        path: the folder; made where it is missing.
        spec: what the data are; `size` is the number of pairs.
        draw: images and noise, float32 [B, H, W, C] each, until there are enough; of the last what is needed.
        labels: the class of each [N], or None.
        about: how they came about, JSON values.

    Raises:
        DataError: there are pairs already.
        OSError: it cannot be written.
    """
    root = pathlib.Path(path)
    if (root / ABOUT).exists():
        raise DataError(f"{root} holds pairs already; name another folder, or remove this one")
    root.mkdir(parents=True, exist_ok=True)
    shape, done = (spec.size, *spec.image_shape), 0
    arrays = [np.lib.format.open_memmap(root / f"{name}.npy", "w+", np.float32, shape) for name in ("image", "noise")]
    for batch in draw:
        for array, part in zip(arrays, batch, strict=True):
            array[done : done + len(part)] = part[: spec.size - done]
        done += len(batch[0])
        if done >= spec.size:
            break
    for array in arrays:
        array.flush()
    if labels is not None:
        np.save(root / "label.npy", np.asarray(labels, np.int32))
    written = {
        "format": FORMAT,
        "size": spec.size,
        "image_shape": list(spec.image_shape),
        "num_classes": spec.num_classes if labels is not None else None,
        "class_names": list(spec.class_names) if spec.class_names and labels is not None else None,
        "levels": spec.levels,
        "about": dict(about),
    }
    write_whole(root / ABOUT, json.dumps(written, indent=2) + "\n")


def _open(root: pathlib.Path) -> tuple[DataSpec, dict[str, np.ndarray]]:
    shown = printable(str(root))
    try:
        said = json.loads((root / ABOUT).read_bytes().decode())
        if said["format"] != FORMAT:
            raise DataError(f"pairs {shown}: of format {said['format']!r}, and this version reads {FORMAT}")
        names = None if said["class_names"] is None else tuple(map(str, said["class_names"]))
        height, width, channels = map(int, said["image_shape"])
        spec = DataSpec((height, width, channels), said["num_classes"], int(said["size"]), names, levels=said["levels"])
    except OSError as error:
        raise DataError(
            f"pairs {shown}: no {ABOUT} in it ({error.strerror}); `genjax pairs --output={shown}` makes it"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"pairs {shown}: {ABOUT} is damaged: {printable(str(error))}") from error
    images = (spec.size, *spec.image_shape)
    arrays = {name: _array(root / f"{name}.npy", np.float32, images) for name in ("image", "noise")}
    if spec.num_classes is not None:
        arrays["label"] = np.array(_array(root / "label.npy", np.int32, (spec.size,)))
    in_memory = 2 * 4 * math.prod(images) <= MEMORY_LIMIT
    return dataclasses.replace(spec, in_memory=in_memory), arrays


def _array(path: pathlib.Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {printable(str(path))}: {printable(str(error))}") from error
    if array.dtype != dtype or array.shape != shape:
        raise DataError(
            f"{printable(str(path))} holds {array.dtype} {array.shape}, and {ABOUT} says {np.dtype(dtype)} {shape}"
        )
    return array
