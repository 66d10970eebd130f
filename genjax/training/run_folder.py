"""The run folder: what identifies a run, and whether a config may go on with it."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import stat
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import jax

import genjax
from genjax.config import ConfigError, printable
from genjax.files import write_whole

CONFIG = "config.json"
VERSIONS = "versions.json"
_PACKAGES = "jax jaxlib flax optax orbax-checkpoint grain tensorflow-datasets numpy".split()
_MISSING = "(not set)"
# What may change in the midst of a run, beside whole sections, because weights and rows of metrics depend on it by
# rounding at most, or, of a step that is not finite, because it would be the end of the run otherwise.
_FREE = {
    f"training.{key}"
    for key in (
        "keep keep_best best best_is save_every sample_every sample_n accumulate non_finite skip_limit prefetch "
        "count_flops profile_at profile_steps compile_cache"
    ).split()
}
_FREE |= {f"{data}.{key}" for data in ("data", "eval_data") for key in ("data_dir", "memory_limit")}
_MAX_BYTES, _MAX_DEPTH = 2**24, 64  # of a config as JSON


def to_json(config: Any, path: str = "config") -> Any:
    """Returns a config, a ConfigDict or a mapping, as JSON would give it back: plain dicts, lists, strings, numbers.

    Raises:
        ConfigError: a value that JSON has no form for, or that is not a number, with its place.
    """
    if path.count(".") + path.count("[") > _MAX_DEPTH:
        raise ConfigError(f"{path[:60]}...: sections within sections, more than {_MAX_DEPTH} deep")
    if hasattr(config, "items"):
        return {str(key): to_json(value, f"{path}.{key}") for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_json(value, f"{path}[{i}]") for i, value in enumerate(config)]
    if config is None or isinstance(config, bool | int | str) or (isinstance(config, float) and config == config):
        return config
    raise ConfigError(f"{path} = {config!r}: must be a number, a string, None, a list or a section of these")


def open_run(
    workdir: str | os.PathLike[str],
    config: Mapping[str, Any],
    resolve: Callable[[Any], Mapping[str, Any]] = lambda config: config,
) -> str | None:
    """Makes a folder the run of a config, or checks that it is so already.

    A run may go on with more steps, or on other devices, or with other choices that leave its result as it is, such as
    how often it is saved; whatever else differs makes it another experiment. A folder without a checkpoint, whose first
    start failed, takes any config.

    Args:
        workdir: the folder.
        config: JSON values, with all defaults.
        resolve: adds the defaults to a config that an earlier version wrote without them.

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
    held = read_config(folder)
    try:
        known: Mapping[str, Any] = resolve(held)
    except ConfigError:  # of another version, in which there was what this one lacks: the differences say so
        known = held
    lines: list[str] = []
    refused: list[str] = []
    for path, (old, new) in differences(known, config).items():
        line = f"config.{path}: {old} -> {new}"
        (lines if _allowed(path, old, new) else refused).append(line)
    if _has_checkpoint(folder) and refused:
        raise ConfigError("\n  ".join([f"{folder}: holds a run of another config; choose another folder", *refused]))
    if held != config:
        _write_json(folder / CONFIG, config)
    if refused:
        return f"{folder}: has no checkpoint yet, so starts anew with " + ", ".join(lines + refused)
    return f"{folder}: goes on with " + ", ".join(lines) if lines else None


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the resolved config of a run folder.

    Raises:
        ConfigError: the folder holds no run, or its config is damaged.
    """
    if not (pathlib.Path(workdir) / CONFIG).exists():
        raise ConfigError(f"{workdir}: no run here ({CONFIG} is missing)")
    return read_json_config(pathlib.Path(workdir) / CONFIG)


def read_json_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the config in a JSON file. Whatever the file holds, reading it executes nothing.

    Raises:
        ConfigError: no such file, no config, or none that is whole; in one line.
    """

    def section(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key!r} is there twice")
            found[key] = value
        return found

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise ValueError("no regular file")
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES} bytes")
        config = json.loads(data.decode(), object_pairs_hook=section)
        if not isinstance(config, dict):
            raise ValueError(f"holds a {type(config).__name__}, and not an object of sections")
        return to_json(config)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: damaged: sections within sections, too deep") from error
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
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    start = {"time": now, "step": step, "command": command, **_code(), **_machine()}
    _write_json(pathlib.Path(workdir) / VERSIONS, [*read_starts(workdir), start])


def read_starts(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns what `record_start` has written, a start each; [] where it has not, or the file is damaged."""
    try:
        starts = json.loads((pathlib.Path(workdir) / VERSIONS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return starts if isinstance(starts, list) and all(isinstance(start, dict) for start in starts) else []


def code_difference(workdir: str | os.PathLike[str]) -> str | None:
    """Returns a line that says in what code and devices differ from those of the run's last start, or None.

    To be called before `record_start`.
    """
    starts = read_starts(workdir)
    if not starts:
        return None
    last, lines = starts[-1], []
    for now, words in ((_code(), "code differs"), (_machine(), "devices differ")):
        changed = {key: (last[key], value) for key, value in now.items() if key in last and last[key] != value}
        if changed:
            told = ", ".join(f"{key} {_short(key, old)} -> {_short(key, new)}" for key, (old, new) in changed.items())
            lines.append(f"{words} from the last start: {told}")
    if not lines:
        return None
    return printable("; ".join(lines)) + "; results are equal to rounding at best, not bit for bit"


def _code() -> dict[str, str | None]:
    return {
        "genjax": genjax.__version__,
        "git": git_revision(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _machine() -> dict[str, Any]:
    # On CPU, XLA divides sums over as many threads as it may run.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        **({"cores": cores} if jax.default_backend() == "cpu" else {}),
    }


def _short(key: str, value: Any) -> str:
    if key == "git" and isinstance(value, str):
        return value[:7] + ("+" if value.endswith("+") else "")
    return str(value)


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
    """Whether there is or was a complete checkpoint: those being written have other names."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return any(name.isdigit() or name.startswith("damaged-") for name in names)


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
    write_whole(path, json.dumps(value, indent=2) + "\n")
