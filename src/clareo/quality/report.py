"""What the judge says, as a person would say it: one photo assessed, two compared."""

from __future__ import annotations

import math
from typing import Any

from torch.nn import functional as F

from clareo.degrade.words import AMOUNTS, NAMES, third
from clareo.errors import PhotoError, UsageError
from clareo.io import MAX_MEGAPIXELS, as_photo
from clareo.quality.judge import KINDS, SMALLEST, judge
from clareo.quality.reference import ms_ssim
from clareo.types import Assessment, Image, Verdict

NAMED = 0.12  # degrees below this are not worth a word
RARE = {"rain": 0.55, "raindrop": 0.55, "haze": 0.45}  # weather is rare in photos, not in what the judge learned from
TIE = 0.1  # scores that differ by less are the same to a person
DRIFT = 4.0  # points that a candidate loses that has nothing in common with the photo it was made from
LEVELS = ((4.5, "excellent"), (3.75, "good"), (2.75, "fair"), (1.75, "poor"), (0.0, "bad"))


def assess(photo: Any, max_megapixels: float = MAX_MEGAPIXELS) -> Assessment:  # noqa: ANN401 - what users have
    """Say how good a photo is and what is wrong with it.

    Args:
        photo: a path, a Pillow image, an array (H, W, 3) or a float tensor (3, H, W) in [0, 1].
        max_megapixels: refuse larger files.

    >>> import clareo, torch
    >>> 1 <= clareo.assess(torch.rand(3, 64, 96)).score <= 5
    True
    """
    return assess_image(as_photo(photo, max_megapixels).pixels)


def assess_image(image: Image) -> Assessment:
    """Assess (1, 3, H, W)."""
    said = judge(image)
    score, degrees, doubt = float(said.score), said.degrees[0].tolist(), said.doubt[0].tolist()
    found = {kind: round(degree, 3) for kind, degree in zip(KINDS, degrees, strict=True)}
    return Assessment(round(score, 3), found, describe(score, found), round(doubt[0], 3))


def can_be_assessed(image: Image) -> bool:
    """Return whether a photo is large enough."""
    return min(image.shape[-2:]) >= SMALLEST


def describe(score: float, degrees: dict[str, float]) -> str:
    """Put a score and degrees into one sentence, worst first: the same words for the same facts."""
    named = ((degree, kind) for kind, degree in degrees.items() if degree >= RARE.get(kind, NAMED))
    worst = sorted(named, reverse=True)
    phrases = [f"{AMOUNTS[third(degree)][0]} {NAMES[kind][0]}" for degree, kind in worst]
    level = next(name for least, name in LEVELS if score >= least)
    found = ", ".join(phrases) if phrases else "nothing that needs repair"
    return f"{level} ({score:.1f} of 5): {found}"


# --- two photos ------------------------------------------------------------------------------------------------------


def compare(first: Any, second: Any, reference: Any = None) -> Verdict:  # noqa: ANN401
    """Say which of two photos is better, and why. Swapped photos swap the verdict.

    With the photo that both were made from as ``reference``, what departs from it costs points: a picture may be pretty
    and not be the photo any more.

    >>> import clareo, torch
    >>> photo = torch.rand(3, 64, 64)
    >>> clareo.compare(photo, photo).winner
    'tie'
    """
    names = ("A", "B")
    images = [as_photo(each).pixels for each in (first, second)]
    judged = [assess_image(image) for image in images]
    points = [assessment.score for assessment in judged]
    lost = [0.0, 0.0]
    if reference is not None:
        source = as_photo(reference).pixels
        lost = [DRIFT * drift(image, source) for image in images]
    totals = [point - cost for point, cost in zip(points, lost, strict=True)]
    margin = totals[0] - totals[1]
    doubt = math.hypot(judged[0].doubt, judged[1].doubt)
    winner = "tie" if abs(margin) < TIE else names[margin < 0]
    reasons = [
        f"{name} is {assessment.text}"
        + (f", and {cost:.1f} less for what departs from the reference" if cost >= TIE else "")
        for name, assessment, cost in zip(names, judged, lost, strict=True)
    ]
    return Verdict(winner, round(margin, 3), _confidence(margin, doubt), f"{'; '.join(reasons)}. Conclusion: {winner}")


def drift(restored: Image, source: Image) -> float:
    """Return how far a photo departs from the one it was made from, 0 to 1.

    Structure of quarter-size views, where noise and blur hardly count: a restorer may change pixels, not the scene.
    """
    height, width = restored.shape[-2:]
    if abs(height / width - source.shape[-2] / source.shape[-1]) > 0.02 * height / width:
        sizes = f"{width}x{height} and {source.shape[-1]}x{source.shape[-2]}"
        msg = f"a photo and its reference show the same scene; these have other proportions: {sizes} px"
        raise UsageError(msg)
    if min(source.shape[-2:]) < SMALLEST:
        msg = f"the reference is too small to be compared with ({SMALLEST} px a side)"
        raise PhotoError(msg)
    side = [max(24, extent // 4) for extent in source.shape[-2:]]  # two scales of windows of 11 px
    small, original = (F.interpolate(image, side, mode="area") for image in (restored, source))
    return max(0.0, 1 - float(ms_ssim(small, original, scales=2)))


def _confidence(margin: float, doubt: float) -> float:
    """Return the probability that the sign of a margin is right, for errors with that mean size."""
    deviation = max(1e-6, doubt * math.sqrt(math.pi / 2))
    return round(0.5 * (1 + math.erf(abs(margin) / deviation / math.sqrt(2))), 3)
