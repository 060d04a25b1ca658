"""What is left to be seen of a damage in the end.

Noise and compression: the photo is damaged once more, without the steps of one kind. Blur: how much of its gradients
a scene loses that is alike for all photos. How much detail this photo had before nobody can see any more; how soft it
is can be seen, whatever made it so, and what was shrunk and enlarged on the way is as soft as what is out of focus.

What was drawn is another matter. Noise that came before a photo was shrunk and coded is mostly gone from it, and of two
codings the photo shows the last: DaLPSR's degrees, the worst of what was drawn, cannot be read off a photo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from clareo.degrade.words import ACTIONS, prompt_kind
from clareo.errors import UnknownNameError

if TYPE_CHECKING:
    from clareo.degrade.record import Record, Step

LABELS = ("seen", "drawn")  # what is left to be seen of each kind, or the worst that was drawn of it
MOST: Mapping[str, float] = {"noise": 32 / 255, "jpeg": 32 / 255}  # as bad as it gets: rms
CONTRAST = 0.2  # of the scene that blur is measured on: its deviation


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

    Of noise and compression the root of the difference that they make, so that quarters are hardly visible, slight,
    plain and heavy: noise of 2, 8 and 18/255 lies between them. Of blur the share of gradients that is lost: a bell of
    0.46, 0.65 and 1.4 px lies between its quarters; it is that of the whole photo, and of any other of its size.
    """
    steady = replace(record, steps=tuple(_steady(step) for step in record.steps))
    whole = delivered if steady == record else steady.apply(clean)
    differences = {kind: _seen(kind, steady, clean, whole, part) for kind in MOST}
    return {kind: differences[kind] if kind in differences else softness(record, clean.shape[-2:]) for kind in ACTIONS}


def softness(record: Record, size: Sequence[int]) -> float:
    """Return the share of its gradients that a photo of ``size`` loses by blur and by resizing, [0, 1].

    Nothing is lost by what is shrunk at once to where all ends.
    """
    steps = tuple(step for step in record.steps if prompt_kind(step) == "blur" or step.op == "resize")
    if not steps:
        return 0.0
    scene = _scene(*size).repeat(3, 1, 1)
    soft = replace(record, steps=steps).apply(scene)
    sharp = F.interpolate(scene[None], soft.shape[-2:], mode="area")[0]
    kept = _gradients(soft) / _gradients(sharp)
    return max(0.0, 1 - kept)


@lru_cache(maxsize=8)
def _scene(height: int, width: int) -> torch.Tensor:
    """Draw what photos are on average, grey, with amplitudes that fall with frequency: (1, H, W), always the same."""
    rng = torch.Generator().manual_seed(0)
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency = torch.hypot(rows, columns).clamp_min(1 / max(height, width))
    drawn = torch.fft.irfft2(torch.fft.rfft2(torch.randn(height, width, generator=rng)) / frequency, s=(height, width))
    scene: torch.Tensor = (0.5 + CONTRAST * drawn / drawn.std()).clamp(0, 1)[None]
    return scene


def _gradients(photo: torch.Tensor) -> float:
    """Return the root mean square of the steps between pixels of the first colour."""
    y = photo[0]
    return float(torch.cat([y.diff(dim=0).flatten(), y.diff(dim=1).flatten()]).square().mean().sqrt())


def _steady(step: Step) -> Step:
    """Take noise that is the same whatever came before it, or all of it would count as the damage that is left out."""
    return replace(step, op="shot_noise") if step.op == "poisson_noise" else step


def _seen(kind: str, record: Record, clean: torch.Tensor, whole: torch.Tensor, part: Any) -> float:  # noqa: ANN401
    others = tuple(step for step in record.steps if prompt_kind(step) != kind)
    if len(others) == len(record.steps):
        return 0.0
    difference = (replace(record, steps=others).apply(clean) - whole)[part]
    return min(1.0, math.sqrt(float(difference.square().mean().sqrt()) / MOST[kind]))
