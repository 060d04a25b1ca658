"""Wishes that nobody trains on: what people say in other words, and what should happen to a photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clareo.degrade.recipes.draws import ROUND
from clareo.degrade.recipes.judged import AT
from clareo.degrade.record import Record

DEGREE = 0.6  # plain to see


@dataclass(frozen=True)
class HeldOut:
    """A wish in words that no template makes, and a damaged photo to say it about."""

    text: str
    falls: tuple[str, ...]  # kinds whose degree should fall
    stays: tuple[str, ...] = ()  # kinds whose degree should not

    def record(self, size: tuple[int, int], seed: int, degree: float = DEGREE) -> Record:
        """Draw damage of all these kinds, and of no other, in the order of physics."""
        rng = np.random.default_rng(seed)
        steps = [
            step for kind, at in AT.items() if kind in (*self.falls, *self.stays) for step in at(rng, size, degree)
        ]
        return Record((*steps, ROUND), "held-out", seed)


WISHES = (
    HeldOut("this is too dark and grainy", ("low_light", "noise")),
    HeldOut("get rid of the rain but leave the fog", ("rain",), ("haze",)),
    HeldOut("can you get the fog out of here", ("haze",)),
    HeldOut("I was not holding the camera still, it shook", ("motion",)),
    HeldOut("I can hardly see anything, we took it at night", ("low_light",)),
    HeldOut("the lens had water drops on it", ("raindrop",)),
    HeldOut("my phone compressed it to death, look at those blocks", ("jpeg",)),
    HeldOut("nice mist, so keep it, but the speckle has to go", ("noise",), ("haze",)),
    HeldOut("I do like my grain, just make things brighter", ("low_light",), ("noise",)),
    HeldOut("turn the light up", ("low_light",)),
    HeldOut("it was raining when I took it, can that go", ("rain",)),
    HeldOut("what can you do about all of the noise in here", ("noise",)),
    HeldOut("the focus is off", ("defocus",)),
    HeldOut("everything looks milky and there are streaks of rain", ("haze", "rain")),
    HeldOut("sharper please, and never mind the blocks", ("defocus",), ("jpeg",)),
    HeldOut("the drops on the lens ruin it, the darkness does not bother me", ("raindrop",), ("low_light",)),
    HeldOut("hazy and full of noise, do your best", ("haze", "noise")),
    HeldOut("so dim, and so blocky", ("low_light", "jpeg")),
    HeldOut("take away the streaks but let it be dark", ("rain",), ("low_light",)),
    HeldOut("bring back what this photo was before", ("noise", "jpeg")),
)
