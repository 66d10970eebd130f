"""From a config to components: the only place where a name in a config becomes an object.

Whatever in a config names a component is `dict(name="...", **kwargs)`. `build` passes the kwargs to the registered
class or function. A field of a dataclass that is itself a component says so with `component(kind)`, one that holds
several with `components(kind)`, one that groups settings with `section(cls)`, a parameter of a function with
`Annotated[..., {"kind": kind}]`, and all are built too.
Every mistake that can be seen in a config is raised here, with its place and the nearest valid spelling, before
anything is compiled.
"""

import dataclasses
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from genjax import registry


class ConfigError(ValueError):
    """A mistake in a config: one line that says what and where."""


def component(kind: str, default: Any = dataclasses.MISSING, *, implied: str | None = None) -> Any:
    """A dataclass field that holds a component of a kind, given in a config as `dict(name=..., **kwargs)`.

    Where most of a kind are of one name, `implied` says which a dict without a name is.
    """
    return dataclasses.field(default=default, metadata={"kind": kind} | ({"implied": implied} if implied else {}))


def components(kind: str, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that holds a tuple of components of a kind, given in a config as a list of dicts."""
    return dataclasses.field(default=default, metadata={"kind": kind, "many": True})


def section(cls: Callable[..., Any], default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that holds a group of settings, given in a config as a dict of the fields of `cls`."""
    return dataclasses.field(default=default, metadata={"section": cls})


def nearest(word: Any, among: Iterable[str]) -> str:
    """Returns the end of an error message: the nearest valid spelling and all the valid ones."""
    among = sorted(among)
    close = difflib.get_close_matches(str(word), among, n=1, cutoff=0.5)
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
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"{path}: there is no {kind} {name!r}{nearest(str(name), table)}")
    return construct(table[name].build, kwargs, path, registry.CALLED_WITH.get(kind, ()))


def construct(target: Callable[..., Any], spec: Mapping[str, Any], path: str, called_with: Collection[str] = ()) -> Any:
    """Calls a dataclass or a function with the values of a config section.

    Values of component and section fields are built, lists become tuples.

    Args:
        target: the dataclass, or a function, whose options are bound.
        spec: its values.
        path: where in the config they stand.
        called_with: names of the arguments that a function gets when it is called.

    Raises:
        ConfigError: an unknown or missing key, a value of another type, or one that the target refuses; a target that
            needs what no config can hold.
    """
    is_class = inspect.isclass(target)
    parameters = inspect.signature(target).parameters
    about = _metadata(target)
    settable = [key for key in parameters if key not in called_with and _is_settable(parameters[key], about.get(key))]
    hints = _hints(target)
    required = [key for key in settable if parameters[key].default is inspect.Parameter.empty]
    functions = [k for k in required if typing.get_origin(hints.get(k)) is Callable and "kind" not in about.get(k, {})]
    if functions and not is_class:
        raise ConfigError(
            f"{path}: {target.__name__} needs {', '.join(functions)}, a function, which no config can hold: "
            f"call {target.__module__}.{target.__name__} from Python"
        )
    values = {}
    for key, value in spec.items():
        if key not in settable:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(str(key), settable)}")
        metadata = about.get(key, {})
        if "many" in metadata:
            if not isinstance(value, list | tuple):
                raise ConfigError(f"{path}.{key} = {value!r}: must be a list of dict(name=..., ...)")
            value = tuple(build(metadata["kind"], item, f"{path}.{key}[{i}]") for i, item in enumerate(value))
        elif ("kind" in metadata or "section" in metadata) and _is_section(value):
            build_value = build if "kind" in metadata else construct
            if "implied" in metadata:
                value = {"name": metadata["implied"], **value}
            value = build_value(metadata.get("kind") or metadata["section"], value, f"{path}.{key}")
        elif isinstance(value, str | int | float | list | tuple) and "kind" in metadata:
            raise ConfigError(f"{path}.{key} = {value!r}: a {metadata['kind']} is given as dict(name=..., ...)")
        value = _freeze(value)
        if value is None and parameters[key].default is not None and hints.get(key) is Any and "kind" in metadata:
            raise ConfigError(f"{path}.{key} = None: a {metadata['kind']} is given as dict(name=..., ...)")
        if not _fits(value, hints.get(key, Any)) and not (value is None and parameters[key].default is None):
            raise ConfigError(f"{path}.{key} = {value!r}: must be {_spoken(hints[key])}")
        values[key] = value
    missing = [key for key in required if key not in values]
    if missing:
        raise ConfigError(f"{path}: missing key {', '.join(map(repr, missing))}")
    if not is_class:
        return functools.partial(target, **values)
    try:
        return target(**values)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def describe(component: Any, defaults: bool = True) -> dict[str, Any]:
    """Returns the config of a built component and of the components within: the inverse of `build`.

    Args:
        component: what `build` returned.
        defaults: whether choices that are the default's are in it too, so that it means the same after these change.

    Raises:
        ValueError: nothing of the kind is registered.
    """
    target = getattr(component, "func", component if inspect.isfunction(component) else type(component))
    entry = next((e for kind in registry.KINDS for e in registry.entries(kind).values() if e.build is target), None)
    if entry is None:
        raise ValueError(f"{component!r} is no registered component")
    return {"name": entry.name, **_options(component, target, registry.CALLED_WITH.get(entry.kind, ()), defaults)}


