"""Windows, step numbers and the CSV file."""

import csv
import json
import resource

import jax.numpy as jnp
import numpy as np
import pytest

from genjax.training.metrics import CSV, Console, Recorder, TensorBoard

NAMES = ["a/loss", "b/loss"]


class Rows:
    """A writer that remembers."""

    def __init__(self):
        self.rows = []

    def write(self, step, row, rates):
        self.rows.append((step, dict(row), dict(rates)))

    def close(self):
        pass


def rates(steps_per_second):
    return {"images_per_second": 8 * steps_per_second}


def one(*values):
    """What a step measures: totals and weights."""
    return jnp.stack([jnp.array(values, jnp.float32), jnp.ones(len(values))])


def feed(recorder, steps):
    for step in steps:
        there = float(step % 4 == 1)
        recorder.push(step, jnp.array([[step, 20.0 * there], [1.0, 2.0 * there]]))


def test_a_row_is_the_mean_of_the_steps_up_to_its_number():
    writer = Rows()
    recorder = Recorder(NAMES, [writer], 3, rates)
    feed(recorder, range(1, 8))
    assert [step for step, _, _ in writer.rows] == [3, 6]  # step 7 is held back
    recorder.flush(last=True)
    assert [(step, row) for step, row, _ in writer.rows] == [
        (3, {"a/loss": 2.0, "b/loss": 10.0}),
        (6, {"a/loss": 5.0, "b/loss": 10.0}),
        (7, {"a/loss": 7.0}),
    ]


def test_a_step_is_read_when_the_next_one_is_dispatched():
    writer = Rows()
    recorder = Recorder(["a/loss"], [writer], 1, rates)
    recorder.push(1, one(1.0))
    assert writer.rows == []
    recorder.push(2, one(1.0))
    assert [step for step, _, _ in writer.rows] == [1]


def test_a_full_last_window_is_written_once():
    writer = Rows()
    recorder = Recorder(NAMES, [writer], 2, rates)
    feed(recorder, range(1, 5))
    recorder.flush()
    recorder.flush(last=True)
    assert [step for step, _, _ in writer.rows] == [2, 4]


def test_a_window_goes_on_after_a_resume():
    whole, first, second = Rows(), Rows(), Rows()
    recorder = Recorder(NAMES, [whole], 4, rates)
    feed(recorder, range(1, 9))
    recorder.flush(last=True)
    recorder = Recorder(NAMES, [first], 4, rates)
    feed(recorder, range(1, 7))
    recorder.flush()
    recorder = Recorder(NAMES, [second], 4, rates, window=json.loads(json.dumps(recorder.state())))
    feed(recorder, range(7, 9))
    recorder.flush(last=True)
    assert [row[:2] for row in first.rows + second.rows] == [row[:2] for row in whole.rows]


def test_rates_leave_pauses_out():
    import time

    writer = Rows()
    recorder = Recorder(["a/loss"], [writer], 3, rates)
    start = time.perf_counter()
    for step in range(1, 4):
        recorder.push(step, one(0.0))
        with recorder.pause():
            time.sleep(0.2)
    recorder.push(4, one(0.0))
    recorder.flush(last=True)
    assert time.perf_counter() - start > 0.6
    measured = writer.rows[0][2]
    assert measured["steps_per_second"] > 2 / 0.2
    assert measured["images_per_second"] == pytest.approx(8 * measured["steps_per_second"])
    assert measured["step_ms"] == pytest.approx(1e3 / measured["steps_per_second"])


def test_the_time_of_a_step_is_split():
    import time

    writer = Rows()
    recorder = Recorder(["a/loss"], [writer], 5, rates)
    for step in range(1, 7):
        with recorder.timed("data"):
            time.sleep(0.02)
        with recorder.timed("dispatch"):
            time.sleep(0.05)
        recorder.push(step, one(0.0))
    measured = writer.rows[0][2]
    assert 20 <= measured["data_ms"] < 50 <= measured["dispatch_ms"] and measured["device_ms"] < 20
    assert measured["step_ms"] >= measured["data_ms"] + measured["dispatch_ms"]


def test_steps_that_are_not_accepted_are_counted_and_left_out():
    writer = Rows()
    recorder = Recorder(["a/loss"], [writer], 4, rates, lambda step, values: values["a/loss"] != 3.0)
    for step in range(1, 5):
        recorder.push(step, one(float(step)))
    recorder.add({"eval/loss": 0.5})
    recorder.flush()
    assert writer.rows[0][1] == {"a/loss": pytest.approx(7 / 3), "skipped_steps": 1.0, "eval/loss": 0.5}


