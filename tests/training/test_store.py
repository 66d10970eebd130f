"""Every fault that a store is made for, done to it for real."""

import contextlib
import logging
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.config import ConfigError
from genjax.training import manifest
from genjax.training.errors import DISK_FULL, DiskFull
from genjax.training.manifest import MANIFEST
from genjax.training.store import Store

PARTS = {
    "params": {"kernel": np.arange(30, dtype=np.float32).reshape(5, 6), "bias": jnp.ones(3, jnp.bfloat16)},
    "averages": {"0.05": {"a/b": jnp.full(4, 7)}, "0.10": [jnp.zeros(2), jnp.ones(())]},
}
LARGE = {
    "params": {"noise": np.random.default_rng(0).standard_normal(600_000, np.float32)}
}  # 2.4 MB, which do not compress


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(Store(tmp_path / "steps")) as opened:
        yield opened


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A store with one step, to be left as it is."""
    with contextlib.closing(Store(tmp_path_factory.mktemp("saved"))) as opened:
        opened.save(7, PARTS, {"loss": 0.1})
        opened.wait()
        yield opened


def names(store):
    return sorted(path.name for path in store.directory.iterdir())


def test_parts_and_metadata_come_back(saved):
    assert saved.steps() == [7] and saved.path(7).name == "00000007"
    assert saved.verify(7) is None
    assert saved.metadata(7) == {"loss": 0.1}
    like = jax.tree.map(jnp.asarray, PARTS)  # of NumPy's arrays there is no sharding
    assert_same(saved.load(7, like), PARTS)
    assert_same(saved.load(7, {"averages": like["averages"]}), {"averages": PARTS["averages"]})
    assert_same(saved.load(7, saved.shapes(7)), PARTS)
    with pytest.raises(ConfigError, match="no checkpoint of step 8; there are 7"):
        saved.verify(8)


def test_metadata_are_as_they_were_when_saved(store):
    metadata = {"window": [0.1, float("inf"), None, "ß"], "nested": {"2": [1e-320]}}
    about = {**metadata, "window": list(metadata["window"])}
    store.save(1, PARTS, about)
    about["window"].append("later")
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.save(2, PARTS, {"array": np.zeros(2)})
    store.wait()
    assert store.metadata(1) == metadata


def test_every_flipped_bit_truncation_and_deletion_is_found(saved, tmp_path):
    folder = tmp_path / "00000007"
    shutil.copytree(saved.path(7), folder)
    store, rng = Store(tmp_path, read_only=True), random.Random(0)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) >= 15 and folder / MANIFEST in files  # orbax writes about twenty, not always equally many
    # By bytes, so that large files get their share, and each file at least once.
    flipped = [*files, *rng.choices(files, [path.stat().st_size for path in files], k=100)]
    for path in flipped:
        whole = path.read_bytes()
        if whole:
            damaged, bit = bytearray(whole), rng.randrange(8 * len(whole))
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            fault = store.verify(7)
            assert fault == f"{path.relative_to(folder)} differs from what was written"
            path.write_bytes(whole[: rng.randrange(len(whole))])
            fault = store.verify(7)
            assert fault and str(path.relative_to(folder)) in fault
        path.unlink()
        assert store.verify(7) == f"{path.relative_to(folder)} is missing"
        path.write_bytes(whole)
    assert store.verify(7) is None
    assert_same(store.load(7, store.shapes(7)), PARTS)


def test_two_faults_and_a_longer_file(saved, tmp_path):
    folder = tmp_path / "00000007"
    shutil.copytree(saved.path(7), folder)
    with open(folder / "params" / "_METADATA", "a") as file:
        file.write(" ")
    (folder / "params" / "_sharding").unlink()
    size = (saved.path(7) / "params" / "_METADATA").stat().st_size
    fault = Store(tmp_path, read_only=True).verify(7)
    assert fault == f"params/_METADATA has {size + 1} bytes instead of {size} and 1 more"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {}}', "[" * 100_000, "\0"])
def test_any_other_manifest_is_damage(saved, tmp_path, text):
    shutil.copytree(saved.path(7), tmp_path / "00000007")
    (tmp_path / "00000007" / MANIFEST).write_text(text)
    store = Store(tmp_path, read_only=True)
    assert store.verify(7) == f"{MANIFEST} differs from what was written"
    with pytest.raises(ConfigError, match=f"{MANIFEST} differs"):
        store.metadata(7)


@contextlib.contextmanager
def no_more_files():
    """Opens files until the kernel refuses another."""
    limits, opened = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[1]), limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        yield opened
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in opened:
            os.close(descriptor)


@pytest.mark.parametrize("spare", [0, 1])  # the manifest cannot be opened, or the files that it lists cannot
def test_what_cannot_be_read_just_now_is_not_damaged(saved, spare, monkeypatch):
    """Else a run would set all its checkpoints aside, and start anew."""
    folder, read = saved.path(7), manifest._size_and_sum
    with no_more_files() as opened, contextlib.ExitStack() as held:
        if spare:
            os.close(opened.pop())

        def read_beside_another(path):
            held.enter_context(open(os.devnull))
            return read(path)

        monkeypatch.setattr(manifest, "_size_and_sum", read_beside_another)
        with pytest.raises(OSError, match="Too many open files"):
            manifest.find_fault(folder)
    assert saved.verify(7) is None


def test_opening_removes_what_a_killed_run_left_and_reading_nothing(tmp_path):
    left = ["00000002.writing", "00000003.writing.orbax-checkpoint-tmp", "00000001.deleting"]
    for name in [*left, "damaged-00000004", "notes.writing"]:
        (tmp_path / name / "params").mkdir(parents=True)
    reader = Store(tmp_path, read_only=True)
    assert reader.steps() == [] and len(names(reader)) == 5
    writer = Store(tmp_path)
    assert names(writer) == ["damaged-00000004", "notes.writing"]
    assert Store(tmp_path / "nowhere", read_only=True).steps() == []
    assert not (tmp_path / "nowhere").exists()


def test_set_aside_and_delete(store):
    for step in (1, 2):
        store.save(step, PARTS)
    store.wait()
    assert store.set_aside(1).name == "damaged-00000001"
    store.save(1, PARTS)
    store.wait()
    assert store.set_aside(1).name == "damaged-00000001-2"
    store.delete(2)
    assert store.steps() == [] and names(store) == ["damaged-00000001", "damaged-00000001-2"]


def test_done_is_called_after_the_commit_and_its_error_surfaces(store):
    seen = []

    def done(step):
        seen.append((step, store.steps(), threading.current_thread() is threading.main_thread()))
        raise RuntimeError("from the background")

    assert store.save(5, PARTS, done=done)
    with pytest.raises(RuntimeError, match="from the background"):
        store.wait()
    assert seen == [(5, [5], False)]
    assert not store.save(5, PARTS, done=done)  # once raised it is over, and the step is there
    store.save(6, PARTS, done=done)
    with pytest.raises(RuntimeError, match="from the background"):
        store.save(7, PARTS)
    store.save(8, PARTS, done=done)
    with pytest.raises(RuntimeError, match="from the background"):
        store.close()
    assert store.steps() == [5, 6, 8]


def test_a_folder_that_vanishes_while_writing(store):
    """Not a full disk: what went wrong is raised as it is."""
    shutil.rmtree(store.directory)
    store.directory.write_text("a file in its place")
    with pytest.raises(OSError, match="Not a directory"):
        store.save(1, PARTS)
    store.directory.unlink()


def test_two_stores_write_at_once(tmp_path):
    with contextlib.closing(Store(tmp_path / "a")) as a, contextlib.closing(Store(tmp_path / "b")) as b:
        for step in range(3):
            a.save(step, LARGE)
            b.save(step, PARTS)
        a.wait()
        b.wait()
        assert [store.verify(step) for store in (a, b) for step in range(3)] == [None] * 6
        assert_same(a.load(2, a.shapes(2)), LARGE)
        assert_same(b.load(2, b.shapes(2)), PARTS)


@contextlib.contextmanager
def largest_file(size):
    """No file may grow past a size, as on a file system with such a limit; Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# The weights do not fit; orbax's small files do not; the manifest does not; not a byte does.
