"""One process at a time for every output, and nothing half-written, whenever a process dies.

A process that is about to write NAME makes the folder `.clareo-HASH` beside it, locks the file `lock` in there, and
writes everything in there first. What is whole moves out; the folder goes. A process that is killed leaves its folder
behind: the system has dropped the lock, so that the next one to write NAME clears the folder and takes it over.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clareo.batch.jobs import OURS
from clareo.errors import PhotoError

if sys.platform != "win32":
    import fcntl

FOREIGN = 24 * 3600  # seconds after which a lock of another machine, which cannot be asked, counts as left behind
TRIES = 100  # against processes that take the folder away in the same moment


class TakenError(Exception):
    """Another process is at this output; the message says which."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, as the lock file says."""

    pid: int
    host: str
    since: float  # seconds, Unix time

    def __str__(self) -> str:
        """Name it for a person."""
        return f"process {self.pid} on {self.host}"


@contextlib.contextmanager
def claim(target: Path) -> Iterator[Path]:
    """Hold an output, and give the folder in which it is made; raise `TakenError` where another process holds it."""
    folder = _folder(target)
    parents = [parent for parent in (target.parent, *target.parent.parents) if not parent.exists()]
    try:
        lock = _locked(folder)
        _clear(folder)
        _sign(lock, target)
    except OSError as error:
        _take_away(parents)
        msg = f"{target}: cannot be written ({error.strerror or error})"
        raise PhotoError(msg) from error
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # what stays is cleared by whoever comes next
            shutil.rmtree(folder)
        lock.close()
        _take_away(parents)


def tidy(target: Path) -> None:
    """Remove what a process left behind that died when its output was already whole."""
    if _folder(target).exists():
        with contextlib.suppress(TakenError, PhotoError), claim(target):
            pass


def _folder(target: Path) -> Path:
    return target.parent / (OURS + hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16])


def _locked(folder: Path) -> IO[bytes]:
    """Open and lock the file of a claim, in its place."""
    path = folder / "lock"
    for _ in range(TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # taken away in between: once more
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as opened:
                lock = opened.enter_context(_opened(path))
                _lock(lock)
                if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                    opened.pop_all()
                    return lock
    raise OSError(errno.EBUSY, "its folder is made and taken away all the time", str(folder))


def _opened(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)


def _lock(lock: IO[bytes]) -> None:
    """Lock a file. Who is said to hold it does so no longer, unless it lives where locks cannot tell."""
    owner = read_owner(lock)
    here = owner is not None and owner.host == socket.gethostname()
    held = _flock(lock)
    if held is None:  # then the process that is named is believed
        held = owner is None or not here or not _lives(owner.pid)
    away = owner is not None and not here and time.time() - owner.since < FOREIGN
    if away or not held:
        raise TakenError(str(owner or "another process"))


def _flock(lock: IO[bytes]) -> bool | None:
    """Try to lock a file; None where the system or the file system has no locks."""
    if sys.platform == "win32":
        return None  # the lock file is believed as long as its process lives
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return pid != os.getpid()


def read_owner(lock: IO[bytes]) -> Owner | None:
    """Read who wrote a lock file; None where nobody did, or not to its end."""
    lock.seek(0)
    try:
        plain: dict[str, Any] = json.loads(lock.read())
        return Owner(int(plain["pid"]), str(plain["host"]), float(plain["since"]))
    except (ValueError, KeyError, TypeError):
        return None


def _sign(lock: IO[bytes], target: Path) -> None:
    signed = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "output": target.name}
    lock.seek(0)
    lock.truncate()
    lock.write(json.dumps(signed).encode())


def _clear(folder: Path) -> None:
    """Remove what a process left behind that died in here."""
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink()


def _take_away(folders: list[Path]) -> None:
    """Remove the folders that were made for an output, where they are empty: the innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