def test_a_step_that_was_done_before_the_clock_started_is_in_no_rate():
    """Where a step blocks, the second is done when the first is collected, which starts the clock."""
    import time

    writer = Rows()
    recorder = Recorder(["a/loss"], [writer], 2, rates)
    for step in range(1, 5):
        time.sleep(0.05)
        recorder.push(step, one(0.0))
        if step % 2 == 0:
            recorder.flush()
    assert writer.rows[0][2] == {} and writer.rows[1][2]["step_ms"] == pytest.approx(50, rel=0.5)


def test_there_is_no_rate_where_no_step_was_timed(tmp_path, capsys):
    """The first step holds the compilation; a run that is stopped after it has no rate."""
    writer, console, board = Rows(), Console(1, 0), TensorBoard(tmp_path, 0)
    recorder = Recorder(["a/loss"], [writer, console, board], 1, rates)
    recorder.push(1, one(1.0))
    recorder.flush(last=True)
    board.close()
    assert writer.rows == [(1, {"a/loss": 1.0}, {})]
    assert capsys.readouterr().out == "step 1/1: a/loss 1\n"
    assert b"rate/" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_csv_keeps_every_digit_and_leaves_gaps_empty(tmp_path):
    file = CSV(tmp_path / "metrics.csv", 0)
    file.write(2, {"a/loss": 1 / 3, "b/loss": float("nan")}, {})
    file.write(4, {"a/loss": 0.0}, {})
    file.write(6, {"a/loss": 1.0, "c,d": 2.0}, {})
    rows = read(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert float(rows[0]["a/loss"]) == 1 / 3
    assert rows[0]["b/loss"] == "nan"
    assert rows[1] == {"step": "4", "a/loss": "0.0", "b/loss": "", "c,d": ""}
    assert rows[2]["c,d"] == "2.0"


def test_csv_is_cut_at_the_restored_step(tmp_path):
    path = tmp_path / "metrics.csv"
    file = CSV(path, 0)
    for step in (2, 4, 6):
        file.write(step, {"a/loss": step / 7}, {})
    before = path.read_text()
    with path.open("a") as broken:
        broken.write("8,0.1")  # killed within a line
    CSV(path, 6)
    assert path.read_text() == before
    again = CSV(path, 4)
    assert [row["step"] for row in read(path)] == ["2", "4"]
    again.write(6, {"a/loss": 6 / 7}, {})
    assert path.read_text() == before
    path.write_bytes(before.encode().replace(b"\n4,", b"\nx4\xff,"))  # a damaged row is left out
    CSV(path, 6)
    assert [row["step"] for row in read(path)] == ["2", "6"]
    path.write_text(before)
    CSV(path, 0).write(2, {"b/loss": 1.0}, {})  # from the start, perhaps with other metrics
    assert read(path) == [{"step": "2", "b/loss": "1.0"}]


def test_tensorboard_events_are_written(tmp_path):
    board = TensorBoard(tmp_path, 0)
    board.write(1, {"a/loss": 0.5}, {"steps_per_second": 2.0})
    board.write_image(1, "samples", np.zeros((4, 4, 3), np.uint8))
    board.close()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert all(tag in data for tag in (b"a/loss", b"rate/steps_per_second", b"samples"))


def test_events_that_do_not_fit_raise_and_nobody_waits(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    board = TensorBoard(tmp_path, 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # Python ignores the signal
    try:
        with pytest.raises(OSError, match="File too large"):
            for step in range(10_000):
                board.write(step, {"a/loss": 0.5}, {})
        board.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_console_prints_plain_lines_into_a_log(capsys):
    console = Console(10, 0)
    speed = {"images_per_second": 32.0, "step_ms": 250.0, "data_ms": 1.0, "dispatch_ms": 2.0, "device_ms": 240.0}
    console.write(5, {"a/grad_norm": 2.0, "a/loss": 0.25, "a/mse/0-1": 3.0}, speed)
    console.write(10, {"a/loss": 0.5}, speed | {"flops_per_second": 3.2e13, "mfu": 0.45})
    console.say("[bold]as it is")
    console.close()
    assert capsys.readouterr().out == (
        "step 5/10: a/loss 0.25, a/grad_norm 2; 32 images/s, 250 ms/step (data 1, dispatch 2, device 240)\n"
        "step 10/10: a/loss 0.5; 32 images/s, 250 ms/step (data 1, dispatch 2, device 240), "
        "32 TFLOP/s (45.0% of peak)\n"
        "[bold]as it is\n"
    )
