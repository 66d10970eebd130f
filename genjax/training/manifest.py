"""The manifest of a folder: the sizes and SHA-256 sums of all its files, by which any damage to them is seen."""

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from genjax.config import ConfigError

MANIFEST = "MANIFEST.json"
_CHUNK = 2**20  # bytes read at once
# Errors that tell of the process or the network and not of the file: what cannot be read now may be whole.
_NOT_DAMAGE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}


def write_manifest(folder: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    """Sums all files of a folder into its manifest, and flushes all of it to the disk.

    It is not written atomically: the folder shall get its name only afterwards.

    Args:
        folder: the folder, with those within.
        metadata: JSON values to be kept in the manifest.

    Raises:
        OSError: there is no space for it, or it is there already.
    """
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sums = pool.map(lambda name: _size_and_sum(folder / name, sync=True), names)
        files = dict(zip(names, sums, strict=True))
    with open(folder / MANIFEST, "x") as file:
        file.write(_render({"metadata": metadata, "files": files}))
        file.flush()
        os.fsync(file.fileno())
    for inner in folders:
        flush(inner)


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the `metadata`, and the `files` with the size and the sum of each by its path within the folder.

    Raises:
        ConfigError: it is missing, or differs in any bit from what was written.
        OSError: it cannot be read for a reason that is not its own, such as a missing permission.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
        content = json.loads(text)
        content = {"metadata": content["metadata"], "files": content["files"]}
        if _render(content).encode() == text:
            return content
    except OSError as error:
        raise ConfigError(f"{MANIFEST} {_fault(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ConfigError(f"{MANIFEST} differs from what was written")


def find_fault(folder: pathlib.Path) -> str | None:
    """Compares all files of a folder with its manifest.

    Returns:
        None where all are as they were written, else what is damaged.

    Raises:
        OSError: a file cannot be read for a reason that is not its own, such as a missing permission.
    """
    try:
        expected = read_manifest(folder)["files"]
    except ConfigError as error:
        return str(error)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        compared = pool.map(lambda name: _compare(folder / name, *expected[name]), expected)
        faults = [f"{name} {fault}" for name, fault in zip(expected, compared, strict=True) if fault]
    more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
    return faults[0] + more if faults else None


def flush(folder: pathlib.Path) -> None:
    """Makes the names in a folder survive a power cut; not all file systems can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _render(content: Mapping[str, Any]) -> str:
    """The text of a manifest, with its own checksum; the same text for what was read from it."""
    return json.dumps({"sha256": hashlib.sha256(json.dumps(content).encode()).hexdigest(), **content}, indent=1) + "\n"


def _size_and_sum(path: pathlib.Path, sync: bool = False) -> tuple[int, str]:
    """The bytes of a file and their SHA-256 sum; flushed to the disk if so wished."""
    size, digest = 0, hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
        if sync:
            os.fsync(file.fileno())
    return size, digest.hexdigest()


def _compare(path: pathlib.Path, size: int, digest: str) -> str | None:
    """What is wrong with a file."""
    try:
        if path.stat().st_size != size:
            return f"has {path.stat().st_size} bytes instead of {size}"
        return None if _size_and_sum(path) == (size, digest) else "differs from what was written"
    except OSError as error:
        return _fault(error)


def _fault(error: OSError) -> str:
    """What an error says of the file that was read; raises it again where it says nothing of it."""
    if error.errno in _NOT_DAMAGE:
        raise error
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
