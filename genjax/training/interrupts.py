"""Ctrl-C and SIGTERM as a wish that the loop reads between two steps."""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Within the context, the first SIGINT or SIGTERM is noted instead of raised; a second one is raised as ever.

    A signal that comes while a program is compiled is noted when that is done: Python handles signals between its own
    instructions. None gets lost, as a KeyboardInterrupt does where it happens to be raised within a callback that
    the garbage collector calls. Outside the main thread, where Python lets nobody handle signals, it does nothing.
    Each process notes its own signals; `genjax.training.distributed` tells the others.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        # print would fail where the signal has come in the midst of another print.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping after this step; again to stop at once\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
