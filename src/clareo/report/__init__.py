"""One HTML file that shows a batch: before and after under a slider. Nothing is loaded from elsewhere.

The file is written photo by photo, so that a batch of any length takes no memory; the page draws what is in view.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path

from clareo.batch import Outcome
from clareo.batch.locks import TakenError, claim
from clareo.errors import PhotoError
from clareo.report.entries import embedded, entry_of

__all__ = ["reporting", "write_report"]
HERE = "<!-- photos -->"  # of page.html
SUMMARY = "<!-- summary -->"


@contextlib.contextmanager
def reporting(path: Path | None) -> Iterator[Callable[[Outcome], None]]:
    """Take up outcomes one by one; the report is in its place when the context ends, also by Ctrl-C.

    Without a path nothing is taken up. A disk that fills up is told at the end: no photo has to wait for a report.
    """
    if path is None:
        yield lambda _outcome: None
        return
    try:
        with claim(path) as folder:
            yield from _written(path, folder / "page.html")
    except TakenError as error:
        msg = f"{path}: is being written by {error}; give another name"
        raise PhotoError(msg) from error


def _written(path: Path, partial: Path) -> Iterator[Callable[[Outcome], None]]:
    page = (resources.files("clareo.report") / "page.html").read_text(encoding="utf-8")
    head, tail = page.split(HERE)
    counts: Counter[str] = Counter()
    failures: list[OSError] = []

    def write(text: str) -> None:
        if failures:
            return
        try:
            with partial.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            failures.append(error)

    def add(outcome: Outcome) -> None:
        counts[outcome.state] += 1
        write(embedded(entry_of(outcome), outcome.pictures))

    write(head)
    try:
        yield add
    finally:
        write(tail.replace(SUMMARY, _summary(counts)))
        if not failures:
            partial.replace(path)
    if failures:
        msg = f"{path}: cannot be written ({failures[0].strerror or failures[0]})"
        raise PhotoError(msg) from failures[0]


def _summary(counts: Counter[str]) -> str:
    words = [f"{counts['done']} restored", f"{counts['failed']} failed"]
    words += [f"{counts['skipped']} done before"] if counts["skipped"] else []
    words += [f"{counts['elsewhere']} left to other processes"] if counts["elsewhere"] else []
    return ", ".join(words)


def write_report(outcomes: Iterable[Outcome], path: Path) -> Path:
    """Write the report of a batch; outcomes that brought no pictures (``thumbnails`` of `run`) are told in words."""
    with reporting(path) as add:
        for outcome in outcomes:
            add(outcome)
    return path
