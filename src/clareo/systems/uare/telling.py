"""What is said of a training sample, as the one line of text that examples carry."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Telling:
    """The words of a sample."""

    task: str  # "describe", "score", "compare": answers; "restore"; "interleaved": an analysis, and a photo
    ask: str  # what the person says
    answer: str = ""  # what the model is to say

    @property
    def restores(self) -> bool:
        """Tell whether a photo is to be made."""
        return self.task in ("restore", "interleaved")

    def to_prompt(self) -> str:
        """Return it as the `prompt` of an example."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_prompt(prompt: str) -> Telling:
        """Read what `to_prompt` wrote."""
        return Telling(**json.loads(prompt))
