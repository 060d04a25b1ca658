"""What was said of photos, in a file: looked up by the photo's pixels, written by people or kept from networks.

A `.json` file is one object, hash -> entry; a `.jsonl` file has an entry a line, with its hash in it. An entry has
`tags`, `caption` and `prompt` like a `Percept`, each of them where somebody said it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clareo.errors import UsageError
from clareo.io import atomic
from clareo.types import Image

Entry = Mapping[str, Any]  # tags, caption, prompt; `around`: the tags that the caption was asked around
LISTS, TEXTS = ("tags", "around"), ("caption", "prompt")
SUFFIXES = (".json", ".jsonl")


def image_hash(photo: Image) -> str:
    """Return the sha256 of a photo's size and of its pixels (1, 3, H, W), rounded to 8 bit.

    >>> import torch
    >>> image_hash(torch.zeros(1, 3, 2, 3))[:16]
    '543d80cbbc1c3066'
    """
    pixels = photo[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous()
    height, width, _ = pixels.shape
    return hashlib.sha256(f"{width}x{height}:".encode() + pixels.cpu().numpy().tobytes()).hexdigest()


def read_answers(path: Path) -> dict[str, Entry]:
    """Read a file of answers, or every such file in a folder; say what is wrong with one that is none."""
    paths = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
    if not paths:
        msg = f"{path}: a folder without answers ({', '.join(SUFFIXES)})"
        raise UsageError(msg)
    found: dict[str, Entry] = {}
    for file in paths:
        entries, wrong = salvage(file)
        if wrong:
            msg = f"{file}: cannot be read as answers about photos ({wrong[0]})"
            raise UsageError(msg)
        found |= entries
    return found


def salvage(path: Path) -> tuple[dict[str, Entry], list[str]]:
    """Read what can be read of one file, and say what cannot."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        msg = f"{path}: cannot be read as answers about photos ({error.strerror or error})"
        raise UsageError(msg) from error
    found: dict[str, Entry] = {}
    wrong: list[str] = []
    for place, part in _parts(path, text):
        try:
            found |= _entries(json.loads(part), lines=path.suffix == ".jsonl")
        except (ValueError, TypeError) as error:
            wrong.append(f"{place}: {error}")
    return found, wrong


def _parts(path: Path, text: str) -> Iterator[tuple[str, str]]:
    if path.suffix != ".jsonl":
        yield "its JSON", text
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"line {number}", line


def _entries(plain: Any, *, lines: bool) -> dict[str, Entry]:  # noqa: ANN401 - whatever was written
    if not isinstance(plain, dict) or (lines and not isinstance(plain.get("hash"), str)):
        msg = "an object with a hash in it is wanted" if lines else "an object, hash -> entry, is wanted"
        raise TypeError(msg)
    entries = {plain["hash"]: {key: value for key, value in plain.items() if key != "hash"}} if lines else plain
    for entry in entries.values():
        _check(entry)
    return entries


def _check(entry: Any) -> None:  # noqa: ANN401
    if not isinstance(entry, dict):
        msg = f"an entry is an object with tags, caption or prompt, not {entry!r}"
        raise TypeError(msg)
    for key, value in entry.items():
        is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if (key in LISTS and not is_list) or (key in TEXTS and not isinstance(value, str)):
            msg = f"{key} cannot be {value!r}"
            raise TypeError(msg)


def write_answers(path: Path, entries: Mapping[str, Entry]) -> None:
    """Write a file of answers, whole or not at all."""
    if path.suffix == ".jsonl":
        text = "".join(json.dumps({"hash": key, **entry}, ensure_ascii=False) + "\n" for key, entry in entries.items())
    else:
        text = json.dumps(entries, ensure_ascii=False, indent=1)
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def reopen(path: Path) -> dict[str, Entry]:
    """Read a file that answers are added to; start one that is not there.

    A file that was written by halves is set aside as `.broken`, and what could be read of it is kept.
    """
    if not path.exists():
        return {}
    found, wrong = salvage(path)
    if wrong:
        path.replace(path.with_name(f"{path.name}.broken"))
        write_answers(path, found)
    return found


def look_up(answers: Mapping[str, Entry], key: str, photo: Image, path: Path) -> Any:  # noqa: ANN401
    """Return one answer about a photo; a photo that a file does not speak of is an error, not an empty answer."""
    found = image_hash(photo)
    if key not in answers.get(found, {}):
        msg = f"{path}: has no {key} for this photo (sha256 {found[:16]}...)"
        raise UsageError(msg)
    return answers[found][key]
