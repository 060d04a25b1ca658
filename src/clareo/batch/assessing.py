"""Many photos assessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from clareo.batch.jobs import look_through
from clareo.batch.outcome import named
from clareo.conversing import describe_in_words
from clareo.errors import ClareoError
from clareo.io import MAX_MEGAPIXELS
from clareo.quality.report import assess
from clareo.system import System
from clareo.types import Assessment


def assess_batch(
    paths: Sequence[Path], max_megapixels: float = MAX_MEGAPIXELS, speaker: System | None = None
) -> Iterator[tuple[Path, Assessment | None, str]]:
    """Assess photos and folders of photos: the path, and an assessment or the reason why there is none.

    ``speaker`` is a system that describes them in its own words.
    """
    for one in [each for path in paths for each in look_through(path)]:
        if one.trouble:
            yield one.path, None, one.trouble
            continue
        try:
            said = assess(one.path, max_megapixels)
            yield one.path, said if speaker is None else describe_in_words(speaker, said, one.path, max_megapixels), ""
        except ClareoError as error:
            yield one.path, None, named(str(error), one.path)
