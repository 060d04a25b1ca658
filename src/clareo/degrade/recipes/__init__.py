"""Recipes by name: distributions over degradations. A recipe draws steps; a record applies them, so replay is the same.

A name is one of `RECIPES`, a combination such as `haze+noise`, or a file that a user wrote; with `-small` behind it its
lengths follow the size of the photo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from clareo.degrade.ops import to_pil
from clareo.degrade.recipes import cases, coupled, judged, mixtures, second_order, tasks
from clareo.degrade.recipes.draws import Recipe, Size
from clareo.degrade.recipes.files import read_recipe_file
from clareo.degrade.recipes.small import SUFFIX, small
from clareo.degrade.record import Record
from clareo.errors import UnknownNameError

RECIPES: Mapping[str, Recipe] = {
    **second_order.RECIPES,
    **tasks.RECIPES,
    **coupled.RECIPES,
    **cases.RECIPES,
    **judged.RECIPES,
    **mixtures.RECIPES,
}


@dataclass(frozen=True)
class Degraded:
    """A degraded photo and the account of it."""

    tensor: torch.Tensor  # (3, H, W), [0, 1]
    record: Record

    @property
    def image(self) -> PIL.Image.Image:
        """Return the photo as an 8-bit picture."""
        return to_pil(self.tensor)


def find_recipe(name: str) -> Recipe:
    """Return a recipe by name, by combination, or from a file."""
    if name in RECIPES:
        return RECIPES[name]
    if Path(name).suffix == ".toml":
        return read_recipe_file(Path(name))
    if name.endswith(SUFFIX):
        return small(find_recipe(name.removesuffix(SUFFIX)))
    if "+" in name:
        return coupled.combination(name)
    raise UnknownNameError.of("recipe", name, RECIPES)


def draw(name: str, size: Size, seed: int) -> Record:
    """Draw a record from a recipe for photos of a size."""
    return Record(find_recipe(name)(np.random.default_rng(seed), size), name, seed)


def degrade_tensor(clean: torch.Tensor, recipe: str, seed: int = 0) -> Degraded:
    """Draw from a recipe and apply it to (3, H, W)."""
    record = draw(recipe, (clean.shape[-2], clean.shape[-1]), seed)
    return Degraded(record.apply(clean), record)
