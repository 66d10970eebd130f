"""One process a run folder: a lock that the kernel takes back however its holder ends."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

import jax

from genjax.config import ConfigError, printable

LOCK = "lock"
# What file systems without locks answer: NFS without its lock daemon, Lustre mounted without `flock`, and others.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_held: set[int] = set()


def _close_in_child() -> None:
    """A forked child shares the lock, and a stray one would keep it after its parent was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str]) -> Iterator[str | None]:
    """Keeps every other process from training in a run folder while the context lasts.

    The lock is `flock` on the file `lock` in the folder. The kernel releases it when its holder ends in whatever way,
    so that no file that is left behind ever has to be removed; what stands in the file is read for the message alone.
    Of several processes that train together, the first locks for all. Over NFS the server holds the lock, which a
    machine that died gives back when its lease ends.

    Args:
        workdir: the run folder; made where it is missing.

    Yields:
        None, or a line that says that the file system has no locks, so that a second process would not be refused.

    Raises:
        ConfigError: another process trains there: its number, machine and since when.
        OSError: the folder cannot be written to.
    """
    if jax.process_index() != 0:
        yield None
        return
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    # For writing, because NFS turns an exclusive lock into one that needs it. Not inherited by programs that are run.
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(descriptor)
    try:
        yield _lock(descriptor, folder)
    finally:
        if descriptor in _held:  # not in a forked child that left the context
            _held.discard(descriptor)
            os.close(descriptor)


def _lock(descriptor: int, folder: pathlib.Path) -> str | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        raise ConfigError(f"{folder}: {holder} trains here; wait, stop it, or choose another folder") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return f"{folder}: no locks on this file system ({error.strerror}), so nothing refuses a second process here"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    about = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}) + "\n"
    # A full disk must not keep a run from its folder for the sake of a message.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, about.encode(), 0)
    return None


def _holder(descriptor: int) -> str:
    """Returns who holds the lock, as far as the file says."""
    try:
        about = json.loads(os.pread(descriptor, 4096, 0))
        return printable(f"process {about['pid']} on {about['host']}, since {about['since']},")
    except (ValueError, TypeError, KeyError, RecursionError):  # it has not written yet, or somebody else has
        return "another process"
