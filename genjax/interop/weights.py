"""Weights as safetensors files with a checksum.

A flipped bit in a safetensors file reads without an error, so the header has the SHA-256 of everything else, and
reading compares it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from genjax.config import ConfigError, require
from genjax.files import write_whole

Tensors = dict[str, np.ndarray]
_CHECKSUM = "sha256"  # its key in the header's metadata


class WeightsError(ConfigError):
    """A file of weights that cannot be read or is not what was written, and why."""


def save_safetensors(
    path: str | os.PathLike[str], params: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes weights so that a reader, or a process that is killed, leaves the whole file or the one before.

    Args:
        path: the file; its folder is made where it is missing.
        params: trees of arrays by role, such as `restore_params` of `genjax.training.checkpoints` returns; all of each
            array must be on this machine. A weight is called "role/path/name". Sections without weights are left out.
        metadata: what else the header shall say.

    Raises:
        ValueError: a name with a slash in it, or `metadata` that are no strings or have the checksum's key.
        OSError: the file cannot be written.
    """
    write(path, dict(_flatten(params)), metadata)


def load_safetensors(path: str | os.PathLike[str], checked: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads what `save_safetensors` wrote.

    Args:
        path: the file.
        checked: False for files of other programs, which have no checksum.

    Returns:
        Trees of NumPy arrays by role, and the metadata.

    Raises:
        WeightsError: no such file, or it is damaged.
    """
    tensors, metadata = read(path, checked)
    params: dict[str, Any] = {}
    for name, value in tensors.items():
        section, (*sections, leaf) = params, name.split("/")
        for key in sections:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise WeightsError(f"{path}: {name!r} leads into a weight")
        if leaf in section:
            raise WeightsError(f"{path}: {name!r} is a weight and a section")
        section[leaf] = value
    return params, metadata


def write(path: str | os.PathLike[str], tensors: Tensors, metadata: Mapping[str, str] | None = None) -> None:
    """Writes named arrays as `save_safetensors` does."""
    about = dict(metadata or {})
    require(_CHECKSUM not in about, f"metadata: {_CHECKSUM!r} is the checksum's key")
    require(all(isinstance(word, str) for item in about.items() for word in item), "metadata: must be strings")
    # Of arrays that do not lie in memory in the order of their axes, safetensors writes another order without a word.
    tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    data = safetensors.numpy.save(tensors, metadata=about | {_CHECKSUM: weights_hash(tensors, about)})
    write_whole(path, data)


def read(path: str | os.PathLike[str], checked: bool = True) -> tuple[Tensors, dict[str, str]]:
    """Reads named arrays and the metadata as `load_safetensors` does."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    # What safetensors raises of a header that lies is not only its own error.
    except Exception as error:
        raise WeightsError(f"{path}: damaged, or no safetensors file: {error}") from error
    expected = metadata.pop(_CHECKSUM, None)
    if checked and expected is None:
        raise WeightsError(f"{path}: damaged, or of another program: its header has no checksum")
    if checked and expected != weights_hash(tensors, metadata):
        raise WeightsError(f"{path}: damaged: what it holds is not what was written")
    return tensors, metadata


def weights_hash(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> str:
    """Returns the SHA-256 over names, shapes, types and values of tensors, and over metadata, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        little_endian = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        digest.update(f"{name} {little_endian.dtype.str} {value.shape}\0".encode())
        digest.update(little_endian.tobytes())
    if metadata:
        digest.update(json.dumps(metadata, sort_keys=True).encode())
    return digest.hexdigest()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in tree.items():
        require(isinstance(key, str) and bool(key) and "/" not in key, f"{prefix}{key!r}: a name is a word without /")
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", np.asarray(value)
