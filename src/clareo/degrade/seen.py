"""What is left to be seen of a damage in the end: the photo is damaged once more, without the steps of one kind.

What was drawn is another matter. Noise that came before a photo was shrunk and coded is mostly gone from it, and of two
codings the photo shows the last: DaLPSR's degrees, the worst of what was drawn, cannot be read off a photo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clareo.degrade.words import ACTIONS, prompt_kind
from clareo.errors import UnknownNameError

if TYPE_CHECKING:
    import torch

    from clareo.degrade.record import Record, Step

LABELS = ("seen", "drawn")  # what is left to be seen of each kind, or the worst that was drawn of it
MOST: Mapping[str, float] = {"blur": 40 / 255, "noise": 32 / 255, "jpeg": 32 / 255}  # as bad as it gets: rms


def check_labels(name: str) -> None:
    """Refuse labels that nobody knows."""
    if name not in LABELS:
        raise UnknownNameError.of("labels", name, LABELS)


def seen_levels(
    record: Record,
    clean: torch.Tensor,
    delivered: torch.Tensor,
    part: Any = np.s_[...],  # noqa: ANN401 - an index
) -> dict[str, float]:
    """Return the degree per type of DaLPSR that can be seen in (a part of) a delivered photo (3, H, W).

    The root of the difference that a kind makes, so that quarters are hardly visible, slight, plain and heavy: noise of
    2, 8 and 18/255 lies between them.
    """
    steady = replace(record, steps=tuple(_steady(step) for step in record.steps))
    whole = delivered if steady == record else steady.apply(clean)
    return {kind: _seen(kind, steady, clean, whole, part) for kind in ACTIONS}


def _steady(step: Step) -> Step:
    """Take noise that is the same whatever came before it, or all of it would count as the damage that is left out."""
    return replace(step, op="shot_noise") if step.op == "poisson_noise" else step


def _seen(kind: str, record: Record, clean: torch.Tensor, whole: torch.Tensor, part: Any) -> float:  # noqa: ANN401
    others = tuple(step for step in record.steps if prompt_kind(step) != kind)
    if len(others) == len(record.steps):
        return 0.0
    difference = (replace(record, steps=others).apply(clean) - whole)[part]
    return min(1.0, math.sqrt(float(difference.square().mean().sqrt()) / MOST[kind]))
