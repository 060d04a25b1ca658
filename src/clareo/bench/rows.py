"""Measurements on disk: one CSV line each, appended photo by photo, so that a run that is killed can go on.

A photo's lines are written at once and flushed. A line that was cut off in the middle is dropped when the file is read
again; its photo is measured again, and no other.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from clareo.errors import PhotoError, UsageError
from clareo.io import atomic

Key = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One number of one photo, with everything that decided it."""

    system: str  # name:preset
    weights: str  # the first digits of their sha256
    clareo: str  # version
    dataset: str
    image: str
    files: str  # the first digits of the sha256 of the photo and its reference
    options: str
    protocol: str  # of the metric
    value: float | None
    note: str = ""  # why there is no value, or on what it was measured

    @property
    def key(self) -> Key:
        """Return what identifies a measurement: a row with the same key need not be measured again."""
        return (
            self.system,
            self.weights,
            self.clareo,
            self.dataset,
            self.image,
            self.files,
            self.options,
            self.protocol,
        )


COLUMNS = [field.name for field in fields(Row)]


class Sheet:
    """The measurements of a CSV file, by key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[Key, Row] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        text = _text(self.path)
        whole = text[: text.rfind("\n") + 1]  # what follows the last line end was cut off
        records = list(csv.reader(io.StringIO(whole)))
        if whole and records[0] != COLUMNS:
            msg = f"{self.path}: holds other columns than this version writes; choose another folder with -o"
            raise UsageError(msg)
        rows = [row for row in map(_parsed, records[1:]) if row is not None]
        self.rows = {row.key: row for row in rows}
        if whole != text or len(rows) != len(records) - 1:
            with atomic(self.path) as unfinished:
                unfinished.write_text(_lines([COLUMNS, *map(_cells, rows)]), encoding="utf-8")

    def __contains__(self, key: Key) -> bool:
        return key in self.rows

    def add(self, rows: Sequence[Row]) -> None:
        """Append the measurements of one photo, and see them onto the disk."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists() or self.path.stat().st_size == 0
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines([*([COLUMNS] if fresh else []), *map(_cells, rows)]))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            msg = f"{self.path}: cannot be written ({error.strerror or error})"
            raise PhotoError(msg) from error
        self.rows.update({row.key: row for row in rows})


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", errors="replace").replace("\0", "")  # a crash may leave zeros
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise PhotoError(msg) from error


def _lines(records: Iterable[Sequence[str]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(records)
    return written.getvalue()


def _cells(row: Row) -> list[str]:
    values = vars(row) | {"value": "" if row.value is None else f"{row.value:.7g}", "note": " ".join(row.note.split())}
    return [str(values[name]) for name in COLUMNS]


def _parsed(record: Sequence[str]) -> Row | None:
    """Read a line back; a damaged one is as good as none."""
    if len(record) != len(COLUMNS):
        return None
    cells = dict(zip(COLUMNS, record, strict=True))
    try:
        value = float(cells.pop("value") or "nan")
    except ValueError:
        return None
    return Row(**cells, value=None if math.isnan(value) else value)
