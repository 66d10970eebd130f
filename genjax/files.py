"""Files that are whole or not there."""

import contextlib
import os
import pathlib
import uuid


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file that has its old content or the new one, whenever the process is killed and whoever else writes it.

    Args:
        path: the file; its folder is created where it is missing.
        content: bytes, or a text, which is written as UTF-8.

    Raises:
        OSError: it cannot be written; what was begun is removed.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(draft, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # or a machine that dies now may keep the new name and not the contents
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()  # on a full disk every byte counts
        raise
