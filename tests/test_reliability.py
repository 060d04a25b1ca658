"""docs/reliability.md promises nothing that no test holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "reliability.md"
NAMED = re.compile(r"`(test_\w+\.py)?(?:::(test_\w+))?`")  # file.py::test, or ::test in the same file
CASES = 36  # of faults, at least


def parts() -> tuple[str, str]:
    """The page without what was measured, and that."""
    before, rest = PAGE.read_text(encoding="utf-8").split("### Measured\n")
    measured, after = rest.split("\n### ", 1)
    return before + after, measured


def rows(page: str) -> list[list[str]]:
    """The rows of all tables, without their heads, as cells."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    heads = {number for number, row in enumerate(cells) if set("".join(row)) <= set("-|")}
    return [row for number, row in enumerate(cells) if number not in heads and number + 1 not in heads]


def named_in(cell: str) -> list[tuple[str, str]]:
    """The tests that a cell names, with their files; a file alone stands for all that is in it."""
    found, file = [], ""
    for named in NAMED.finditer(cell):
        file = named[1] or file
        found.append((file, named[2] or ""))
    return found


@pytest.mark.parametrize("row", rows(parts()[0]), ids=lambda row: row[0][:50])
def test_every_promise_names_a_test_that_exists(row: list[str]) -> None:
    tests = named_in(row[-1])
    assert tests, row
    for file, name in tests:
        assert (HERE / file).is_file(), file
        text = (HERE / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(" if name else r"^def test_", text, re.MULTILINE), (file, name)


def test_all_named_in_the_page_are_understood() -> None:
    """A name in another form than `file.py::test` would be passed over."""
    page = parts()[0]
    assert len(rows(page)) > 80
    assert len(re.findall(r"`[^`]*test_[^`]*`", page)) == len([one for one in NAMED.finditer(page) if one[0] != "``"])


@pytest.mark.parametrize("row", rows(parts()[1]), ids=lambda row: row[0][:50])
def test_every_measured_number_names_its_command(row: list[str]) -> None:
    command = row[-1]
    assert command.startswith("`"), row
    for file, chosen in re.findall(r"pytest tests/(test_\w+\.py)(?: -k (\w+))?", command):
        assert re.search(rf"^def test_\w*{chosen}", (HERE / file).read_text(encoding="utf-8"), re.MULTILINE), command


def test_there_are_as_many_faults_as_were_asked_for() -> None:
    faults = PAGE.read_text(encoding="utf-8").split("## Faults")[1].split("\n## ")[0]
    assert faults.count("\n| ") - 1 >= CASES
