"""One process a run folder, with real processes."""

import errno
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest

from genjax.config import ConfigError
from genjax.training import lock
from genjax.training.lock import LOCK, locked

HOLDER = """
import sys
from genjax.training.lock import locked
with locked(sys.argv[1]) as note:
    print(note, flush=True)
    sys.stdin.readline()
"""
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def hold(tmp_path):
    """Starts another process that locks a folder until it is told or killed."""
    started = []

    def start():
        command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        started.append(process)
        assert process.stdout.readline() == "None\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_until_the_first_is_killed(hold, tmp_path):
    folder = tmp_path / "run"
    first = hold()
    with pytest.raises(ConfigError) as caught, locked(folder):
        pytest.fail("both have the lock")
    assert re.fullmatch(
        rf"{re.escape(str(folder))}: process {first.pid} on {re.escape(socket.gethostname())}, since "
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00, trains here; wait, stop it, or choose another folder",
        str(caught.value),
    )
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert str(first.pid) in (folder / LOCK).read_text()  # left behind, and in nobody's way
    with locked(folder) as note:
        assert note is None and str(os.getpid()) in (folder / LOCK).read_text()
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on"), locked(folder):
            pytest.fail("twice within a process")
    second = hold()
    second.communicate("go\n")
    assert second.returncode == 0
    with locked(folder):
        pass


def test_a_forked_child_does_not_outlive_the_lock(tmp_path):
    """Its parent is killed, it goes on, and the folder is free all the same."""
    script = """
import os, sys, time
from genjax.training.lock import locked
with locked(sys.argv[1]):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # the child itself: by now it has let go of the lock
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        child = int(parent.stdout.readline())
        try:
            with pytest.raises(ConfigError), locked(tmp_path):
                pytest.fail("the parent has the lock")
            parent.kill()
            parent.wait()
            os.kill(child, 0)  # it lives
            with locked(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "{", "3", "[1]", '{"pid": 1}', "\udcff", "[" * 4096])
def test_what_stands_in_the_file_neither_blocks_nor_breaks(tmp_path, text):
    (tmp_path / LOCK).write_bytes(text.encode("utf-8", "surrogateescape"))
    with locked(tmp_path) as note:
        assert note is None
        (tmp_path / LOCK).write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ConfigError, match="another process trains here"), locked(tmp_path):
            pytest.fail("both have the lock")


def test_a_file_that_would_drive_the_terminal(tmp_path):
    with locked(tmp_path):
        (tmp_path / LOCK).write_text('{"pid": 1, "host": "\\u001b[2J", "since": "\\n"}')
        with pytest.raises(ConfigError, match=r"process 1 on \\x1b\[2J, since \\n, trains"), locked(tmp_path):
            pytest.fail("both have the lock")


def test_an_error_within_frees_the_folder(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_a_line(tmp_path, monkeypatch):
    """The kernel's answer is made up: a test cannot mount such a file system."""

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path) as note:
        what = "no locks on this file system (No locks available), so nothing refuses a second process here"
        assert note == f"{tmp_path}: {what}"
