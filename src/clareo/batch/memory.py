"""How much memory a photo will take, before it is begun; and how many may be at work at once.

    peak = PHOTO * (pixels of the file) + max(walking, judging)
    judging = JUDGED * (pixels of the result)
    walking = (WALKED + the system's own) * (pixels of the result)
            + working * min(tile^2, pixels of the result) * (TOGETHER where the photo fits into one tile) * format

    streamed = (HELD, and DEEPER of 16 bits) * (pixels of the result)
             + max(SEARCH, working * min(tile^2, pixels of the result) * format)

    working = ACTIVATIONS + the system's own

Fitted to measured peaks of the nano systems (docs/reliability.md), from above. The tile is the largest of `TILES` with
which one photo fits into what is free; where none does, it is streamed, if the system can be. That never depends on how
many are at work at once, so neither do the bytes of a result.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clareo.errors import NoMemoryError
from clareo.planning import SMALLEST_TILE, TILE
from clareo.system import Appetite

PHOTO = 15  # bytes a pixel: the decoded file, and as float32
JUDGED = 84  # bytes a pixel: seven float32 copies of it, from the canvas to what the judge looks at
WALKED = 48  # bytes a pixel: canvas, photo as latent, noise, and the blend
HELD = 22  # bytes a pixel: the canvas, the result in half precision, and pieces that are judged
DEEPER = 8  # bytes a pixel more: the result of a photo of 16 bits as float32, and its integers
ACTIVATIONS = 900  # bytes a pixel of a tile, fp32
TOGETHER = 1.6  # a photo that fits into one tile takes its experts in one forward
FORMATS = {"fp32": 1.0, "bf16": 0.6}
SEARCH = 200 * 2**20  # bytes: what finding the blend takes, whatever the photo
TILES = (TILE, 384, 256, SMALLEST_TILE)  # px
SPARE = 0.85  # the share of free memory that is planned with


@dataclass(frozen=True)
class Load:
    """What a photo is, as far as memory goes."""

    pixels: int  # of the file
    upscale: int = 1
    precision: str = "fp32"
    bits: int = 8  # of a colour
    appetite: Appetite = field(default_factory=Appetite)  # of the system

    def peak(self, tile: int) -> int:
        """Estimate the bytes that a restoration takes at its peak, beside what is loaded anyway."""
        result = self.pixels * self.upscale**2
        within = min(tile**2, result)
        at_once = TOGETHER if result <= tile**2 else 1.0
        walked = (WALKED + self.appetite.result) * result
        return int(PHOTO * self.pixels + max(JUDGED * result, walked + max(SEARCH, self._working(within) * at_once)))

    def streamed(self, tile: int) -> int:
        """Estimate the same for a photo that is streamed; its file is gone by then."""
        result = self.pixels * self.upscale**2
        source = 12 * self.pixels if self.upscale > 1 else 0
        held = HELD + (DEEPER if self.bits == 16 else 0)
        return int(source + held * result + max(SEARCH, self._working(min(tile**2, result))))

    def _working(self, pixels: int) -> float:
        """Estimate what a network takes for so many pixels at once."""
        return (ACTIVATIONS + self.appetite.tile) * pixels * FORMATS.get(self.precision, 1.0)


@dataclass(frozen=True)
class Fit:
    """How a photo fits into memory."""

    size: int  # bytes
    tile: int | None = None  # px, where that is not the usual one
    streamed: bool = False

    @property
    def why(self) -> str:
        """Say what was done for want of memory; nothing where there was no want."""
        told = [] if self.tile is None else [f"tiles of {self.tile} px"]
        told += ["streamed"] if self.streamed else []
        return f"{' and '.join(told)}, for want of memory" if told else ""


def fit_into(load: Load, free: int, *, can_stream: bool = False) -> Fit:
    """Return the largest tile with which a photo fits, whole or else streamed; say what is missing where none does."""
    for streamed in (False, True)[: 1 + can_stream]:
        for tile in TILES:
            size = load.streamed(tile) if streamed else load.peak(tile)
            if size <= free:
                return Fit(size, None if tile == TILE else tile, streamed)
    need, there = (load.streamed if can_stream else load.peak)(TILES[-1]) / 2**30, free / 2**30
    msg = (
        f"needs about {need:.1f} GiB of memory, and there are {there:.1f} (--memory says otherwise); "
        "enlarge it less, or restore it in parts"
    )
    raise NoMemoryError(msg)


def free_memory() -> int:
    """Return the bytes that this process may still take: of the machine, or of its container where that has less."""
    found = [size for size in (_machine(), _container()) if size is not None]
    return int(SPARE * min(found)) if found else 4 * 2**30


def _machine() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _container() -> int | None:
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            return max(0, int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
    return None


class Budget:
    """Memory that photos at work share. Whoever does not fit waits; one alone always fits."""

    def __init__(self, free: int) -> None:
        self.free = free
        self._taken: list[int] = []
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Hold so many bytes within the context."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or sum(self._taken) + size <= self.free)
            self._taken.append(size)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(size)
                self._changed.notify_all()


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
