"""From configs to components and back, and what mistakes are called."""

import dataclasses
import inspect
import json

import pytest

from genjax import registry
from genjax.config import ConfigError, build, construct, describe, printable, section, settings


@dataclasses.dataclass(frozen=True)
class Inner:
    """A group of settings."""

    rate: float = 0.1
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outer:
    """Settings with a group."""

    count: int
    inner: Inner = section(Inner, Inner())
    flag: bool = False
    limit: int | None = None
    hidden: int = dataclasses.field(default=0, metadata={"internal": True})


def test_sections_are_built_and_lists_become_tuples():
    built = construct(Outer, {"count": 2, "inner": {"rate": 1, "names": ["a", "b"]}}, "config")
    assert built == Outer(2, Inner(1, ("a", "b")))
    hash(built)


@pytest.mark.parametrize(
    "spec, message",
    [
        ({}, "config: missing key 'count'"),
        ({"count": 1, "iner": {}}, "config: unknown key 'iner'; did you mean 'inner'?"),
        ({"count": 1, "inner": {"rat": 1}}, "config.inner: unknown key 'rat'; did you mean 'rate'?"),
        ({"count": 1, "hidden": 3}, "config: unknown key 'hidden'"),
        ({"count": "two"}, "config.count = 'two': must be a whole number"),
        ({"count": 1.5}, "config.count = 1.5: must be a whole number"),
        ({"count": True}, "config.count = True: must be a whole number"),
        ({"count": 1, "flag": "yes"}, "config.flag = 'yes': must be True or False"),
        ({"count": 1, "limit": "x"}, "config.limit = 'x': must be a whole number or None"),
        ({"count": 1, "inner": {"rate": "fast"}}, "config.inner.rate = 'fast': must be a number"),
        ({"count": 1, "inner": {"names": ["a", 3]}}, "config.inner.names = ('a', 3): must be a list of values"),
    ],
)
def test_mistakes_say_what_and_where(spec, message):
    with pytest.raises(ConfigError) as error:
        construct(Outer, spec, "config")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "kind, spec, words",
    [
        ("solver", "ddim", "is given as dict(name=..., ...)"),
        ("solver", {"name": "dimm"}, "did you mean 'ddim'?"),
        ("times", {"name": "karras", "process": 1}, "unknown key 'process'; valid: rho, t_max, t_min"),
        ("times", {"name": "karras", "rho": "a"}, "times.rho = 'a': must be a number"),
        ("guidance", {"name": "classifier_free", "cond": 1}, "unknown key 'cond'"),
        ("network", {"name": "mlp", "parent": 1}, "unknown key 'parent'"),
        ("family", {"name": "diffusion", "image_shape": (8, 8, 1), "network": "unet"}, "a network is given as dict"),
        ("family", {"name": "diffusion", "image_shape": 8, "network": {"name": "mlp"}}, "must be a list of 3 numbers"),
    ],
)
def test_components(kind, spec, words):
    with pytest.raises(ConfigError) as error:
        build(kind, spec)
    assert words in str(error.value)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_describe_is_the_inverse_of_build(kind):
    rates = dict(init_value=0.1, peak_value=0.2, end_value=0.05, decay_steps=9, transition_steps=9, warmup_steps=2)
    rates |= dict(value=0.1, reference_steps=5, decay_rate=0.5, power=1.0, period=5)
    options = {"interval": {"t_min": 0.1, "t_max": 0.9}, "folder": {"path": "x"}, "pairs": {"path": "x"}}
    for name in ("diffusion", "improved_diffusion", "vdm", "flow_matching", "stochastic_interpolant"):
        options[name] = {"image_shape": (8, 8, 1), "network": {"name": "mlp"}}
    model = {"name": "diffusion", **options["diffusion"]}
    options |= {"run": {"workdir": "x", "family": model}, "untrained": {"family": model}}
    for name in ("autoencoder", "vae"):
        options[name] = {"image_shape": (8, 8, 1), "encoder": {"name": "mlp"}, "decoder": {"name": "mlp"}}
    options["vdvae"] = {"levels": ((8, 1, 1),)}
    options["hierarchical_vae"] = {"image_shape": (8, 8, 1), "hierarchy": {"name": "vdvae", **options["vdvae"]}}
    options |= {"square_root": {"steps": 9}, "doubling": {"steps": 9}, "ect": {"steps_per_stage": 9}}
    for name in ("meanflow", "shortcut", "scm"):
        options[name] = {"image_shape": (8, 8, 1), "network": {"name": "mlp", "scalars": ("step",)}}
    for name in ("progressive_distillation", "dmd", "guided_distillation"):
        options[name] = {**options["diffusion"], "teacher": {"workdir": "x", "family": model}}
    options["guided_distillation"]["network"] = {"name": "mlp", "scalars": ("guidance",)}
    options["unet_encoder"] = {"num_classes": 10}
    residual = {"encoder": {"name": "residual"}, "decoder": {"name": "residual"}}
    options["vq_vae"] = {"image_shape": (8, 8, 1), **residual}
    players = {"translator": {"name": "resnet"}, "discriminator": {"name": "patch", "halvings": 1}}
    options["cycle_gan"] = {"image_shape": (8, 8, 1), **players}
    classes = {"image_shape": (8, 8, 1), "network": {"name": "unet_encoder", "num_classes": 10}}
    options["classifier"] = {
        "family": classes,
        "guidance": {"log_prob": {"workdir": "x", "family": {"name": "classifier", **classes}}},
    }.get(kind, {})
    options["autoguidance"] = {"weak": {"workdir": "x", "family": model}}
    made = {"image_shape": (8, 8, 1)}
    options["gan"] = {"generator": {"name": "mlp", **made}, "discriminator": {"name": "mlp"}}
    for name in ("additive_coupling", "affine_coupling", "spline_coupling"):
        options[name] = {"conditioner": {"name": "residual_mlp"}}
    options["repeat"] = options["multi_scale"] = {"layer": {"name": "planar"}}
    options["chain"] = {"layers": ({"name": "planar"}, {"name": "spline_coupling", **options["spline_coupling"]})}
    options["normalizing_flow"] = {"image_shape": (8, 8, 1), "bijector": {"name": "chain", **options["chain"]}}
    options["edges"] = {"source": {"name": "tfds"}}
    options["unpaired"] = {"first": {"name": "tfds"}, "second": {"name": "edges", **options["edges"]}}
    for name, entry in registry.entries(kind).items():
        if kind == "generator":
            options[name] = made
        if kind == "family" and name in ("score", "consistency"):  # parameterizations have these names too
            options[name] = options["diffusion"]
        if (kind, name) == ("family", "stylegan2"):  # its networks have this name too
            options[name] = {"generator": {"name": "stylegan2", **made}, "discriminator": {"name": "stylegan2"}}
        if kind == "schedule":
            known = inspect.signature(entry.build).parameters.values()
            options[name] = {p.name: rates[p.name] for p in known if p.default is p.empty}
        spec = describe(build(kind, {"name": name, **options.get(name, {})}))
        assert spec["name"] == name
        json.dumps(spec)  # infinite defaults included, as Python's json writes them
        assert describe(build(kind, spec)) == spec
        short = describe(build(kind, spec), defaults=False)
        assert short.items() <= spec.items() or any(isinstance(value, dict | tuple) for value in short.values())
        assert describe(build(kind, short)) == spec


def test_described_choices():
    assert describe(build("solver", {"name": "ddim", "eta": 0.5})) == {"name": "ddim", "eta": 0.5}
    assert describe(build("times", {"name": "karras", "rho": 5.0})) == {
        "name": "karras",
        "rho": 5.0,
        "t_max": None,
        "t_min": None,
    }
    assert describe(build("solver", {"name": "ddim"}), defaults=False) == {"name": "ddim"}
    built = construct(Outer, {"count": 1, "inner": {"rate": 0.5}}, "config")
    assert settings(built) == {
        "count": 1,
        "inner": {"rate": 0.5, "names": ()},
        "flag": False,
        "limit": None,
    }
    assert settings(built, defaults=False) == {"count": 1, "inner": {"rate": 0.5}}
    with pytest.raises(ValueError, match="no registered component"):
        describe(3)


def test_what_could_drive_a_terminal_is_escaped():
    assert printable("a\x1b[2Jb\n\x9b\u202e\udc80 größe") == r"a\x1b[2Jb\n\x9b\u202e\udc80 größe"
    assert printable("a\nb\r", keep="\n") == "a\nb\\r"
