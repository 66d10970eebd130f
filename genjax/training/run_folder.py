"""The run folder: what identifies a run, and whether a config may go on with it."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import jax

import genjax
from genjax.config import ConfigError

CONFIG = "config.json"
VERSIONS = "versions.json"
_PACKAGES = "jax jaxlib flax optax orbax-checkpoint grain tensorflow-datasets numpy".split()
_MISSING = "(not set)"
# What may change in the midst of a run, beside whole sections, because no weight and no row of metrics depends on it.
_FREE = {f"training.{key}" for key in ("keep", "prefetch", "compile_cache", "sample_every", "sample_n", "save_every")}
_FREE |= {"data.data_dir", "eval_data.data_dir"}


def to_json(config: Any, path: str = "config") -> Any:
    """Returns a config, a ConfigDict or a mapping, as JSON would give it back: plain dicts, lists, strings, numbers.

    Raises:
        ConfigError: a value that JSON has no form for, with its place.
    """
    if hasattr(config, "items"):
        return {str(key): to_json(value, f"{path}.{key}") for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_json(value, f"{path}[{i}]") for i, value in enumerate(config)]
    if config is None or isinstance(config, bool | int | float | str):
        return config
    raise ConfigError(f"{path} = {config!r}: must be a number, a string, None, a list or a section of these")


def open_run(workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> str | None:
    """Makes a folder the run of a config, or checks that it is so already.

    A run may go on with more steps, or on other devices, or with other choices that leave its result as it is, such as
    how often it is saved; whatever else differs makes it another experiment. A folder without a checkpoint, whose first
    start failed, takes any config.

    Args:
        workdir: the folder.
        config: JSON values.

    Returns:
        A line that says what has changed in an allowed way, or None.

    Raises:
        ConfigError: the folder holds a run of another config; the differences, a line each.
    """
    folder = pathlib.Path(workdir)
    if not (folder / CONFIG).exists():
        if (folder / "checkpoints").exists():
            raise ConfigError(f"{folder}: has checkpoints but no {CONFIG}, so nobody knows of what")
        _write_json(folder / CONFIG, config)
        return None
    lines: list[str] = []
    refused: list[str] = []
    for path, (old, new) in differences(read_config(folder), config).items():
        line = f"config.{path}: {old} -> {new}"
        (lines if _allowed(path, old, new) else refused).append(line)
    if not _has_checkpoint(folder) and refused:
        _write_json(folder / CONFIG, config)
        return f"{folder}: has no checkpoint yet, so starts anew with " + ", ".join(lines + refused)
    if refused:
        raise ConfigError("\n  ".join([f"{folder}: holds a run of another config; choose another folder", *refused]))
    if not lines:
        return None
    _write_json(folder / CONFIG, config)
    return f"{folder}: goes on with " + ", ".join(lines)


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the resolved config of a run folder.

    Raises:
        ConfigError: the folder holds no run, or its config is damaged.
    """
    path = pathlib.Path(workdir) / CONFIG
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{workdir}: no run here ({CONFIG} is missing)") from None
    except ValueError as error:
        raise ConfigError(f"{path}: damaged: {error}") from error


def differences(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Returns the values that differ between two configs, by dotted path."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{path}.{key}" if path else key
            found |= differences(old.get(key, _MISSING), new.get(key, _MISSING), inner)
        return found
    return {} if old == new else {path: (old, new)}


def record_start(workdir: str | os.PathLike[str], step: int, command: str | None = None) -> None:
    """Adds the versions, the git revision and the devices of this start to the run folder.

    Args:
        workdir: the folder.
        step: the step that the run goes on from.
        command: the command that started it, where there was one.
    """
    path = pathlib.Path(workdir) / VERSIONS
    starts = json.loads(path.read_text()) if path.exists() else []
    start = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": command,
        "genjax": genjax.__version__,
        "git": git_revision(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
    }
    _write_json(path, [*starts, start])


def git_revision() -> str | None:
    """Returns the commit of the library's checkout, with "+" where files differ from it; None outside a checkout."""
    git = ["git", "-C", str(pathlib.Path(genjax.__file__).parent)]
    try:
        # An installed package may lie inside somebody else's repository, which tells nothing about it.
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=True)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True, text=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def _has_checkpoint(folder: pathlib.Path) -> bool:
    """Whether a checkpoint is complete: those being written have other names than numbers."""
    return any(path.name.isdigit() for path in (folder / "checkpoints").glob("*"))


def _allowed(path: str, old: Any, new: Any) -> bool:
    if path == "training.steps":
        return isinstance(old, int) and isinstance(new, int) and new > old
    return path in _FREE or path.split(".")[0] in ("mesh", "evaluation")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a file that is whole or not there, whenever the process is killed; by the first process alone."""
    if jax.process_index() != 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(draft, path)
