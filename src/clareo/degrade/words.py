"""What a record says, in words and numbers: prompts, the dominant task, an analysis, a severity, which is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from clareo.degrade.degrees import WEIGHTS

if TYPE_CHECKING:
    from clareo.degrade.record import Record, Step

# --- DaLPSR ----------------------------------------------------------------------------------------------------------

INTERVALS = ("0~0.25", "0.25~0.5", "0.5~0.75", "0.75~1.0")
ACTIONS = {"blur": "Deblur", "noise": "Denoise", "jpeg": "Dejpeg"}


def _sigma(step: Step) -> float:
    """Blur of a bell: the geometric mean of its widths, in the range that `realesrgan` draws from."""
    return (math.sqrt(float(step.params["sigma_x"]) * float(step.params["sigma_y"])) - 0.2) / (3 - 0.2)


LABELS: Mapping[str, tuple[str, Callable[[Step], float]]] = {
    "bell_blur": ("blur", _sigma),
    "sinc_blur": ("blur", lambda step: 1 - float(step.params["cutoff"]) / math.pi),
    "gaussian_noise": ("noise", lambda step: float(step.params["sigma"]) / 30),
    "poisson_noise": ("noise", lambda step: float(step.params["scale"]) / 3),
    "jpeg": ("jpeg", lambda step: (95 - float(step.params["quality"])) / (95 - 30)),
}


def levels(record: Record) -> dict[str, float]:
    """Return DaLPSR's degree per type: each operation in parts of its own range, the worst of both orders.

    What `realesrgan` does not draw (motion, defocus, sensor noise) counts with its plain degree.
    """
    worst = dict.fromkeys(ACTIONS, 0.0)
    for step in record.steps:
        kind, degree = prompt_kind(step), LABELS[step.op][1](step) if step.op in LABELS else step.degree
        if kind in worst:
            worst[kind] = max(worst[kind], min(1.0, degree))
    return worst


def prompt_kind(step: Step) -> str:
    """Return the type of DaLPSR that a step belongs to: blur, noise or jpeg; what is none of them keeps its kind."""
    return LABELS[step.op][0] if step.op in LABELS else {"motion": "blur", "defocus": "blur"}.get(step.kind, step.kind)


def quarter(level: float) -> int:
    """Return which quarter a degree lies in: [0, 0.25], (0.25, 0.5], (0.5, 0.75], (0.75, 1]."""
    return min(3, max(0, math.ceil(4 * level) - 1))


def interval(level: float) -> str:
    """Name the quarter that a degree lies in."""
    return INTERVALS[quarter(level)]


def action(kind: str, place: int) -> str:
    """Say what to do about a kind whose degree lies in a quarter: one of the twelve phrases that p_r is made of."""
    return f"{ACTIONS[kind]} with sigma {INTERVALS[place]}"


def restoration_prompt(degrees: Mapping[str, float]) -> str:
    """Return DaLPSR's p_r of degrees per type."""
    return ", ".join(action(kind, quarter(level)) for kind, level in degrees.items())


# --- UniRes ----------------------------------------------------------------------------------------------------------

TASKS = {  # kind -> the expert trained on it; weather and light have none
    "motion": "motion",
    "defocus": "defocus",
    "noise": "denoise",
    "blur": "sr",
    "low_resolution": "sr",
    "jpeg": "sr",
}


def weights(record: Record) -> dict[str, float]:
    """Return how much each kind matters: its degree times its weight."""
    return {kind: degree * WEIGHTS[kind] for kind, degree in record.degrees().items()}


def dominant_kind(record: Record) -> str:
    """Return the kind with the highest weighted degree, or nothing for a clean photo."""
    weighted = weights(record)
    return max(weighted, key=weighted.__getitem__) if weighted else ""


def dominant_task(record: Record) -> str:
    """Return the UniRes expert for what is worst among the things that experts exist for; blind where nothing is."""
    weighted = {kind: weight for kind, weight in weights(record).items() if kind in TASKS}
    return TASKS[max(weighted, key=weighted.__getitem__)] if weighted else "blind"


# --- UARE ------------------------------------------------------------------------------------------------------------


def severity(record: Record) -> float:
    """Return 1 - prod(1 - degree * weight) over kinds: 0 for a clean photo, below 1 for any other."""
    left = 1.0
    for weight in weights(record).values():
        left *= 1 - weight
    return 1 - left


