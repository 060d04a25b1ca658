"""Which device and which number format this machine should use."""

from __future__ import annotations

import ctypes
import sys
from typing import Literal

import torch

from clareo.errors import UsageError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def choose_device(name: DeviceName = "auto") -> torch.device:
    """Return the device asked for, or the fastest there is."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if name not in there:
        msg = f"unknown device {name!r}: there are auto, {', '.join(there)}"
        raise UsageError(msg)
    if not there[name]:
        msg = f"--device {name}: no such device on this machine (clareo doctor shows what there is)"
        raise UsageError(msg)
    return torch.device(name)


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether bf16 runs on matrix units.

    Elsewhere it is slower than fp32: 1.4 times on a CPU with AVX512-BF16 and no AMX (one evaluation of 512x512 px,
    ``clareo bench --speed``), up to 200 times where it is emulated.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return bool(probe and probe())
    return False


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the number format for convolutions and matrix products."""
    if precision == "auto":
        return torch.bfloat16 if has_fast_bf16(device) else torch.float32
    if precision not in ("fp32", "bf16"):
        msg = f"unknown precision {precision!r}: there are auto, bf16, fp32"
        raise UsageError(msg)
    return torch.bfloat16 if precision == "bf16" else torch.float32


def keep_freed_memory() -> None:
    """Let the C library reuse large blocks instead of handing them back to the system, where it can (glibc).

    Every step of a training frees and asks for the same tensors; fetching fresh pages for them took up to ten times as
    long as computing on them. Not for restoring: there the peak of memory counts.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        trim_threshold, mmap_max = -1, -4  # names of <malloc.h>
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(mmap_max, 0)


def hand_back_freed_memory() -> None:
    """Give to the system what the C library keeps for reuse, where it can (glibc).

    It keeps freed blocks for every thread apart: two threads that take turns would hold twice the memory of one.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
