"""What became of a photo, and the object that ``--json`` prints of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clareo.batch.jobs import Job
from clareo.types import Assessment, Restoration

State = Literal["done", "skipped", "failed", "elsewhere"]


@dataclass(frozen=True)
class Pictures:
    """Small JPEGs of a photo for the report."""

    before: bytes
    after: bytes
    beside: Mapping[str, bytes] = field(default_factory=dict)  # others by what they show: what was kept, a map


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a restoration, or the reason why there is none."""

    job: Job
    restoration: Restoration | None = None  # without its pixels, which are in the file
    error: str = ""
    skipped: bool = False  # finished by an earlier run
    elsewhere: str = ""  # the process that is at it
    pictures: Pictures | None = None
    byproducts: Mapping[str, Path] = field(default_factory=dict)  # that were written, by name
    warnings: tuple[str, ...] = ()  # what could not be kept, and what looks wrong with the result
    account: Mapping[str, Any] | None = None  # what the sidecar says of a photo that was finished by an earlier run

    @property
    def state(self) -> State:
        """Say in a word what became of it."""
        if self.error:
            return "failed"
        if self.elsewhere:
            return "elsewhere"
        return "skipped" if self.skipped else "done"

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        files = {"input": str(self.job.source), "output": str(self.job.target)}
        done = self.restoration
        if self.skipped:
            return {**files, "skipped": True}
        if self.elsewhere:
            return {**files, "elsewhere": self.elsewhere}
        if done is None:
            return {"input": str(self.job.source), "error": self.error}
        return {
            **files,
            "seconds": round(done.seconds, 3),
            "system": done.system,
            "preset": done.preset,
            "plan": done.plan.to_json(),
            "percept": done.percept.to_json(),
            "before": assessed(done.before),
            "after": None if done.after is None else {"score": done.after.score},
            "trust": None if done.trust is None else {"score": round(done.trust, 3)},
            **({"byproducts": {k: str(path) for k, path in self.byproducts.items()}} if self.byproducts else {}),
            "warnings": list(self.warnings),
        }


def assessed(assessment: Assessment | None) -> dict[str, Any] | None:
    """Return score and degrees, as they are written down."""
    if assessment is None:
        return None
    return {"score": assessment.score, "degradations": dict(assessment.degradations)}


def named(reason: str, source: Path, *others: Path) -> str:
    """See to it that a reason names its photo, or a file that belongs to it."""
    told = any(str(path) in reason for path in (source, *others))
    return reason if told else f"{source}: {reason}"
