"""Everything that clareo raises on purpose.

ClareoError
├── PhotoError           a photo could not be read, or not be written
│   └── TooLargeError    over the pixel limit
├── UsageError           what was asked for does not make sense (exit status 2)
│   ├── WeightsError     expert weights that name nobody or do not sum to 1
│   ├── UnknownNameError a system, preset, recipe or key that does not exist, with the nearest that does
│   └── RecipeError      a recipe or record that cannot be used
├── CheckpointError      weights that are missing, altered, pickled or of the wrong shape
├── MissingExtraError    an optional package is not installed
└── RestorationError     a tile or a photo that came out wrong
    ├── NotFiniteError   with values that are no numbers
    └── NoMemoryError    not at all, for want of memory
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClareoError(Exception):
    """Base of all errors that clareo raises on purpose."""


class PhotoError(ClareoError):
    """A photo could not be read or written."""


class TooLargeError(PhotoError):
    """A photo has more pixels than the limit."""


class UsageError(ClareoError):
    """What was asked for does not make sense."""


class WeightsError(UsageError):
    """Expert weights name nobody or do not sum to 1."""


class UnknownNameError(UsageError):
    """A name does not exist."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """Say what was asked for, what is nearest to it, and what there is."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return cls(f"unknown {kind} {name!r}: {hint}there are {', '.join(names)}")


class RecipeError(UsageError):
    """A recipe or record cannot be used."""


class CheckpointError(ClareoError):
    """Weights are missing, altered, pickled or of the wrong shape."""


class MissingExtraError(ClareoError):
    """An optional package is not installed."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtraError:
        """Say what to install."""
        return cls(f"this needs {package}: pip install 'clareo[{extra}]'")


class RestorationError(ClareoError):
    """A tile or a photo came out wrong."""


class NotFiniteError(RestorationError):
    """A tile or a photo came out with values that are not finite."""


class NoMemoryError(RestorationError):
    """There was not enough memory for a photo."""
