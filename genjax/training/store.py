"""A folder of steps that are written in the background and come back as they were, or are known to be damaged.

The one module that wraps orbax. It adds what orbax lacks: orbax restores a flipped bit without an error. A step is
written to `<step>.writing`; when orbax is done with it, a manifest of all files' sizes and SHA-256 sums joins them,
everything is flushed to the disk, and one rename to `<step>` commits it. So a folder whose name is a number is complete
or damaged, never half-written, and `verify` tells which.

Of several processes, which share the file system, all take part in orbax's writing and reading; the first alone sums,
renames and deletes.
"""

import concurrent.futures
import json
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging as absl_logging
from jax.experimental import multihost_utils
from orbax.checkpoint import v1
from rich.filesize import decimal

from genjax.config import ConfigError
from genjax.training.errors import FULL, DiskFull, TrainingStopped
from genjax.training.manifest import find_fault, flush, read_manifest, write_manifest

_LEFTOVER = re.compile(r"\d+\.(writing|deleting)")
_UNKNOWN = -1  # beside exit statuses: still writing


class Store:
    """The steps in one folder. One run at a time may write to it."""

    def __init__(self, directory: str | os.PathLike[str], *, read_only: bool = False) -> None:
        """Opens the folder.

        Args:
            directory: the folder.
            read_only: leave the folder as it is, missing or not. Else it is created where it is missing, and what a
                killed run has left half-written or half-deleted is removed.
        """
        self.directory = pathlib.Path(directory).resolve()
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "store")
        self._pending: tuple[int, concurrent.futures.Future[None]] | None = None
        absl_logging.get_absl_logger().addFilter(_is_news)
        if not read_only and leads():
            self.directory.mkdir(parents=True, exist_ok=True)
        if not read_only:
            self._sweep()

    def steps(self) -> list[int]:
        """Returns the committed steps, in order; none where there is no folder."""
        return sorted(self._folders())

    def path(self, step: int) -> pathlib.Path:
        """Returns the folder of a step, which need not exist."""
        return self._folders().get(step, self.directory / f"{step:08d}")

    def save(
        self,
        step: int,
        parts: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> bool:
        """Starts to write a step, and returns when the arrays may be donated. To be called by all processes.

        Waits for the one before where that is still being written.

        Args:
            step: its name.
            parts: trees of arrays by name, none without an array; each can be loaded without the others.
            metadata: JSON values to be kept with it.
            done: called with the step once it is committed, in the background, by the first process.

        Returns:
            Whether anything is written: False where the step is there already.

        Raises:
            DiskFull: there was no space for the step before this one.
            TrainingStopped: another process could not write its share of it.
            TypeError: JSON has no form for the metadata.
            Exception: whatever else went wrong with the step before this one.
        """
        metadata = json.loads(json.dumps(dict(metadata or {})))  # a copy, before the caller changes it
        self.wait()
        if agree(step in self.steps()):
            return False
        self._sweep()
        failed: concurrent.futures.Future[None] = concurrent.futures.Future()
        size = sum(_key_data(leaf).size * _key_data(leaf).dtype.itemsize for leaf in jax.tree.leaves(dict(parts)))
        try:
            writing = v1.save_checkpointables_async(self._draft(step), dict(parts))
        except Exception as error:
            # Kept until all processes ask together, because those that had no error would wait for this one.
            failed.set_exception(self._abandon(error, step, size) or error)
            self._pending = step, failed
        else:
            job = self._pool.submit(self._finish, step, writing, size, metadata, done)
            self._pending = step, job
        return True

    def wait(self) -> None:
        """Waits until what is being written is committed. To be called by all processes.

        Raises:
            DiskFull: there was no space for it.
            TrainingStopped: another process could not write its share.
            Exception: whatever else went wrong.
        """
        if self._pending is None:
            return
        (step, job), self._pending = self._pending, None
        error = job.exception() if jax.process_count() == 1 else self._first_error(step, job)
        if error is not None:
            raise error

    def close(self) -> None:
        """Waits for what this process is writing, and raises what went wrong with it.

        Unlike `wait` it does not wait for the other processes, one of which may be why the store is closed.
        """
        try:
            if self._pending is not None:
                (_, job), self._pending = self._pending, None
                job.result()
        finally:
            self._pool.shutdown(wait=False)

    def verify(self, step: int) -> str | None:
        """Compares all files of a step with its manifest.

        Returns:
            None where all are as they were written, else what is damaged.

        Raises:
            ConfigError: there is no such step.
            OSError: it cannot be read for a reason that is not its own, such as too many open files.
        """
        return find_fault(self._existing(step))

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns the JSON values that were saved with a step.

        Raises:
            ConfigError: there is no such step, or its manifest is damaged.
        """
        return read_manifest(self._existing(step))["metadata"]

    def shapes(self, step: int) -> dict[str, Any]:
        """Returns what `load` takes to read all parts of a step onto this process's first device.

        The containers are dicts and lists, whatever they were; random keys are their bits.

        Raises:
            ConfigError: there is no such step.
        """
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = v1.checkpointables_metadata(self._existing(step)).metadata
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), dict(saved))

    def load(self, step: int, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Reads some parts of a step, bit for bit as they were saved. To be called by all processes.

        It does not look for damage: `verify` does.

        Args:
            step: which one.
            wanted: by the parts' names, trees of arrays or of their shapes with shardings, which say where the arrays
                go; on other devices than those that saved them, if need be.

        Raises:
            ConfigError: there is no such step, or its structure is another.
        """
        folder = self._existing(step)
        abstract = {name: jax.tree.map(_abstract, tree) for name, tree in wanted.items()}
        saved = v1.checkpointables_metadata(folder).metadata
        _check_fit({name: saved.get(name, {}) for name in abstract}, abstract, folder)
        return v1.load_checkpointables(folder, abstract)

    def set_aside(self, step: int) -> pathlib.Path:
        """Renames a step, so that it is none any more but can be looked at; returns where it is. By one process."""
        folder = self._existing(step)
        aside, count = folder.with_name(f"damaged-{folder.name}"), 1
        while aside.exists():
            count += 1
            aside = folder.with_name(f"damaged-{folder.name}-{count}")
        folder.rename(aside)
        return aside

    def delete(self, step: int) -> None:
        """Removes a step. It is renamed first, so that none is seen half-deleted. By one process."""
        folder = self._existing(step)
        doomed = folder.with_name(f"{folder.name}.deleting")
        folder.rename(doomed)
        # What somebody still reads, NFS does not remove; the next sweep does, and a run need not end for it.
        shutil.rmtree(doomed, ignore_errors=True)

    def _finish(
        self,
        step: int,
        writing: v1.AsyncResponse[None],
        size: int,
        metadata: Mapping[str, Any],
        done: Callable[[int], None] | None,
    ) -> None:
        """Waits for orbax and commits; in the background."""
        try:
            writing.result()
            if not leads():
                return
            draft = self._draft(step)
            write_manifest(draft, metadata)
            draft.rename(self.path(step))
            flush(self.directory)
        except Exception as error:
            full = self._abandon(error, step, size)
            if full is not None:
                raise full from error
            raise
        if done is not None:
            done(step)

    def _first_error(self, step: int, job: concurrent.futures.Future[None]) -> BaseException | None:
        """What went wrong in any of several processes, on all of them, as soon as one knows.

        Orbax would let the others wait for that one for five minutes.
        """
        while True:
            concurrent.futures.wait([job], timeout=0.2)
            done = job.done()  # asked once: it may change in between
            error = job.exception() if done else None
            code = getattr(error, "exit_code", TrainingStopped.exit_code) if error else 0
            codes = multihost_utils.process_allgather(np.int32(code if done else _UNKNOWN))
            if not codes.any():
                return None
            if codes.max() > 0:
                self._sweep()
                stopped = TrainingStopped(f"{self.path(step)} was not saved: process {codes.argmax()} could not write")
                stopped.exit_code = int(codes.max())
                return error or stopped

    def _abandon(self, error: Exception, step: int, size: int) -> DiskFull | None:
        """Removes what there is of a step; returns what to do where the reason is a full disk, else None."""
        self._sweep()
        number = _os_error(error)
        if number is None or number not in FULL:
            return None
        steps = self.steps()
        before = f"the checkpoint of step {steps[-1]} is intact" if steps else "there is none before it"
        free = shutil.disk_usage(self.directory).free
        others = sorted(path.name for path in self.directory.iterdir() if path.name[-1:].isdigit())
        older = f" (there are {', '.join(others)})" if others else ""
        return DiskFull(
            f"{self.path(step)} was not saved: {os.strerror(number)}; {before}\n"
            f"  It needs up to {decimal(size)}, and {decimal(free)} are free for {self.directory}\n"
            f"  Remove what is not needed any more, such as older checkpoints{older}, keep fewer with "
            "--config.training.keep, or raise the quota; then start again"
        )

    def _draft(self, step: int) -> pathlib.Path:
        return self.directory / f"{step:08d}.writing"

    def _folders(self) -> dict[int, pathlib.Path]:
        if not self.directory.is_dir():
            return {}
        return {int(path.name): path for path in self.directory.iterdir() if path.name.isdecimal() and path.is_dir()}

    def _existing(self, step: int) -> pathlib.Path:
        """The folder of a step; ConfigError where there is none."""
        folders = self._folders()
        if not folders:
            raise ConfigError(f"{self.directory}: no checkpoint yet")
        if step not in folders:
            there = ", ".join(map(str, sorted(folders)))
            raise ConfigError(f"{self.directory}: no checkpoint of step {step}; there are {there}")
        return folders[step]

    def _sweep(self) -> None:
        """Removes what is half-written or half-deleted, when nothing is being written."""
        for path in self.directory.iterdir() if leads() else ():
            if _LEFTOVER.match(path.name):
                # Threads of a save that has failed may still be writing; what they leave is removed by the next sweep.
                shutil.rmtree(path, ignore_errors=True)


def leads() -> bool:
    """Whether this is the process that renames and deletes."""
    return jax.process_index() == 0


def agree(value: int) -> int:
    """Returns the first process's value, a 32 bit integer, on all; to be called by all processes.

    Others may see a shared folder as it was a moment ago.
    """
    return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if jax.process_count() > 1 else int(value)


def _os_error(error: Exception) -> int | None:
    """The operating system's number of an error; tensorstore spells it in the message alone."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None


def _is_news(record: logging.LogRecord) -> bool:
    """False for the pages that orbax logs, once a thread, about an error that is raised here as well."""
    return not record.pathname.endswith("orbax/checkpoint/_src/futures/future.py")


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _key_data(leaf: Any) -> Any:
    """What orbax's metadata show of an array: of random keys, their bits."""
    return jax.eval_shape(jax.random.key_data, leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _check_fit(saved: Any, wanted: Any, where: pathlib.Path) -> None:
    """Raises ConfigError with the first array that differs; orbax's own message is a page that does not name it."""

    def describe(tree: Any) -> dict[str, str]:
        leaves = jax.tree_util.tree_flatten_with_path(jax.tree.map(_key_data, tree))[0]
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype} {list(leaf.shape)}"
            for path, leaf in leaves
        }

    there, here = describe(saved), describe(wanted)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ConfigError(
                f"{where}: the checkpoint does not fit this config: "
                f"{name} is {there.get(name, 'missing')}, and {here.get(name, 'not expected')} here"
            )
