"""The contact sheet: every kind of damage at five degrees, on one photo. To look at, and to choose a degree by.

Damage to the scene is shown on the whole photo, shrunk; damage to pixels on its middle, pixel for pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import PIL.Image
import PIL.ImageDraw
import torch
from torch.nn import functional as F

from clareo.degrade.degrees import KINDS, Value, at_degree
from clareo.degrade.ops import to_pil
from clareo.degrade.recipes.draws import resize, smaller
from clareo.degrade.record import Record, Step

DEGREES = (0.1, 0.3, 0.5, 0.7, 0.95)
ALSO = ("object_motion", "layered_defocus", "webp", "sensor_noise")  # other operations of the same kinds
WHOLE = ("haze", "rain", "raindrop", "low_light", "motion", "defocus", "object_motion", "layered_defocus")
LABEL = 18  # pixels above each picture


def steps_of(kind: str, degree: float, size: tuple[int, int], seed: int = 0) -> tuple[Step, ...]:
    """Return steps that damage photos of a size by a degree of a kind; low light brings the noise of the night."""
    if kind == "low_resolution":
        return smaller(size, 1 + 4 * degree, "area")[0], resize(size, "bicubic")
    op, params = OTHERS[kind](degree) if kind in OTHERS else at_degree(kind, degree)
    step = Step.of(op, seed, **params)
    if kind == "low_light":
        grain: dict[str, Value] = {"shot": 1e-4 * (3e-2 / 1e-4) ** (0.8 * degree), "read": 1e-5}
        return step, Step("sensor_noise", grain, seed=seed + 1)  # part of the night, not a kind of its own
    return (step,)


OTHERS: Mapping[str, Callable[[float], tuple[str, dict[str, Value]]]] = {
    "object_motion": lambda d: ("object_motion", {"exposure": 0.1, "amplitude": 8 * d, "objects": 2, "still": 0.1}),
    "layered_defocus": lambda d: ("layered_defocus", {"radius": 8 * d}),
    "webp": lambda d: ("webp", {"quality": round(100 - 95 * d)}),
    "sensor_noise": lambda d: ("sensor_noise", {"shot": 1e-4 * 300**d, "read": 1e-5 * 100**d}),
}


def contact_sheet(photo: torch.Tensor, side: int = 220, seed: int = 0) -> PIL.Image.Image:
    """Draw (3, H, W) under every kind (rows) and degree (columns), in pictures of at most ``side`` pixels."""
    shrink = min(1.0, side / max(photo.shape[-2:]))
    size = (max(1, round(photo.shape[-2] * shrink)), max(1, round(photo.shape[-1] * shrink)))
    names = (*KINDS, *ALSO)
    sheet = PIL.Image.new("RGB", (len(DEGREES) * (size[1] + 4), len(names) * (size[0] + LABEL + 4)), "white")
    pen = PIL.ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        for column, degree in enumerate(DEGREES):
            record = Record(steps_of(name, degree, (photo.shape[-2], photo.shape[-1]), seed))
            place = (column * (size[1] + 4), row * (size[0] + LABEL + 4))
            pen.text(place, f"{name} {degree:.2f}", fill="black")
            sheet.paste(to_pil(_shown(record.apply(photo), name, size)), (place[0], place[1] + LABEL))
    return sheet


def _shown(damaged: torch.Tensor, name: str, size: tuple[int, int]) -> torch.Tensor:
    if name in WHOLE:
        return F.interpolate(damaged[None], size, mode="bicubic", antialias=True)[0]
    top, left = (damaged.shape[-2] - size[0]) // 2, (damaged.shape[-1] - size[1]) // 2
    return damaged[:, top : top + size[0], left : left + size[1]]