def settings(built: Any, defaults: bool = True) -> dict[str, Any]:
    """Returns the config section that a dataclass was made of by `construct`, as `describe` does of a component."""
    return _options(built, type(built), (), defaults)


def named(target: Callable[..., Any], spec: Mapping[str, Any]) -> Iterator[registry.Entry]:
    """Yields what is registered of the components that a valid config section names, from the outside in.

    Args:
        target: what `construct` makes of the section.
        spec: the section, as JSON has it.
    """
    about = _metadata(target)
    for key, value in spec.items():
        metadata = about.get(key, {})
        for part in value if "many" in metadata else [value]:
            if not _is_section(part):
                continue
            if "kind" in metadata:
                entry = registry.entries(metadata["kind"])[part.get("name", metadata.get("implied"))]
                yield entry
                yield from named(entry.build, part)
            elif "section" in metadata:
                yield from named(metadata["section"], part)


def _options(built: Any, target: Any, called_with: Collection[str], defaults: bool) -> dict[str, Any]:
    about = _metadata(target)
    options = {}
    for key, parameter in inspect.signature(target).parameters.items():
        if key in called_with or not _is_settable(parameter, about.get(key)):
            continue
        usual, held = parameter.default, dataclasses.is_dataclass(built)
        value = getattr(built, key) if held else getattr(built, "keywords", {}).get(key, usual)
        # Where a default is an object, such as a dtype, no config can hold it, nor need one.
        if value is parameter.empty or (value is usual and not isinstance(_told(value, about.get(key), True), _PLAIN)):
            continue
        told = _told(value, about.get(key), defaults)
        if defaults or usual is parameter.empty or told != _told(usual, about.get(key), defaults):
            options[key] = told
    return options


_PLAIN = (types.NoneType, bool, int, float, str, tuple, list, Mapping)


def _told(value: Any, metadata: Mapping[str, Any] | None, defaults: bool) -> Any:
    """What a config says for the value of an option."""
    if "many" in (metadata or {}):
        return tuple(describe(item, defaults) for item in value)
    if value is not None and "kind" in (metadata or {}):
        return describe(value, defaults)
    if value is not None and "section" in (metadata or {}):
        return settings(value, defaults)
    return value


def printable(text: str, keep: str = "") -> str:
    """Returns a text whose control and formatting characters, which could drive a terminal, are written as escapes.

    Args:
        text: the text, of whatever origin; may hold the surrogates that stand for undecodable bytes of file names.
        keep: characters that stay as they are.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


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


def _is_settable(parameter: inspect.Parameter, metadata: Mapping[str, Any] | None) -> bool:
    """Whether a config may give a parameter."""
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return False
    # `name` and `parent` are what Linen adds to every module.
    return parameter.name not in ("self", "name", "parent") and "internal" not in (metadata or {})


def _metadata(target: Any) -> dict[str, Mapping[str, Any]]:
    """What the fields of a dataclass, or the annotated parameters of a function, say of themselves."""
    if dataclasses.is_dataclass(target):
        return {field.name: field.metadata for field in dataclasses.fields(target)}
    hints = _hints(target, include_extras=True).items()
    return {key: hint.__metadata__[0] for key, hint in hints if typing.get_origin(hint) is typing.Annotated}


def _hints(target: Callable[..., Any], include_extras: bool = False) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target, include_extras=include_extras)
    except (NameError, TypeError):  # annotations of other libraries need not resolve
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a config's value has the type that an annotation names; True for annotations of other things."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, tuple):
            return False
        inner = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if hint is None or hint is types.NoneType:
        return value is None
    if hint in (int, float, bool, str):
        allowed = (int, float) if hint is float else hint
        return isinstance(value, allowed) and (hint is bool or not isinstance(value, bool))
    if origin is Mapping:
        return _is_section(value)
    if hint is Any:
        return True
    # Nothing that a config can hold stands for an object, of which there may be none only where the hint says so.
    if not isinstance(value, _PLAIN) or not (isinstance(hint, type) or origin is Callable):
        return True
    return isinstance(hint, type) and not getattr(hint, "_is_protocol", False) and isinstance(value, hint)


def _spoken(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a word", types.NoneType: "None"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # A config holds no objects.
        return " or ".join(_spoken(one) for one in inner if one in words or typing.get_origin(one) is Mapping)
    if origin is Mapping:
        return "a section"
    if origin is tuple:
        of = "numbers" if inner[0] in (int, float) else "values"
        return f"a list of {of}" if inner[-1] is Ellipsis else f"a list of {len(inner)} {of}"
    return words.get(hint, str(getattr(hint, "__name__", hint)))