def score(record: Record) -> float:
    """Return the quality on the scale of opinion scores: 5 for a clean photo, towards 1 with severity."""
    return 5 - 4 * severity(record)


def order(first: Record, second: Record, tie: float = 0.05) -> int:
    """Return -1 where the first is the better photo, 1 where the second is, 0 where no one could tell."""
    difference = severity(first) - severity(second)
    return 0 if abs(difference) < tie else 1 if difference > 0 else -1


AMOUNTS = (("a trace of", "a little", "slight"), ("some", "moderate", "noticeable"), ("strong", "a lot of", "heavy"))
NAMES = {
    "blur": ("blur", "softness", "a loss of fine detail"),
    "motion": ("motion blur", "camera shake", "smearing from movement"),
    "defocus": ("defocus blur", "out-of-focus blur", "missed focus"),
    "noise": ("noise", "sensor grain", "random speckle"),
    "jpeg": ("compression artefacts", "JPEG blocking", "blocky edges from compression"),
    "low_resolution": ("missing resolution", "coarse pixels", "detail lost by shrinking"),
    "low_light": ("underexposure", "darkness", "lost shadow detail"),
    "haze": ("haze", "a milky veil", "fading of distant things"),
    "rain": ("rain streaks", "falling rain", "bright streaks of rain"),
    "raindrop": ("raindrops on the lens", "drops of water before the scene", "patches bent by water drops"),
}
EFFECTS = {
    "blur": ("edges look soft", "fine texture is gone"),
    "motion": ("edges are doubled along one direction", "lights are drawn into lines"),
    "defocus": ("points have become discs", "edges are wide and even"),
    "noise": ("flat areas look grainy", "smooth areas are speckled"),
    "jpeg": ("a grid of blocks shows in flat areas", "edges are surrounded by ripples"),
    "low_resolution": ("small structures cannot be made out", "text would be hard to read"),
    "low_light": ("shadows hold little detail", "most of the scene is dark"),
    "haze": ("contrast falls with distance", "far things are washed out"),
    "rain": ("thin streaks cross the scene", "streaks hide what is behind them"),
    "raindrop": ("round patches show the scene bent", "parts of the scene are hidden behind drops"),
}
OPENINGS = (
    "The photo shows {found}.",
    "What stands out is {found}.",
    "There is {found} in this photo.",
    "I can see {found}.",
    "This picture suffers from {found}.",
)
REASONS = ("{effect}.", "One can tell because {effect}.", "It shows: {effect}.", "As a result, {effect}.")
VERDICTS = (
    ("Overall the quality is good.", "It is still a good photo.", "Little is lost."),
    ("Overall the quality is fair.", "It is usable, with visible damage.", "Quality is middling."),
    ("Overall the quality is poor.", "It is badly damaged.", "Little of the original quality is left."),
)
CLEAN = (
    "The photo is clean.",
    "Nothing is wrong with this photo.",
    "I see no damage.",
    "Sharp, clean and well exposed.",
)
AUDIBLE = 0.05  # degrees below this are not worth a word


def analysis(record: Record, seed: int = 0) -> str:
    """Describe what is wrong, worst first, and how bad it is; every seed finds other words for the same facts."""
    rng = np.random.default_rng(seed)
    found = sorted(record.degrees().items(), key=lambda item: -item[1] * WEIGHTS[item[0]])
    found = [(kind, degree) for kind, degree in found if degree >= AUDIBLE]
    if not found:
        return _one(rng, CLEAN)
    phrases = [f"{_one(rng, AMOUNTS[third(degree)])} {_one(rng, NAMES[kind])}" for kind, degree in found]
    sentences = [_one(rng, OPENINGS).format(found=_enumerate(phrases))]
    if rng.random() < 0.8:
        reason = _one(rng, REASONS).format(effect=_one(rng, EFFECTS[found[0][0]]))
        sentences.append(reason[0].upper() + reason[1:])
    sentences.append(_one(rng, VERDICTS[third(severity(record))]))
    return " ".join(sentences)


def _one(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def third(degree: float) -> int:
    """Return the third of the range that a degree lies in: 0, 1 or 2."""
    return min(2, int(3 * degree))


def _enumerate(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
