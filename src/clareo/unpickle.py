"""The inside of ``python -m clareo.convert``: a process of its own that reads one pickle, and may do nothing else.

It does not import clareo, so that it can run in Python's isolated mode. What guards it: torch's reader of plain
weights, which knows tensors and containers only; no network (where the system can take it away), and a hook that
refuses sockets, processes and files to write; limits on memory, time and the size of what is written.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000  # flags of unshare(2)
FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.",
    "shutil.",
    "ctypes.",
    "pty.",
    "webbrowser.",
    "urllib.",
    "ftplib.",
    "smtplib.",
)
ALLOWED = ("os.listdir", "os.scandir", "os.walk", "os.getxattr")  # looking around
FREE = 1 << 30  # bytes of memory beside what the file itself takes up


def main() -> int:
    """Convert SOURCE to TARGET; say what became of it as JSON."""
    source, target, part = sys.argv[1:]
    _leave_network()
    import torch  # noqa: PLC0415 - after the network is gone, before files are closed
    from safetensors.torch import save_file  # noqa: PLC0415

    _limit(Path(source).stat().st_size)
    sys.addaudithook(_refuse)
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
        tensors = choose(found, part)
        plain = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
        del found, tensors
        save_file(plain, target)
        said: dict[str, int | str] = {"tensors": len(plain)}
    except Exception as error:  # noqa: BLE001 - the other side prints it
        said = {"error": _reason(error)}
    sys.stdout.write(json.dumps(said))
    return int("error" in said)


def choose(found: Any, part: str) -> Mapping[str, Any]:  # noqa: ANN401 - that is the question
    """Return the tensors by name: all there is, the part that was named, or the only one."""
    for name in part.split(".") if part else ():
        if not isinstance(found, Mapping) or name not in found:
            msg = f"has no part {part!r}"
            raise ValueError(msg)
        found = found[name]
    inside: dict[str, Any] = {str(name): value for name, value in found.items()} if isinstance(found, Mapping) else {}
    if _is_plain(found):
        return inside
    parts = sorted(name for name, value in inside.items() if _is_plain(value))
    if len(parts) == 1:
        return dict(inside[parts[0]])
    if parts:
        msg = f"holds several sets of tensors; name one with --part: {', '.join(parts)}"
        raise ValueError(msg)
    others = ", ".join(f"{name} ({type(value).__name__})" for name, value in list(inside.items())[:8])
    msg = f"holds no plain set of tensors, but {others or type(found).__name__}"
    raise ValueError(msg)


def _is_plain(value: Any) -> bool:  # noqa: ANN401
    import torch  # noqa: PLC0415

    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
            for name, tensor in value.items()
        )
    )


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())
    stranger = re.search(r"(?:GLOBAL|global) ([\w.]+)", said)
    if stranger or "weights_only" in said.lower():
        return f"holds more than tensors{f' ({stranger[1]})' if stranger else ''}; it was not run"
    if isinstance(error, MemoryError) or "alloc" in said.lower():
        return "unpacks to far more than its size"
    return said.split(". ")[0] or type(error).__name__


def _leave_network() -> None:
    """Move into an empty network, where Linux lets us; the hook stands behind it."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "unshare") and library.unshare(NEW_NETWORK) != 0:
            library.unshare(NEW_NETWORK | NEW_USER)


def _limit(size: int) -> None:
    with contextlib.suppress(ImportError):  # Windows
        import resource  # noqa: PLC0415

        limits = {
            resource.RLIMIT_CPU: 120 + size // 10**7,
            resource.RLIMIT_FSIZE: 4 * size + FREE,
            resource.RLIMIT_CORE: 0,
        }
        if Path("/proc/self/statm").exists():
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            limits[resource.RLIMIT_AS] = mapped + 6 * size + FREE
        for kind, limit in limits.items():
            hard = resource.getrlimit(kind)[1]
            most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (most, most))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and arguments[2] and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or (event.startswith(FORBIDDEN) and event not in ALLOWED):
        msg = f"tried to use {event}, which reading weights does not take"
        raise PermissionError(msg)


if __name__ == "__main__":
    sys.exit(main())
