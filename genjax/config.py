"""From a config to components: the only place where a name in a config becomes an object.

Whatever in a config names a component is `dict(name="...", **kwargs)`. `build` passes the kwargs to the registered
class or function. A field of a dataclass that is itself a component says so with `component(kind)`, one that groups
settings with `section(cls)`, and both are built too.
Every mistake that can be seen in a config is raised here, with its place and the nearest valid spelling, before
anything is compiled.
"""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from genjax import registry


class ConfigError(ValueError):
    """A mistake in a config: one line that says what and where."""


def component(kind: str, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that holds a component of a kind, given in a config as `dict(name=..., **kwargs)`."""
    return dataclasses.field(default=default, metadata={"kind": kind})


def section(cls: Callable[..., Any], default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that holds a group of settings, given in a config as a dict of the fields of `cls`."""
    return dataclasses.field(default=default, metadata={"section": cls})


def nearest(word: str, among: Iterable[str]) -> str:
    """Returns the end of an error message: the nearest valid spelling and all the valid ones."""
    among = sorted(among)
    close = difflib.get_close_matches(word, among, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} valid: {', '.join(among) or 'none'}"


def build(kind: str, spec: Mapping[str, Any], path: str | None = None) -> Any:
    """Builds one component.

    Args:
        kind: the kind of component, such as "solver".
        spec: `dict(name="...", **kwargs)`, or a ConfigDict of that form.
        path: where in the config the spec stands, for the messages.

    Returns:
        An instance of the registered class; of a registered function, the function with the kwargs bound.

    Raises:
        ConfigError: an unknown name, key or value, with the nearest valid spelling.
    """
    path = path or kind
    if not _is_section(spec) or "name" not in spec:
        raise ConfigError(f"{path}: a {kind} is given as dict(name=..., ...), not as {spec!r}")
    kwargs = dict(spec.items())
    name = kwargs.pop("name")
    table = registry.entries(kind)
    if name not in table:
        raise ConfigError(f"{path}: there is no {kind} {name!r}{nearest(str(name), table)}")
    return construct(table[name].build, kwargs, path)


def construct(target: Callable[..., Any], spec: Mapping[str, Any], path: str) -> Any:
    """Calls a dataclass or a function with the values of a config section.

    Values of component and section fields are built, lists become tuples.

    Raises:
        ConfigError: an unknown or missing key, or a value that the target refuses.
    """
    is_class = inspect.isclass(target)
    parameters = inspect.signature(target).parameters
    # `name` and `parent` are what Linen adds to every module; neither is a config's to set.
    settable = [key for key in parameters if key not in ("self", "name", "parent")]
    for key in spec:
        if key not in settable:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(str(key), settable)}")
    fields = {f.name: f for f in dataclasses.fields(target)} if dataclasses.is_dataclass(target) else {}
    values = {}
    for key, value in spec.items():
        metadata = fields[key].metadata if key in fields else {}
        if "kind" in metadata and _is_section(value):
            value = build(metadata["kind"], value, f"{path}.{key}")
        elif "section" in metadata and _is_section(value):
            value = construct(metadata["section"], value, f"{path}.{key}")
        values[key] = _freeze(value)
    if not is_class:
        return functools.partial(target, **values)
    missing = [k for k in settable if parameters[k].default is inspect.Parameter.empty and k not in values]
    if missing:
        raise ConfigError(f"{path}: missing key {', '.join(map(repr, missing))}")
    try:
        return target(**values)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds; for `__post_init__` of components."""
    if not condition:
        raise ValueError(message)


def _is_section(value: Any) -> bool:
    """Whether a value reads like a mapping. ConfigDict is none, and importing it would tie the samplers to it."""
    return hasattr(value, "items") and hasattr(value, "keys")


def _freeze(value: Any) -> Any:
    """Makes a config's value hashable, because jit takes components as static arguments."""
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    return value
