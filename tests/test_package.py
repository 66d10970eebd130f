"""What the distribution promises: light imports, extras, pins within ranges, bans, a wheel that runs."""

import ast
import configparser
import os
import pathlib
import subprocess
import sys
import venv
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted((ROOT / "genjax").rglob("*.py"))


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def names(text: str) -> set[str]:
    return {canonicalize_name(r.name) for r in requirements(text)}


@pytest.mark.parametrize("room", ["processes", "parameterizations", "solvers", "sampling", "analytic"])
def test_samplers_import_nothing_heavy(room: str) -> None:
    """Nor when their registries are read: `genjax list solvers` and a paper's script start fast."""
    script = f"""
import sys
import genjax.{room}
from genjax import registry
for kind, module in registry.KINDS.items():
    if module.startswith("genjax.{room}"):
        registry.entries(kind)
banned = {{"flax", "tensorflow", "tensorflow_datasets", "orbax", "torch", "ml_collections", "grain", "clu", "sklearn"}}
print(*sorted(banned & {{name.split(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_tensorflow_and_torch_are_asked_for_by_one_extra_each(setup_cfg: configparser.ConfigParser) -> None:
    extras = setup_cfg["options.extras_require"]
    assert set(extras) == {"test", "dev", "tfds", "cuda", "cuda12", "parity"}
    asked = {extra: names(text) for extra, text in extras.items()}
    asked[""] = names(setup_cfg["options"]["install_requires"])
    assert [
        extra
        for extra, of in asked.items()
        if any(n.split("-")[0] == "tensorflow" for n in of - {"tensorflow-datasets"})
    ] == ["tfds"]
    assert [extra for extra, of in asked.items() if "torch" in of] == ["parity"]
    assert not any("torchvision" in of for of in asked.values())


def test_pins_are_within_the_ranges(setup_cfg: configparser.ConfigParser) -> None:
    pins = {}
    for pin in requirements((ROOT / "constraints.txt").read_text()):
        (specifier,) = pin.specifier
        assert specifier.operator == "==", f"{pin} is no pin"
        pins[canonicalize_name(pin.name)] = specifier.version
    texts = [setup_cfg["options"]["install_requires"], *setup_cfg["options.extras_require"].values()]
    for requirement in (r for text in texts for r in requirements(text)):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(pins[name]), f"constraints.txt has {name} {pins[name]}, not {requirement}"


def offences(source: str, networks: bool = False) -> Iterator[str]:
    """Yields what a module of the library does that it may not."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                imported = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module), level=0):
                imported = [f"{module}.{alias.name}" for alias in node.names]
            case ast.Attribute(value=ast.Name(id="flax"), attr=attr):
                imported = [f"flax.{attr}"]
            case ast.Call(func=ast.Attribute(attr="get", value=owner)):
                if ast.unparse(owner).split(".")[-1] in ("config", "cfg"):
                    yield f"{node.lineno}: config.get hides a misspelt key"
                continue
            case ast.keyword(arg="allow_pickle", value=value) if not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                yield f"{value.lineno}: unpickling runs code"
                continue
            case ast.Call(func=ast.Name(id="eval" | "exec" | "__import__" as name)):
                yield f"{node.lineno}: {name} runs code"
                continue
            case _:
                continue
        for name in imported:
            top, *rest = name.split(".")
            if top in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle", "torch", "yaml"):
                yield f"{node.lineno}: unpickling runs code: {name}"
            if top == "flax" and rest[:1] in (["linen"], ["nnx"]) and not networks:
                yield f"{node.lineno}: only genjax.networks imports {name}"


@pytest.mark.parametrize(
    "source",
    [
        "import flax.linen as nn",
        "from flax import linen",
        "from flax.linen import Dense",
        "import flax\nflax.linen.Dense",
        "import pickle",
        "from cloudpickle import loads",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "import torch\ntorch.load(path)",
        "eval(text)",
        "config.get('seed', 0)",
        "self.config.get('seed')",
    ],
)
def test_offences_are_seen(source: str) -> None:
    assert len(list(offences(source))) == 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_keeps_its_bans(path: pathlib.Path) -> None:
    assert list(offences(path.read_text(), networks=path.is_relative_to(ROOT / "genjax" / "networks"))) == []


@pytest.mark.slow
def test_wheel_runs_in_an_empty_environment(tmp_path: pathlib.Path) -> None:
    def run(*command: object) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "build", "--outdir", tmp_path, ROOT)  # by way of the sdist, so never from a stale build/
    (wheel,) = tmp_path.glob("genjax_lab-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)

    listed = run(python.with_name("genjax"), "list", "solvers")
    assert "ddim" in listed and "dpmpp_2m" in listed
    files = run(python, "-c", "import importlib.metadata as m; print(*m.files('genjax-lab'), sep='\\n')").splitlines()
    assert "genjax/py.typed" in files
    assert {file.split("/")[0] for file in files if not file.startswith("..")} == {
        "genjax",
        wheel.name.split("-py3")[0] + ".dist-info",
    }
    modules = {str(path.relative_to(ROOT)) for path in MODULES}
    assert modules - set(files) == set(), "a folder without __init__.py is not in the wheel"
    absent = (
        "import importlib.util as u; print([m for m in ('tensorflow', 'torch', 'configs', 'tests') if u.find_spec(m)])"
    )
    assert run(python, "-c", absent).strip() == "[]"
