"""Files that are whole or not there."""

import contextlib
import os
import pathlib


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file that has its old content or the new one, whenever the process is killed.

    Args:
        path: the file; its folder is created where it is missing.
        text: the content.

    Raises:
        OSError: it cannot be written; what was begun is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or a machine that dies now may keep the new name and not the contents
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()  # on a full disk every byte counts
        raise
