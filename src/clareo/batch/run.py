"""Many photos, some of them at once, with one copy of the weights. A bad photo stops nobody else.

Workers are threads: torch lets go of Python while it computes. The network itself is at work on one photo at a time,
in the thread that asked for the batch, with all the processor that torch was given, while workers read, write and
verify; only where torch was given fewer threads than there are cores (OMP_NUM_THREADS) as many photos as fit are
computed at once. How many threads compute one photo moves its last bits. So that does not depend on the number of
workers, and neither do the bytes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import torch
from PIL.Image import DecompressionBombWarning

from clareo.batch.jobs import Job
from clareo.batch.memory import Budget, cores, free_memory
from clareo.batch.one import Bench, restore_one
from clareo.batch.outcome import Outcome, named
from clareo.batch.stop import Stop, interrupt
from clareo.batch.turns import Counter, SelfService, Turns
from clareo.devices import NAMES, choose_device, choose_precision
from clareo.errors import ClareoError, UsageError
from clareo.system import System

Begin = Callable[[Job], Callable[[], Outcome]]  # sets a photo to work; what it returns waits for the outcome


def run(  # noqa: PLR0913 - keyword-only, one per thing a user may decide
    jobs: Sequence[Job],
    system: System,
    *,
    overwrite: bool = False,
    resume: bool = False,
    keep_going: bool = True,
    byproducts: bool = False,
    workers: int = 1,
    memory: float | None = None,
    thumbnails: int = 0,
    stop: Stop | None = None,
) -> Iterator[Outcome]:
    """Do the jobs, and yield what became of each, in their order.

    Args:
        jobs: what `make_jobs` planned.
        system: the weights, shared by all workers.
        overwrite: replace outputs that exist.
        resume: skip what an earlier run has finished, and do again what it has not.
        keep_going: go on after a photo that failed.
        byproducts: write what the system sees beside a photo, like NAME.map.png.
        workers: how many photos are at work at once, memory permitting.
        memory: bytes that the photos may take; what is free by default.
        thumbnails: px of the small pictures that every outcome brings for a report; none by default.
        stop: ends the batch once it is asked to.
    """
    if workers < 1:
        msg = f"jobs must be at least 1, not {workers}"
        raise UsageError(msg)
    bench = _bench(jobs, system, memory)
    bench = replace(bench, overwrite=overwrite, resume=resume, byproducts=byproducts, thumbnails=thumbnails)
    stop = stop or Stop()
    with _quiet(), _at_work(bench, workers, stop) as begin:
        yield from _ordered(jobs, begin, workers, stop, keep_going=keep_going)


def _bench(jobs: Sequence[Job], system: System, memory: float | None) -> Bench:
    """Look up what holds for all photos; a device that is not there is told before the first."""
    options = jobs[0].options if jobs else {}
    place = choose_device(options.get("device", "auto"))
    precision = NAMES[choose_precision(options.get("precision", "auto"), place)]
    system.network.to(place)  # once, and not by every worker
    together = max(1, cores() // torch.get_num_threads()) if place.type == "cpu" else 1
    budget = Budget(free_memory() if memory is None else int(memory))
    return Bench(system, budget, precision=precision, together=together)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Set the filters of warnings that `io.opened` sets for itself; threads would take them from one another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DecompressionBombWarning)
        warnings.filterwarnings("ignore", module="PIL")
        yield


def _ordered(jobs: Sequence[Job], begin: Begin, window: int, stop: Stop, *, keep_going: bool) -> Iterator[Outcome]:
    """Keep ``window`` photos at work, and yield the outcomes in the order of the jobs.

    A wrong call is wrong for all photos, and raised; once some photo was restored, it must be about that photo.
    """
    queue, waiting, worked = iter(jobs), deque[tuple[Job, Callable[[], Outcome]]](), False
    while True:
        while not stop.asked and len(waiting) < window and (job := next(queue, None)) is not None:
            waiting.append((job, begin(job)))
        if not waiting:
            return
        job, result = waiting.popleft()
        try:
            outcome = result()
        except UsageError as error:
            if not worked:
                raise
            outcome = Outcome(job, error=named(str(error), job.source, job.target))
        worked |= outcome.restoration is not None
        if outcome.error and not keep_going:
            queue = iter(())
        yield outcome


@contextlib.contextmanager
def _at_work(bench: Bench, workers: int, stop: Stop) -> Iterator[Begin]:
    """Give the way to set a photo to work: later in this thread where there is one worker, else now in another."""
    if workers == 1:
        yield lambda job: partial(attempt, job, bench)
        return
    busy: set[int] = set()
    turns: Turns = SelfService(bench.together) if bench.together > 1 else Counter()
    bench = replace(bench, turn=turns)
    pool = ThreadPoolExecutor(workers, "clareo", initializer=turns.set_up_worker)
    begun: set[Future[Outcome]] = set()

    def begin(job: Job) -> Callable[[], Outcome]:
        begun.add(future := pool.submit(_watched, job, bench, busy))
        return partial(_waited, future, turns, begun)

    try:
        yield begin
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        if stop.at_once:
            turns.refuse()
            interrupt(busy)
            begun.clear()  # nobody waits for them
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for future in tuple(begun):  # what is at work is finished
            with contextlib.suppress(Exception, KeyboardInterrupt):
                _waited(future, turns, begun)
        pool.shutdown()
        turns.close()


def _waited(future: Future[Outcome], turns: Turns, begun: set[Future[Outcome]]) -> Outcome:
    try:
        return turns.wait(future)
    finally:
        begun.discard(future)


def _watched(job: Job, bench: Bench, busy: set[int]) -> Outcome:
    """Let it be known which threads would have to be interrupted."""
    busy.add(threading.get_ident())
    try:
        return attempt(job, bench)
    finally:
        busy.discard(threading.get_ident())


def attempt(job: Job, bench: Bench) -> Outcome:
    """Restore a photo, or say why not. Whatever goes wrong with one photo stays with it, but for a wrong call."""
    try:
        return restore_one(job, bench)
    except UsageError:
        raise
    except ClareoError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - a night's work must not end with one photo
        if os.environ.get("CLAREO_DEBUG") == "1":
            traceback.print_exc()
        reason = _told(error)
    return Outcome(job, error=named(reason, job.source, job.target))


def _told(error: Exception) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return said or "not enough memory"
    kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "  # torch says most things by that one
    return f"{kind}{said}" or type(error).__name__
