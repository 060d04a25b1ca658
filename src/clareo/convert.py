"""``python -m clareo.convert FILE.pth -o FILE.safetensors``: weights out of a pickle, which is never opened in here."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from clareo.checkpoints import SAFE
from clareo.errors import CheckpointError, ClareoError, UsageError
from clareo.io import atomic

LONGEST = 3600  # seconds
PASSED_ON = ("PATH", "HOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMPDIR")  # no tokens, no proxies


def convert(source: Path, target: Path, part: str = "", *, overwrite: bool = False) -> int:
    """Copy the plain tensors of a pickle to safetensors, in a process that may do nothing else; return how many."""
    if target.suffix.lower() != SAFE:
        msg = f"{target}: weights are written as {SAFE}"
        raise UsageError(msg)
    if not source.is_file():
        msg = f"{source}: no such file"
        raise CheckpointError(msg)
    if target.exists() and not overwrite:
        msg = f"{target}: exists already; --overwrite replaces it"
        raise CheckpointError(msg)
    with atomic(target) as partial:
        count = _ask(source, partial, part)
        _check(partial, source, count)
    return count


def _ask(source: Path, target: Path, part: str) -> int:
    inside = Path(__file__).with_name("unpickle.py")
    command = [sys.executable, "-I", str(inside), str(source.resolve()), str(target.resolve()), part]
    known = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, timeout=LONGEST, env=known, stdin=subprocess.DEVNULL
        )
        said = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        msg = f"{source}: took more than {LONGEST} seconds and was stopped"
        raise CheckpointError(msg) from error
    except ValueError as error:
        msg = f"{source}: the process that read it was stopped (status {done.returncode})"
        raise CheckpointError(msg) from error
    if "error" in said:
        msg = f"{source}: {said['error']}"
        raise CheckpointError(msg)
    return int(said["tensors"])


def _check(target: Path, source: Path, count: int) -> None:
    """Trust the other process no further than needed: what it wrote must be what it said."""
    try:
        with safe_open(target, "pt") as file:
            found = len(list(file.keys()))
    except (OSError, SafetensorError) as error:
        msg = f"{source}: was not converted whole ({error})"
        raise CheckpointError(msg) from error
    if found != count:
        msg = f"{source}: was not converted whole ({found} of {count} tensors)"
        raise CheckpointError(msg)


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one file; return the exit status."""
    parser = argparse.ArgumentParser("python -m clareo.convert", description="Copy weights out of a pickle, safely.")
    parser.add_argument("source", type=Path, metavar="FILE", help="a .pt, .pth, .ckpt or .bin file")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .safetensors file")
    parser.add_argument("--part", default="", help="which set of tensors, where there are several, like params_ema")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parsed = parser.parse_args(arguments)
    try:
        count = convert(parsed.source, parsed.out, parsed.part, overwrite=parsed.overwrite)
    except ClareoError as error:
        print(f"clareo: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    print(f"{parsed.out}  {count} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
