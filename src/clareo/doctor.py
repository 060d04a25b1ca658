"""What this machine can run, what is missing, and what to install."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator

import torch

from clareo.checkpoints import file_hash, packaged
from clareo.devices import choose_device, choose_precision, has_fast_bf16

EXTRAS = {  # extra -> the packages that it brings
    "paper": ("diffusers", "transformers", "accelerate", "peft"),
    "train": ("tensorboard",),
    "heic": ("pillow_heif",),
    "iqa": ("pyiqa",),
    "docs": ("mkdocs",),
    "test": ("pytest",),
}


def examine() -> Iterator[str]:
    """Yield one line a finding; lines that begin with "missing" say that something needed does not work."""
    yield f"python    {platform.python_version()} on {platform.platform()}"
    yield f"torch     {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    device = choose_device()
    chosen = str(choose_precision("auto", device)).removeprefix("torch.")
    speed = "fast" if has_fast_bf16(device) else "slow here, not used"
    yield f"device    {device}, computing in {chosen} (bf16 is {speed})"
    for entry in packaged().values():
        yield _weights(entry.name)
    yield (
        "16 bit    ready"
        if importlib.util.find_spec("pyvips")
        else "missing   16-bit photos: pip install 'pyvips[binary]'"
    )
    for extra, packages in EXTRAS.items():
        absent = [name for name in packages if importlib.util.find_spec(name) is None]
        state = "ready" if not absent else f"not installed: pip install 'clareo[{extra}]' brings {', '.join(absent)}"
        yield f"[{extra}]".ljust(10) + state
    if sys.platform == "linux":
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        yield f"memory    {free:.1f} GiB free"


def _weights(name: str) -> str:
    entry = packaged()[name]
    if not entry.path.exists():
        return f"missing   the weights of {name}: reinstall clareo"
    if file_hash(entry.path) != entry.sha256:
        return f"missing   intact weights of {name}: the file was altered, reinstall clareo"
    return f"weights   {name}, intact"
