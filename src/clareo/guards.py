"""What is looked at in every result, and what is done about a walk that fails.

A walk that fails is tried once more where another plan may help: in fp32 where bf16 gave values that are not finite, on
smaller tiles where memory ran out. The plan of the result is the one that was walked, and says so. Everything else that
looks wrong is told and left as it is: these checks never touch a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch.nn import functional as F

from clareo.colour import rgb_to_yiq
from clareo.errors import NoMemoryError, NotFiniteError
from clareo.quality.blind import SEAM_REACH, fine_detail, grid_strengths, seam_strength
from clareo.system import System
from clareo.types import Image, Plan
from clareo.walk import tiles_of

Done = TypeVar("Done")

SMALLEST_TILE = 128  # px; `planning` allows no smaller ones
TRUSTED = 0.5  # a result below it is more made up than kept
SEAM, SEAM_GAIN = 6.0, 3.0  # strength of a line; clean photos have up to 3, sound tiles of denoised ones up to 5
GRID, GRID_GAIN = 4.0, 1.6  # clean photos have 1.2 to 2.5; how many times as strong as in the photo
SEEN = 1 / 255  # a pattern of less cannot be seen; the networks' own, in clear skies, has up to 0.6 / 255
CAST, LIGHT = 8 / 255, 32 / 255  # how far the mean colour, and the mean brightness, may move
FLAT = 0.1  # of the photo's contrast: what has less is blank
LOOKED = 512  # px along the window in which a grid is looked for
HALF = 2 * SEAM_REACH  # px on either side of a border that are compared with it
THINNED = 2048  # px; of larger photos every second, third, ... pixel tells the colours as well
SMALL = 64  # px of the view on which colours are compared


# --- a second time ---------------------------------------------------------------------------------------------------


def twice(
    walked: Callable[[Plan], tuple[Plan, Done]], sketch: Plan, longest: int, *, repeated: bool
) -> tuple[Plan, Done, tuple[str, ...]]:
    """Walk, and where that fails once more under another plan: the plan, the result, and what is to be told.

    ``longest`` is the longer side of the result. A plan that is ``repeated`` is walked as it is, or not at all.
    """
    told: tuple[str, ...] = ()
    while True:
        try:
            plan, done = walked(sketch)
        except NotFiniteError:
            if repeated or told or sketch.precision == "fp32":
                raise
            sketch, told = _in_fp32(sketch)
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            smaller = None if repeated or told else _on_smaller_tiles(sketch, longest)
            if smaller is None:
                msg = f"not enough memory, on tiles of {sketch.tile} px ({_first_line(error)})"
                raise NoMemoryError(msg) from error
            sketch, told = smaller
        else:
            return replace(plan, why="; ".join(part for part in (plan.why, *told) if part)), done, told


def _in_fp32(sketch: Plan) -> tuple[Plan, tuple[str, ...]]:
    told = f"in fp32, as {sketch.precision} gave values that are not finite"
    return replace(sketch, precision="fp32"), (told,)


def _on_smaller_tiles(sketch: Plan, longest: int) -> tuple[Plan, tuple[str, ...]] | None:
    """Halve the tile, or the photo where that is smaller; None where it cannot get any smaller."""
    side = min(sketch.tile, longest)
    half = max(SMALLEST_TILE, side // 2)
    if half >= side:
        return None
    told = f"on tiles of {half} px, as memory ran out on {sketch.tile}"
    return replace(sketch, tile=half), (told,)


def ran_out_of_memory(error: Exception) -> bool:
    """Tell whether an error is about memory; torch has a class for that on a GPU, and a sentence on a CPU."""
    said = str(error).lower()
    sentences = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(each in said for each in sentences)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# --- what is looked at -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Borders:
    """Where tiles begin and end, in photo pixels."""

    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()


def borders(system: System, plan: Plan, size: tuple[int, int]) -> Borders:
    """Return the borders of the tiles of a photo; a photo in one tile has none."""
    factor, tiles = system.codec.factor, tiles_of(system, plan)
    latent = tuple(-(-extent // factor) for extent in size)
    if max(latent) <= tiles.side:
        return Borders()
    rows, columns = set[int](), set[int]()
    for window in tiles.windows(*latent):
        rows |= {window.top * factor, (window.top + window.height) * factor}
        columns |= {window.left * factor, (window.left + window.width) * factor}
    return Borders(*(tuple(sorted(lines)) for lines in (rows, columns)))


@torch.inference_mode()
def look_over(restored: Image, source: Image, where: Borders, system: System) -> tuple[str, ...]:
    """Compare a result (1, 3, H, W) with what it was made from, at the same size; say what looks wrong."""
    if restored.dtype == source.dtype and torch.equal(restored, source):
        return ()
    return (*_colours(restored, source), *_seams(restored, source, where), *_grids(restored, source, system))


def doubts(trust: float | None) -> Iterator[str]:
    """Say it where a result cannot be trusted."""
    if trust is not None and trust < TRUSTED:
        yield f"trust {trust:.2f}: more of the detail was made up than kept"


def _colours(restored: Image, source: Image) -> Iterator[str]:
    size = [min(SMALL, extent) for extent in source.shape[-2:]]
    step = max(1, min(source.shape[-2:]) // THINNED)
    thin = (image[..., ::step, ::step].float() for image in (restored, source))
    after, before = (rgb_to_yiq(F.interpolate(image, size, mode="area")) for image in thin)
    light, *cast = (after - before).mean((0, 2, 3)).tolist()
    moved = (cast[0] ** 2 + cast[1] ** 2) ** 0.5
    if moved > CAST:
        yield f"the colours moved by {255 * moved:.0f} of 255"
    if abs(light) > LIGHT:
        yield f"it became {'brighter' if light > 0 else 'darker'} by {255 * abs(light):.0f} of 255"
    contrasts = [float(view[:, 0].std(unbiased=False)) for view in (after, before)]
    if contrasts[1] > CAST and contrasts[0] < FLAT * contrasts[1]:
        yield "it is blank where the photo was not"


def _seams(restored: Image, source: Image, where: Borders) -> Iterator[str]:
    for name, lines, turned in (("row", where.rows, True), ("column", where.columns, False)):
        after, before = (image.mT if turned else image for image in (restored, source))
        for line in lines:
            strength = _seam(after, line)
            if strength > SEAM and strength > (given := _seam(before, line)) + SEAM_GAIN:
                yield f"a seam between tiles at {name} {line} (strength {strength:.1f}, in the photo {given:.1f})"


def _seam(image: Image, column: int) -> float:
    """Measure the line before a column on a strip around it; 0 where there is no room for one."""
    height, width = image.shape[-2:]
    left, right = max(0, column - HALF), min(width, column + HALF)
    if min(height, right - left) < HALF or not 3 <= column - left <= right - left - 3:
        return 0.0
    return float(seam_strength(image[..., left:right].float(), column=column - left))


def _grids(restored: Image, source: Image, system: System) -> Iterator[str]:
    """Look in the middle for patterns with the periods of the codec and of the backbone's coarsest grid."""
    after, before = (_middle(image) for image in (restored, source))
    height, width = after.shape[-2:]
    fine = fine_detail(after, (height, width))
    periods = [
        period
        for period in sorted({system.codec.factor, 2 * system.codec.factor, system.multiple})
        if period >= 3 and min(height, width) >= 4 * period and _swing(fine, period) >= SEEN
    ]
    measured = zip(periods, map(float, grid_strengths(after, periods)), strict=True)
    striking = {period: strength for period, strength in measured if strength > GRID}
    for period, given in zip(striking, map(float, grid_strengths(before, [*striking])), strict=True):
        if (strength := striking[period]) > GRID_GAIN * given:
            yield f"a pattern that repeats every {period} px (strength {strength:.1f}, in the photo {given:.1f})"


def _middle(image: Image) -> Image:
    top, left = (max(0, (extent - LOOKED) // 2) for extent in image.shape[-2:])
    return image[..., top : top + LOOKED, left : left + LOOKED].float()


def _swing(fine: torch.Tensor, period: int) -> float:
    """Return from where to where a pattern goes that repeats, averaged over all its repetitions."""
    height, width = (extent // period for extent in fine.shape[-2:])
    squares = fine[..., : height * period, : width * period].reshape(height, period, width, period)
    pattern = squares.mean((0, 2))
    return float(pattern.max() - pattern.min())
