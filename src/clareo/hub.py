"""Weights that are not in the package: a bundle that was brought here, or the hub; and how to stay off the network."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from clareo.errors import CheckpointError, MissingExtraError

MODELS = "CLAREO_MODELS"  # environment: the folder of a bundle
SWITCHES = ("CLAREO_OFFLINE", "HF_HUB_OFFLINE")  # ours, and that of the hub's own library
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "LICENSE*", "README.md"]  # no pickle
SHA256 = re.compile(r"[0-9a-f]{64}")


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Stay off the network for a while.

    The hub's own switch is left alone: its library reads it once, and would stay offline for good.
    """
    before = os.environ.get(SWITCHES[0], "")
    os.environ[SWITCHES[0]] = "1"
    try:
        yield
    finally:
        os.environ[SWITCHES[0]] = before


def is_offline() -> bool:
    """Tell whether the network is off limits."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in SWITCHES)


def folder_name(name: str) -> str:
    """Return what a repository (owner/name) is called in a bundle."""
    return name.replace("/", "--")


def bundled(name: str) -> Path | None:
    """Return where a model lies in the bundle that CLAREO_MODELS names, if it is there."""
    root = os.environ.get(MODELS)
    if not root:
        return None
    place = Path(root).expanduser()
    if not place.is_dir():
        msg = f"{MODELS}={root}: no such folder"
        raise CheckpointError(msg)
    return place / folder_name(name) if (place / folder_name(name)).is_dir() else None


def fetch(name: str, sha256_of: Callable[[Path], str]) -> Path:
    """Return the local copy of a hub repository: out of a bundle, out of the cache, or downloaded and checked."""
    place = bundled(name)
    if place is not None:
        return place
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415
    except ImportError as error:
        package = "huggingface_hub"
        raise MissingExtraError.of(package, "paper") from error
    began = time.time()
    try:
        folder = Path(snapshot_download(name, allow_patterns=WANTED, local_files_only=is_offline()))
    except Exception as error:  # its own classes, those of two network libraries, and OSError
        msg = f"{name}: {_reason(name, error)}"
        raise CheckpointError(msg) from error
    _check_download(name, folder, began, sha256_of)
    return folder


def _check_download(name: str, folder: Path, since: float, sha256_of: Callable[[Path], str]) -> None:
    """Compare what was downloaded just now with the hash that the hub files it under."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        msg = f"{name}: holds no safetensors; weights in other forms are refused"
        raise CheckpointError(msg)
    for path in files:
        blob = path.resolve()
        if SHA256.fullmatch(blob.name) and blob.stat().st_mtime >= since - 2 and sha256_of(blob) != blob.name:
            blob.unlink()
            path.unlink(missing_ok=True)
            msg = f"{name}: {path.relative_to(folder)} came damaged and was deleted; run again to download it again"
            raise CheckpointError(msg)


# --- what went wrong, in one line ------------------------------------------------------------------------------------


def _reason(name: str, error: BaseException) -> str:
    if is_offline():
        return (
            "not on this machine, and the network is off limits; where there is one, run "
            f"`clareo models bundle {name} -o FOLDER`, bring FOLDER here, and set {MODELS}=FOLDER"
        )
    chain = list(_chain(error))
    kinds = {kind.__name__ for each in chain for kind in type(each).__mro__}
    if "GatedRepoError" in kinds:
        return f"the hub wants its licence accepted first: https://huggingface.co/{name}, then `hf auth login`"
    if "RepositoryNotFoundError" in kinds:
        return "no such repository on the hub, or a private one (`hf auth login`)"
    status = next((code for code in map(_status, chain) if code), 0)
    told = _of_status(status) if status else _of_network(chain, kinds)
    return told or f"cannot be had from the hub ({' '.join(str(error).split())})"


def _of_network(chain: list[BaseException], kinds: set[str]) -> str:
    full = [
        each for each in chain if isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES)
    ]
    if full:
        return f"cannot be kept here ({full[0].strerror})"
    if "TimeoutError" in kinds or any(kind.endswith(("Timeout", "TimeoutException")) for kind in kinds):
        return f"the hub does not answer (time-out); try again, or bring a bundle and set {MODELS}"
    broken = any("onsistency check" in str(each) for each in chain)
    if broken or kinds & {"IncompleteRead", "ChunkedEncodingError", "RemoteProtocolError"}:
        return "the download broke off; run again to go on with it"
    if kinds & {"ConnectionError", "ConnectError", "NetworkError"}:
        return f"the hub cannot be reached; try again, or bring a bundle and set {MODELS}"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _of_status(status: int) -> str:
    known = {
        401: "the hub wants to know who asks (401): `hf auth login`",
        403: "the hub refuses access (403); ask its owner, or log in with another account: `hf auth login`",
        404: "not found on the hub (404)",
        429: "the hub asks for patience (429); try again later",
    }
    return known.get(status, f"the hub is out of order ({status}); try again later" if status >= 500 else f"{status}")
