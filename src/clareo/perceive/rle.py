"""Masks as SA-1B writes them: COCO's run lengths, of columns from left to right, that begin with what is outside.

Counts are a list, or a text of 6-bit characters from "0" on: five bits of a number each, low ones first, the sixth says
that more follow, and the fifth of the last is the sign. From the fourth on, numbers are what was added since two runs
ago.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from clareo.errors import UsageError

Box: TypeAlias = tuple[int, int, int, int]  # top, left, height, width, in px
Mask: TypeAlias = NDArray[np.bool_]  # (H, W)
FIRST = ord("0")  # the character of 0
MORE, SIGN, BITS = 0x20, 0x10, 5


def decode(size: Sequence[int], counts: Sequence[int] | str | bytes) -> Mask:
    """Turn run lengths into a mask.

    >>> decode((2, 3), [1, 2, 3]).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    height, width = size
    runs = np.array(_numbers(counts) if isinstance(counts, str | bytes) else counts, dtype=np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        msg = f"the runs of a mask of {width}x{height} px add up to {runs.sum()} px"
        raise UsageError(msg)
    inside = np.arange(len(runs)) % 2 == 1
    mask: Mask = np.repeat(inside, runs).reshape(width, height).T
    return mask


def encode(mask: Mask) -> dict[str, Any]:
    """Turn a mask into ``{"size": [height, width], "counts": text}``.

    >>> encode(np.array([[False, True, False], [True, False, False]]))
    {'size': [2, 3], 'counts': '123'}
    """
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    ends = turns[turns < mask.size].tolist()
    runs = np.diff([0, *ends, mask.size]).tolist()
    return {"size": list(mask.shape), "counts": _text(runs)}


def _numbers(text: str | bytes) -> list[int]:
    found: list[int] = []
    value = place = 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - FIRST
        value |= (bits & 0x1F) << place
        place += BITS
        if not bits & MORE:
            value -= (1 << place) if bits & SIGN else 0
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value = place = 0
    return found


def _text(runs: list[int]) -> str:
    characters = []
    for place, run in enumerate(runs):
        left, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:
            bits, left = left & 0x1F, left >> BITS
            more = left != (-1 if bits & SIGN else 0)
            characters.append(chr(FIRST + bits + (MORE if more else 0)))
    return "".join(characters)


def read_rle(path: Path, box: Box | None = None) -> torch.Tensor:
    """Read the masks (N, H, W) bool of SA-1B's NAME.json; of a ``box`` of the photo, those that reach into it.

    A photo of SA-1B has some hundred masks of three megapixels: where a crop is learned from, cut both alike.
    """
    annotations = _annotations(path)
    try:
        sizes = {tuple(each["segmentation"]["size"]) for each in annotations}
        whole = next(iter(sizes)) if len(sizes) == 1 else (0, 0)
        top, left, height, width = box or (0, 0, *whole)
        cut = np.s_[top : top + height, left : left + width]
        masks = [decode(**_segmentation(each))[cut] for each in annotations]
    except (KeyError, TypeError, ValueError, UsageError) as error:
        msg = f"{path}: cannot be read as masks of SA-1B ({error!r})"
        raise UsageError(msg) from error
    if len(sizes) > 1:
        msg = f"{path}: its masks are of several sizes"
        raise UsageError(msg)
    shown = [mask for mask in masks if mask.any()]
    return torch.from_numpy(np.stack(shown)) if shown else torch.zeros(0, height, width, dtype=torch.bool)


def _segmentation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    return {key: annotation["segmentation"][key] for key in ("size", "counts")}


def _annotations(path: Path) -> list[Mapping[str, Any]]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        found = plain["annotations"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path}: cannot be read as masks of SA-1B ({error!r})"
        raise UsageError(msg) from error
    if not isinstance(found, list):
        msg = f"{path}: cannot be read as masks of SA-1B (its annotations are no list)"
        raise UsageError(msg)
    return found
