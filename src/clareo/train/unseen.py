"""Validation while training: the loss itself, on samples of photos set aside, always the same ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from clareo.system import Batch, Measure, Training
from clareo.train.data import Stream, collate, placed
from clareo.train.learners import learner
from clareo.train.recipe import Recipe

APART = 900_000  # from the seeds of training
NAME = "unseen {}"  # of a term of the loss


def unseen(training: Training, photos: list[NDArray[np.uint8]], recipe: Recipe) -> Measure:
    """Draw ``recipe.unseen`` samples as in the last stage; every time it is asked, measure the terms of their loss."""
    drawn = list(_drawn(photos, recipe))

    @torch.no_grad()
    def measure() -> dict[str, float]:
        device = next(training.network.parameters()).device
        sums: dict[str, float] = defaultdict(float)
        for number, batch in enumerate(drawn):
            terms = training.loss(placed(batch, device), torch.Generator().manual_seed(APART + number))
            for name, value in terms.items():
                sums[NAME.format(name)] += float(value) * len(batch.prompts) / recipe.unseen
        return dict(sums)

    return measure


def _drawn(photos: list[NDArray[np.uint8]], recipe: Recipe) -> Iterator[Batch]:
    stage = recipe.stages[-1]
    lessons = learner(recipe.system).lessons({**recipe.options, **stage.options})
    stream = Stream(photos, lessons.example, stage.crop, recipe.margin, recipe.shrink_share, APART)
    for first in range(0, recipe.unseen, stage.batch):
        last = min(first + stage.batch, recipe.unseen)
        yield collate([stream[number] for number in range(first, last)], stage)