@pytest.mark.parametrize("size", [100_000, 150, 2_000, 0])
def test_a_file_size_limit(store, size, caplog):
    parts = LARGE if size == 100_000 else PARTS
    store.save(1, parts)
    store.wait()
    before = {path: path.stat().st_mtime_ns for path in store.directory.rglob("*")}
    with largest_file(size):
        store.save(2, parts)
        with pytest.raises(DiskFull, match="00000002 was not saved: File too large; .* step 1 is intact") as full:
            store.wait()
    assert full.value.exit_code == DISK_FULL == 4
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]  # orbax logs it a dozen times
    assert {path: path.stat().st_mtime_ns for path in store.directory.rglob("*")} == before
    assert store.verify(1) is None
    assert store.save(2, parts)  # with space again it goes on
    store.wait()
    assert store.verify(2) is None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk):
    with contextlib.closing(Store(small_disk / "steps")) as store:
        store.save(1000, LARGE)
        store.save(2000, LARGE)
        with pytest.raises(DiskFull) as full:
            store.save(3000, PARTS)
        lines = str(full.value).splitlines()
        assert lines[0] == (
            f"{store.directory}/00002000 was not saved: No space left on device; the checkpoint of step 1000 is intact"
        )
        needed, free = lines[1].split(", and ")
        assert needed == "  It needs up to 2.4 MB" and re.fullmatch(rf"1\.\d MB are free for {store.directory}", free)
        assert "older checkpoints (there are 00001000), keep fewer with --config.training.keep" in lines[2]
        assert names(store) == ["00001000"] and store.verify(1000) is None


_KILLED = """
import sys, threading
from tests.training.test_store import LARGE, PARTS
from genjax.training.store import Store
store = Store(sys.argv[1])
store.save(1, PARTS)
store.wait()
for step in range(2, 10**6):
    store.save(step, LARGE, done=lambda old: store.delete(old - 1))
    print(step, flush=True)
"""


def test_killed_at_any_moment(tmp_path):
    """A save a few milliseconds long, and its deletions, broken off by SIGKILL."""
    root, rng = pathlib.Path(__file__).parents[2], random.Random(1)
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    folder = tmp_path / "steps"
    command = [sys.executable, "-c", _KILLED, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == 4:
                threading.Event().wait(rng.uniform(0, 0.05))
                process.send_signal(signal.SIGKILL)
                break
        reached = int((process.stdout.read().splitlines() or [line])[-1])
    assert process.returncode == -signal.SIGKILL
    with contextlib.closing(Store(folder)) as store:
        newest = store.steps()[-1]
        assert newest >= reached - 1  # the one that was being written is lost, no other
        assert [store.verify(step) for step in store.steps()] == [None] * len(store.steps())
        assert_same(store.load(newest, store.shapes(newest)), LARGE)
        assert all(name.isdecimal() for name in names(store))
