"""Many photos damaged on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from clareo.batch.jobs import find_photos
from clareo.batch.one import refuse_to_replace
from clareo.degrade import Degraded, Record, degrade
from clareo.degrade.recipes import find_recipe
from clareo.degrade.sheet import contact_sheet
from clareo.errors import ClareoError, UsageError
from clareo.io import Photo, atomic, read_photo, write_photo


def degrade_batch(
    paths: Sequence[Path], out: Path, recipe: str, seed: int, count: int, *, overwrite: bool = False
) -> Iterator[tuple[str, str]]:
    """Degrade photos into a folder, each with NAME.record.json beside it; yield (what was done, what went wrong)."""
    record = Record.from_json(Path(recipe).read_text(encoding="utf-8")) if recipe.endswith(".json") else None
    if record is None:
        find_recipe(recipe)  # a wrong name is told before the first photo
    if count < 1:
        msg = f"count must be at least 1, not {count}"
        raise UsageError(msg)
    for number, (source, place) in enumerate(find_photos(paths)):
        for version in range(count):
            name = place.with_suffix(".png") if count == 1 else place.with_name(f"{place.stem}-{version}.png")
            with_seed = seed + number * count + version
            yield _told(partial(_degrade_one, source, out / name, recipe, with_seed, record, overwrite=overwrite))


def sheet_batch(paths: Sequence[Path], out: Path, seed: int, *, overwrite: bool = False) -> Iterator[tuple[str, str]]:
    """Draw the contact sheet of each photo, NAME-sheet.png; yield (what was done, what went wrong)."""
    for source, place in find_photos(paths):
        target = out / place.with_name(f"{place.stem}-sheet.png")
        yield _told(partial(_draw_sheet, source, target, seed, overwrite=overwrite))


def _told(work: Callable[[], str]) -> tuple[str, str]:
    """Do one photo's work; return (what was done, what went wrong). A wrong call fails for all photos alike."""
    try:
        return work(), ""
    except UsageError:
        raise
    except ClareoError as error:
        return "", str(error)


def _draw_sheet(source: Path, target: Path, seed: int, *, overwrite: bool) -> str:
    refuse_to_replace(target, overwrite=overwrite)
    sheet = contact_sheet(read_photo(source).pixels[0], seed=seed)
    with atomic(target) as unfinished:
        sheet.save(unfinished, "PNG")
    return str(target)


def _degraded(source: Path, recipe: str, seed: int, record: Record | None) -> Degraded:
    if record is None:
        return degrade(source, recipe, seed)
    return Degraded(record.apply(read_photo(source).pixels[0]), record)


def _degrade_one(source: Path, target: Path, recipe: str, seed: int, record: Record | None, *, overwrite: bool) -> str:
    made = _degraded(source, recipe, seed, record)
    refuse_to_replace(target, overwrite=overwrite)
    write_photo(made.tensor[None], Photo(made.tensor[None]), target)
    with atomic(target.with_suffix(".record.json")) as unfinished:
        unfinished.write_text(made.record.to_json(), encoding="utf-8")
    return f"{target}  from {source}: {made.record.prompt()}"
