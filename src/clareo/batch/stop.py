"""Ctrl-C: the first finishes what is at work, the second stops at once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SAID = b"\nclareo: finishing what is at work; Ctrl-C once more stops at once\n"


class Stop:
    """Whether somebody wants a batch to end."""

    def __init__(self) -> None:
        self.asked = False
        self.at_once = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear Ctrl-C within the context. Only the main thread can; in any other nothing is heard."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.asked:
            self.at_once = True
            raise KeyboardInterrupt
        self.asked = True
        os.write(2, SAID)  # print may be what was interrupted


def interrupt(threads: set[int]) -> None:
    """Raise KeyboardInterrupt in threads, at their next step in Python: they clean up and end."""
    for ident in tuple(threads):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(KeyboardInterrupt))
