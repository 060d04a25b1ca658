"""Whether a system does what it is told: twenty wishes that nobody trained on, judged by how degrees change."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from clareo.bench.cases import clean_photos, middle
from clareo.errors import UsageError
from clareo.io import atomic, read_photo
from clareo.perceive.conversation.held_out import WISHES, HeldOut
from clareo.quality.report import assess_image
from clareo.restore import restore
from clareo.system import System
from clareo.types import Image

SIDE = 256  # px at most, from the middle of every photo
PHOTOS = 6
GONE, LEFT = 0.75, 0.7  # of its degree at most, where a kind should fall, and at least, where it should stay


@dataclass(frozen=True)
class Done:
    """One wish about one photo: the judge's degrees of the kinds that it is about."""

    wish: HeldOut
    photo: str
    before: Mapping[str, float]
    after: Mapping[str, float]


def obedience(system: System, data: Path, out: Path, limit: int | None = None) -> str:
    """Wish twenty things of the photos of a folder; write obedience.csv and obedience.md, return the latter."""
    if system.hear is None:
        msg = f"{system.name} hears no wishes; those of `--ask` move its blend (clareo bench --planning)"
        raise UsageError(msg)
    done = list(_done(system, data, limit or PHOTOS))
    _write(done, out / "obedience.csv")
    text = "\n".join(table(done)) + "\n"
    (out / "obedience.md").write_text(text, encoding="utf-8")
    return text


def _done(system: System, data: Path, limit: int) -> Iterator[Done]:
    photos = [(path.name, middle(read_photo(path).pixels[:, :3], SIDE, 8)) for path in clean_photos(data)[:limit]]
    for number, wish in enumerate(WISHES):
        print(f"[{number + 1}/{len(WISHES)}] {wish.text}", file=sys.stderr)  # noqa: T201
        for place, (name, clean) in enumerate(photos):
            damaged = wish.record((clean.shape[-2], clean.shape[-1]), 100 * number + place).apply(clean)
            made = restore(damaged, system=system, ask=wish.text, judged=False).tensor
            yield Done(wish, name, _degrees(damaged, wish), _degrees(made, wish))


def _degrees(photo: Image, wish: HeldOut) -> dict[str, float]:
    found = assess_image((photo * 255).round() / 255).degradations
    return {kind: found[kind] for kind in (*wish.falls, *wish.stays)}


def obeyed(rows: Sequence[Done]) -> bool:
    """Tell whether a wish was done, by means over photos: all that should fall fell, all that should stay stayed."""
    before, after = (
        {kind: fmean(degrees[kind] for degrees in each) for kind in each[0]}
        for each in ([one.before for one in rows], [one.after for one in rows])
    )
    wish = rows[0].wish
    fell = all(after[kind] <= GONE * before[kind] for kind in wish.falls)
    return fell and all(after[kind] >= LEFT * before[kind] for kind in wish.stays)


def table(done: Sequence[Done]) -> Iterator[str]:
    """Yield a Markdown table, a row a wish."""
    by_wish = [[one for one in done if one.wish == wish] for wish in WISHES]
    told = [rows for rows in by_wish if rows]
    yield (
        f"{len(told)} wishes that no template makes, {len(told[0])} photos each; degrees are the judge's, before and "
        f"after. Done: what should fall is at most {GONE:.0%} of what it was, what should stay at least {LEFT:.0%}."
    )
    yield "\n| wish | should fall | should stay | done |\n|---|---|---|---|"
    for rows in told:
        wish = rows[0].wish
        cells = (_shown(rows, wish.falls), _shown(rows, wish.stays), "yes" if obeyed(rows) else "no")
        yield f"| {wish.text} | " + " | ".join(cells) + " |"
    yield f"\n{sum(map(obeyed, told))} of {len(told)} done."


def _shown(rows: Sequence[Done], kinds: Sequence[str]) -> str:
    means = ((kind, fmean(one.before[kind] for one in rows), fmean(one.after[kind] for one in rows)) for kind in kinds)
    return ", ".join(f"{kind} {before:.2f} -> {after:.2f}" for kind, before, after in means)


def _write(done: Sequence[Done], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["wish", "photo", "kind", "should", "before", "after"])
        for one in done:
            for kind in one.before:
                should = "fall" if kind in one.wish.falls else "stay"
                writer.writerow(
                    [one.wish.text, one.photo, kind, should, f"{one.before[kind]:.4f}", f"{one.after[kind]:.4f}"]
                )
