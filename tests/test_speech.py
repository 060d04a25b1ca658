"""What is measured of those who speak: tables that count what was read, and refuse those who say nothing."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
import torch
from skimage import data

from clareo.bench.obedience import GONE, Done, obedience, obeyed
from clareo.bench.speech import Heard, speech, table
from clareo.bench.studies.measure import TEXTS, Case
from clareo.bench.studies.plan import read_study
from clareo.degrade.recipes import draw
from clareo.errors import UsageError
from clareo.perceive.conversation import COMPARE, DESCRIBE, RESTORE, SCORE, plan_in
from clareo.perceive.conversation.held_out import WISHES
from clareo.system import System
from clareo.types import Percept
from uare_parts import build

STUDIES = Path(__file__).parent.parent / "studies"


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    folder = tmp_path / "clean"
    folder.mkdir()
    PIL.Image.fromarray(data.astronaut()[:200, 100:330]).save(folder / "a.png")
    return folder


def test_all_that_is_said_is_counted(clean: Path, tmp_path: Path) -> None:
    said = {
        DESCRIBE: "The photo shows heavy noise.",
        SCORE: "Score: 2.500.",
        COMPARE: "Both are equally good.\nConclusion: tie",
    }
    asked: list[int] = []

    def answer(photos: list[torch.Tensor], question: str) -> str:
        asked.append(len(photos))
        return said[question]

    text = speech(replace(build()[0], answer=answer), clean, tmp_path, samples=6)
    assert sorted(set(asked)) == [1, 3]
    with (tmp_path / "speech.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["claimed"] for row in rows} == {"noise"}
    assert "| answers without a score | 0.0% of 6 |" in text
    assert (tmp_path / "speech.md").read_text() == text


def heard(**changes: object) -> Heard:
    told = Heard("a", "judged-single", ("noise",), ("noise",), 3.0, "", ("noise",), 3.1, 0.5, "A", "A")
    return replace(told, **changes)


def test_tables_tell_right_from_wrong() -> None:
    wrong = heard(claimed=("haze",), said=None, named="", recipe="judged-double", true=("noise", "rain"))
    text = "\n".join(table([heard(), heard(score=2.0, said=2.2), heard(score=4.0, said=4.5), wrong]))
    assert "| Spearman, score against truth | 1.000 |" in text
    assert "| pairs in the right order, margin above 0.3 | 75.0% of 4 |" in text
    assert "| the kind of a single damage named | 100.0% of 3 |" in text
    assert "| both kinds of a double damage named | 0.0% of 1 |" in text
    assert "| descriptions that claim what is not there | 25.0% of 4 |" in text
    assert "| comparisons without a conclusion | 25.0% of 4 |" in text


def test_who_does_not_speak_or_hear_is_refused(clean: Path, tmp_path: Path, unires: System) -> None:
    with pytest.raises(UsageError, match="does not speak"):
        speech(unires, clean, tmp_path)
    with pytest.raises(UsageError, match="hears no wishes"):
        obedience(unires, clean, tmp_path)


def test_a_wish_is_done_where_the_right_degrees_change() -> None:
    wish = next(wish for wish in WISHES if wish.falls == ("rain",) and wish.stays == ("haze",))
    before = {"rain": 0.8, "haze": 0.6}
    for after, done in (
        ({"rain": 0.1, "haze": 0.6}, True),
        ({"rain": 0.8 * GONE + 0.01, "haze": 0.6}, False),
        ({"rain": 0.1, "haze": 0.1}, False),
    ):
        assert obeyed([Done(wish, "a", before, after)]) is done


def test_twenty_wishes_are_asked(clean: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def hear(photo: torch.Tensor, wish: str) -> Percept:
        del photo
        asked.append(wish)
        return Percept(prompt=wish)

    text = obedience(replace(build(base="photo")[0], hear=hear), clean, tmp_path, limit=1)
    assert asked == [wish.text for wish in WISHES]
    assert text.endswith("\n0 of 20 done.\n")  # an untrained system gives the photo back


def test_rows_of_a_study_say_where_the_plan_comes_from(photo: torch.Tensor) -> None:
    record = draw("haze+noise", (128, 160), 0)
    case = Case("a", 0, photo, photo[0], photo, record)
    system = build()[0]
    told = {name: TEXTS[name](system, case) for name in ("no plan", "the true plan", "seen")}
    assert told["no plan"] == Percept(prompt=RESTORE)
    plan = plan_in(told["the true plan"].caption)
    assert plan is not None
    assert set(plan.treat) == {"haze", "noise"}
    assert told["seen"].prompt == RESTORE


@pytest.mark.parametrize("name", ["uare-nano", "uare-nano-curriculum"])
def test_studies_can_be_read(name: str) -> None:
    plan = read_study(STUDIES / f"{name}.toml")
    assert plan.upscale == 1
    assert all(row.run in plan.runs for table in plan.tables for row in table.rows)
