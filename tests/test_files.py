"""Files that are whole or not there, on a disk that is full for real."""

import resource

import pytest

from genjax.files import write_whole


def test_a_file_that_does_not_fit_leaves_the_one_before_and_no_draft(tmp_path):
    path = tmp_path / "deep" / "metrics.csv"
    write_whole(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # Python ignores the signal
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old" and [inner.name for inner in path.parent.iterdir()] == ["metrics.csv"]
    write_whole(path, "new")
    assert path.read_text() == "new"
