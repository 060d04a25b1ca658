"""Photos described and compared by a system that speaks; numbers stay those of the judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from clareo.checkpoints import packaged
from clareo.errors import RestorationError, UsageError
from clareo.io import MAX_MEGAPIXELS, as_photo
from clareo.perceive.conversation import COMPARE, DESCRIBE, SCORE, comparison_in
from clareo.system import Answer, System, load_system
from clareo.types import Assessment, Verdict

SPEAKER = "uare"
Load = Callable[[str, str], System]


def find_speaker(system: str | None, preset: str | None, load: Load = load_system) -> System | None:
    """Return the system that speaks: the one that is named, the embedded one, or None where there is none yet."""
    if system is None and preset is None and f"{SPEAKER}-nano" not in packaged():
        return None
    found = load(system or SPEAKER, preset or "nano")
    _answer_of(found)
    return found


def describe_in_words(
    speaker: System,
    said: Assessment,
    photo: Any,  # noqa: ANN401
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Assessment:
    """Put a system's description, and the score that it names, in the place of the judge's words."""
    ask, pixels = _answer_of(speaker), as_photo(photo, max_megapixels).pixels
    return replace(said, text=f"{ask([pixels], DESCRIBE)} {ask([pixels], SCORE)}".strip())


def compare_in_words(speaker: System, said: Verdict, first: Any, second: Any, reference: Any) -> Verdict:  # noqa: ANN401
    """Put a system's comparison of two photos with the one that both were made of in the place of the judge's."""
    photos = [as_photo(each).pixels for each in (first, second, reference)]
    text = _answer_of(speaker)(photos, COMPARE)
    found = comparison_in(text)
    if found is None:
        msg = f"{speaker.name} came to no conclusion: {text!r}"
        raise RestorationError(msg)
    return replace(said, winner=found.winner, text=text)


def _answer_of(system: System) -> Answer:
    if system.answer is None:
        msg = f"{system.name} does not speak; take a system that does (--system {SPEAKER})"
        raise UsageError(msg)
    return system.answer
