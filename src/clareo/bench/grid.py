"""Systems x datasets x metrics: every photo restored and measured, one CSV line a number, tables of the means.

A picture is measured as a file on disk would hold it: 8 bit. The noise of a photo is seeded by its stem. What the CSV
holds already, of the same weights, options and files, is not done again.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import clareo
from clareo.bench.contenders import Contender, Settings, contenders, read_image
from clareo.bench.cost import Made, make
from clareo.bench.datasets import Dataset, Item
from clareo.bench.measures import Measure, find_measures
from clareo.bench.published import check_methods
from clareo.bench.rows import Row, Sheet
from clareo.bench.summary import MEMORY, SECONDS, Line, summarise
from clareo.degrade.ops import to_pil
from clareo.errors import ClareoError, PhotoError, RestorationError, UsageError
from clareo.io import atomic


@dataclass(frozen=True)
class Request:
    """What is asked of the bench."""

    systems: Sequence[str]  # NAME or NAME:PRESET; "input" is the degraded photo
    datasets: Sequence[Dataset]
    out: Path
    metrics: Sequence[str] = ()  # none: the usual ones
    preset: str = "nano"  # of systems that name none
    settings: Sequence[Settings] = (Settings(),)  # each makes a line of every table
    keep: bool = False  # the restored pictures, as PNG
    published: Sequence[str] | None = None  # methods whose printed numbers are shown; none named: the papers' own


def compare(request: Request) -> tuple[str, int]:
    """Measure everything that was asked for.

    Writes ``grid.csv`` as it goes, ``grid.md`` and ``grid.tex`` at the end; returns the tables in Markdown, and how
    many restorations failed.
    """
    check_methods(request.published or ())
    loaders = contenders(request.systems, request.preset, request.settings)
    measures = find_measures(request.metrics)
    run = Run(request, measures, Sheet(request.out / "grid.csv"))
    lines = [run.line(each, dataset) for load in loaders for each in load() for dataset in request.datasets]
    tables = summarise(lines, measures, request.published)
    text = "\n".join(table.markdown() for table in tables)
    for name, content in (("grid.md", text), ("grid.tex", "\n".join(table.latex() for table in tables))):
        with atomic(request.out / name) as unfinished:
            unfinished.write_text(content, encoding="utf-8")
    return text, sum(line.failed for line in lines)


@dataclass(frozen=True)
class Run:
    """A run of the bench over its sheet."""

    request: Request
    measures: Sequence[Measure]
    sheet: Sheet

    def line(self, contender: Contender, dataset: Dataset) -> Line:
        """Measure one contender on one dataset, photo by photo; a photo that fails is named and left out."""
        options = {item.upscale: contender.options(item.upscale) for item in dataset.items}
        rows: list[Row] = []
        failed = 0
        warm = False
        for number, item in enumerate(dataset.items, start=1):
            told = f"[{number}/{len(dataset.items)}] {contender.name} {dataset.name} {item.image}"
            try:
                blank = self._blank(contender, dataset, item, options[item.upscale])
                if not self._is_done(blank, item):
                    if not warm:
                        contender.warm_up()
                        warm = True
                    print(told, file=sys.stderr)  # noqa: T201
                    self._measure(contender, item, blank)
                rows += self._found(blank, item)
            except UsageError:
                raise  # the same for every photo
            except (ClareoError, MemoryError, RuntimeError) as error:  # torch says so when memory runs out
                failed += 1
                print(f"clareo: {told}: {' '.join(str(error).split()) or 'not enough memory'}", file=sys.stderr)  # noqa: T201
        rows += self._of_folders(rows, dataset, failed)
        return Line(contender.name, "; ".join(options.values()), contender.fingerprint, dataset, tuple(rows), failed)

    def _blank(self, contender: Contender, dataset: Dataset, item: Item, options: str) -> Row:
        """Return what the rows of a photo have in common."""
        files = _digest([item.degraded, *([item.reference] if item.reference else [])])
        version = clareo.__version__
        return Row(contender.name, contender.fingerprint, version, dataset.name, item.image, files, options, "", None)

    def _wanted(self, item: Item) -> list[Measure]:
        """Return the metrics that can be taken of a photo."""
        found = [measure for measure in self.measures if not measure.reason and measure.take_folders is None]
        return [measure for measure in found if item.reference is not None or not measure.needs_reference]

    def _missing(self, blank: Row, item: Item) -> list[Measure]:
        wanted = self._wanted(item)
        return [measure for measure in wanted if replace(blank, protocol=measure.protocol).key not in self.sheet]

    def _is_done(self, blank: Row, item: Item) -> bool:
        costed = all(replace(blank, protocol=protocol).key in self.sheet for protocol in (SECONDS, MEMORY))
        kept = not self._keeps() or self._picture(blank).exists()
        return costed and kept and not self._missing(blank, item)

    def _found(self, blank: Row, item: Item) -> list[Row]:
        protocols = [measure.protocol for measure in self._wanted(item)] + [SECONDS, MEMORY]
        return [self.sheet.rows[replace(blank, protocol=protocol).key] for protocol in protocols]

    def _measure(self, contender: Contender, item: Item, blank: Row) -> None:
        """Restore a photo, take what is missing of it, and write it down at once."""
        made = make(contender, item)
        reference = None if item.reference is None else read_image(item.reference)
        if reference is not None and reference.shape != made.image.shape:
            sizes = f"{tuple(made.image.shape[-2:])}, its reference {tuple(reference.shape[-2:])}"
            msg = f"{item.degraded}: came out as {sizes}"
            raise RestorationError(msg)
        rows = [
            _row(blank, measure.protocol, *measure.take(made.image, reference))
            for measure in self._missing(blank, item)
        ]
        rows += [row for row in _cost(blank, made) if row.key not in self.sheet]
        if self._keeps():
            with atomic(self._picture(blank)) as unfinished:
                to_pil(made.image[0]).save(unfinished, "PNG")
        self.sheet.add(rows)

    # --- whole folders -----------------------------------------------------------------------------------------------

    def _keeps(self) -> bool:
        """Tell whether restored pictures are kept: where they are asked for, and where a metric compares folders."""
        folders = any(measure.take_folders is not None and not measure.reason for measure in self.measures)
        return self.request.keep or folders

    def _picture(self, row: Row) -> Path:
        made = hashlib.sha256("\n".join((row.weights, row.clareo, row.options)).encode()).hexdigest()[:8]
        system = "".join(sign if sign.isalnum() else "-" for sign in row.system)
        name = row.image.replace("/", "__").removesuffix(".png")
        return self.request.out / "pictures" / system / row.dataset / made / f"{name}.png"

    def _of_folders(self, rows: Sequence[Row], dataset: Dataset, failed: int) -> list[Row]:
        """Take the metrics that compare all restored pictures with all references."""
        measures = [m for m in self.measures if m.take_folders is not None and not m.reason]
        if not measures or not dataset.has_references or failed:
            return []
        first = {row.image: row for row in rows if row.protocol == SECONDS}
        files = hashlib.sha256("".join(row.files for row in first.values()).encode()).hexdigest()[:16]
        options = "; ".join(dict.fromkeys(row.options for row in first.values()))
        blank = replace(next(iter(first.values())), image="", files=files, options=options, value=None, note="")
        pictures = {item.image: self._picture(first[item.image]) for item in dataset.items}
        references = {item.image: item.reference for item in dataset.items if item.reference is not None}
        for measure in measures:
            if measure.take_folders is not None and replace(blank, protocol=measure.protocol).key not in self.sheet:
                with tempfile.TemporaryDirectory() as folder:
                    pair = _linked(Path(folder) / "restored", pictures), _linked(Path(folder) / "reference", references)
                    self.sheet.add([_row(blank, measure.protocol, *measure.take_folders(*pair))])
        return [self.sheet.rows[replace(blank, protocol=measure.protocol).key] for measure in measures]


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise PhotoError(msg) from error
    return digest.hexdigest()[:16]


def _row(blank: Row, protocol: str, value: float | None, note: str) -> Row:
    """Fill in a value, with the digits that the CSV keeps: a resumed run gives the same means."""
    return replace(blank, protocol=protocol, value=None if value is None else float(f"{value:.7g}"), note=note)


def _cost(blank: Row, made: Made) -> list[Row]:
    memory = (None, "not run: this system keeps no account") if made.mebibytes is None else (made.mebibytes, "")
    return [_row(blank, SECONDS, made.seconds, made.machine), _row(blank, MEMORY, *memory)]


def _linked(folder: Path, files: Mapping[str, Path]) -> Path:
    """Make a folder of links to files."""
    folder.mkdir()
    for image, path in files.items():
        name = image.replace("/", "__")
        (folder / f"{name}{path.suffix.lower()}").symlink_to(path.resolve())
    return folder
