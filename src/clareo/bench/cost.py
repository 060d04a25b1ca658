"""What a photo costs: seconds, and by how much memory grows at its peak."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from clareo.bench.contenders import Contender
from clareo.bench.datasets import Item
from clareo.devices import choose_device
from clareo.types import Image

if sys.platform != "win32":
    import resource

MIB = 2**20


@dataclass(frozen=True)
class Made:
    """A restored photo and what it took."""

    image: Image
    seconds: float
    mebibytes: float | None  # where the system keeps an account
    machine: str  # on what it was measured


def make(contender: Contender, item: Item) -> Made:
    """Restore one photo, from file to picture; note the seconds and by how much memory grew at its peak."""
    cuda = choose_device(contender.device).type == "cuda"
    before = _begin_peak(cuda=cuda)
    began = time.perf_counter()
    image = contender.restore(item)
    seconds = time.perf_counter() - began
    grown = (_peak(cuda=cuda) - before) / MIB
    machine = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"
    return Made(image, seconds, None if math.isnan(grown) else grown, machine)


def _begin_peak(*, cuda: bool) -> float:
    """Forget the peak so far, where that can be done; return the bytes that are held now."""
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    with contextlib.suppress(OSError):  # elsewhere the peak of the whole run stays, and growth is a lower bound
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    return _peak(cuda=False)


def _peak(*, cuda: bool) -> float:
    if cuda:
        return float(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return math.nan
    with contextlib.suppress(OSError):
        return _status("VmHWM")
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def _status(name: str) -> float:
    """Read a size in bytes out of Linux' account of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    sizes = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    if not sizes:
        raise OSError(name)
    return float(sizes[0]) * 1024
