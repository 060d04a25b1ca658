"""Whose turn it is to compute. Workers read, write and verify at once; what a network has to do they hand on.

Where all cores are given to one photo, the thread that asked for the batch computes: OpenMP makes a pool of threads for
every thread that computes, and once there are more of them than cores, all of them fall asleep between two layers
(measured: a photo took 1.9 s instead of 1.1 s in any thread but the first). Where torch was given fewer threads,
workers compute themselves, as many at once as there is room for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Lock, Semaphore
from typing import Any, Protocol, TypeVar

import torch

Made = TypeVar("Made")
Asked = tuple[Callable[[], Any], "Future[Any]"]


class Turn(Protocol):
    """Does something when it is its turn, and returns what came of it."""

    def __call__(self, work: Callable[[], Made], /) -> Made:
        """Wait, and have it done."""


class Turns(Turn, Protocol):
    """How workers take turns, which they call, and how their outcomes are waited for."""

    def wait(self, awaited: Future[Made]) -> Made:
        """Wait for a worker; called by the thread that asked for the batch."""

    def set_up_worker(self) -> None:
        """Say how many threads a worker's own arithmetic takes; called by it."""

    def refuse(self) -> None:
        """Have nothing done any more: whoever waits for a turn is interrupted."""

    def close(self) -> None:
        """Leave everything as it was; called by the thread that asked for the batch."""


def at_once(work: Callable[[], Made], /) -> Made:
    """Do it here and now: there is nobody else."""
    return work()


class SelfService:
    """Workers compute themselves, so many at once."""

    def __init__(self, count: int) -> None:
        self._free = Semaphore(count)

    def __call__(self, work: Callable[[], Made], /) -> Made:
        """Wait for a turn, and do it in this thread."""
        with self._free:
            return work()

    def wait(self, awaited: Future[Made]) -> Made:
        """Wait for a worker."""
        return awaited.result()

    def set_up_worker(self) -> None:
        """Leave it at the number that torch was given."""

    def refuse(self) -> None:
        """Leave it at that: workers are interrupted in what they do."""

    def close(self) -> None:
        """Nothing was changed."""


class Counter:
    """The thread that asked for the batch computes for all workers, in the order in which they ask."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[Asked | None] = SimpleQueue()
        self._closing, self._closed = Lock(), False

    def __call__(self, work: Callable[[], Made], /) -> Made:
        """Hand on what is to be done, and wait for what comes of it."""
        made: Future[Made] = Future()
        with self._closing:
            if self._closed:
                raise KeyboardInterrupt
            self._asked.put((work, made))
        return made.result()

    def wait(self, awaited: Future[Made]) -> Made:
        """Compute what is asked for until an outcome is there."""
        awaited.add_done_callback(lambda _: self._asked.put(None))  # look again
        while not awaited.done():
            asked = self._asked.get()
            if asked is not None:
                _do(*asked)
        return awaited.result()

    def set_up_worker(self) -> None:
        """Take one: reading and writing needs no more, and every pool of threads is one too many."""
        torch.set_num_threads(1)  # noqa: TID251 - of this thread, which computes nothing

    def refuse(self) -> None:
        """Wake all who wait with an interrupt."""
        with self._closing:
            self._closed = True
        while True:
            try:
                asked = self._asked.get_nowait()
            except Empty:
                return
            if asked is not None:
                asked[1].set_exception(KeyboardInterrupt())

    def close(self) -> None:
        """Give threads to come the number that torch was given; workers have told torch another."""
        torch.set_num_threads(torch.get_num_threads())  # noqa: TID251 - nothing changes here


def _do(work: Callable[[], Any], made: Future[Any]) -> None:
    """Do it; what goes wrong is the worker's, and an interrupt everybody's."""
    try:
        result = work()
    except BaseException as error:
        made.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        made.set_result(result)
