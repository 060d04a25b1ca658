"""The bench: nothing is measured twice, nothing stands in for a metric, and tables say what they hold."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray

from clareo import bench
from clareo.bench import contenders, measures, published
from clareo.bench.contenders import Enlarged, Restored, Settings, read_image
from clareo.bench.cost import make
from clareo.bench.datasets import Dataset, Item, dataset_names, load_datasets
from clareo.bench.measures import Measure, find_measures
from clareo.bench.rows import COLUMNS, Row, Sheet
from clareo.bench.table import Estimate, Table, bootstrap, digits_for, escape
from clareo.errors import UnknownNameError, UsageError
from clareo.io import read_photo, write_photo
from clareo.quality import cards
from clareo.quality.published import VARIANTS, PublishedMetric
from clareo.restore import restore
from clareo.system import System

Run = Callable[..., object]
COUNT = 4
PLAIN = Restored.restore
METRICS = ("psnr", "ssim/y-bt601/crop0", "gradient_energy")


@pytest.fixture
def pairs(astronaut: NDArray[np.uint8], tmp_path: Path) -> Path:
    """Four photos of 64 px at a quarter of their size, as StableSR releases RealSR."""
    folder = tmp_path / "sets"
    for kind in ("test_LR", "test_HR"):
        (folder / kind).mkdir(parents=True)
    for number in range(COUNT):
        photo = PIL.Image.fromarray(astronaut[16 * number : 16 * number + 64, 20 : 20 + 64])
        photo.save(folder / "test_HR" / f"Canon_00{number}.png")
        photo.resize((16, 16)).save(folder / "test_LR" / f"Canon_00{number}.png")
    return folder


@pytest.fixture(autouse=True)
def restored(unires: System, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Load the system once, and enlarge in its place: return the names of the photos that are "restored"."""
    names: list[str] = []

    def counted(_: Restored, item: Item) -> torch.Tensor:
        names.append(item.image)
        return Enlarged().restore(item)

    monkeypatch.setattr(contenders, "load_system", lambda *_: unires)
    monkeypatch.setattr(Restored, "restore", counted)
    monkeypatch.setattr(Restored, "warm_up", lambda _: None)
    monkeypatch.setitem(sys.modules, "pyiqa", None)  # not installed, whatever this machine has
    return names


def asked(out: Path, datasets: list[Dataset], **changes: object) -> bench.Request:
    return replace(bench.Request(["unires"], datasets, out, METRICS), **changes)  # type: ignore[arg-type]


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "grid.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- the grid --------------------------------------------------------------------------------------------------------


def test_every_system_set_and_metric_is_measured(pairs: Path, tmp_path: Path) -> None:
    sets = [*load_datasets("realsr", pairs), *load_datasets("flat", pairs / "test_LR")]
    text, failed = bench.compare(asked(tmp_path / "out", sets, systems=["input", "unires:nano"]))
    rows = rows_of(tmp_path / "out")
    assert failed == 0
    assert len(rows) == 2 * COUNT * (3 + 2) + 2 * COUNT * (1 + 2)  # without references one metric is left
    assert list(rows[0]) == COLUMNS
    assert {row["protocol"] for row in rows if row["dataset"] == "flat"} == {
        "gradient_energy/rgb/crop0",
        "seconds",
        "memory-mib",
    }
    assert "RealSR (crop) (realsr): 4 of 100 photos, x4" in text
    assert "not taken are psnr/rgb/crop0, ssim/y-bt601/crop0" in text
    assert text.count("| unires:nano | x4 1 step auto tile 512") == 1
    assert (tmp_path / "out" / "grid.md").read_text() == text
    assert r"psnr/rgb/crop0 $\uparrow$" in (tmp_path / "out" / "grid.tex").read_text()


def test_the_numbers_are_those_of_the_file_on_disk(
    pairs: Path, tmp_path: Path, unires: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture is rounded to 8 bit, the seed is a hash of the stem, the mean is the mean of the CSV."""
    monkeypatch.setattr(Restored, "restore", PLAIN)
    (dataset,) = load_datasets("realsr", pairs)
    dataset = replace(dataset, items=dataset.items[:2])
    text, _ = bench.compare(asked(tmp_path / "out", [dataset], settings=[Settings(steps=2, weights={"detail": 1.0})]))
    values = []
    for item in dataset.items:
        done = restore(
            item.degraded, system=unires, upscale=4, steps=2, weights={"detail": 1.0}, seed=item.seed, judged=False
        )
        written = write_photo(done.tensor, read_photo(item.degraded), tmp_path / "one.png")
        pair = read_image(written), read_image(item.reference or written)
        values.append(float(cards.measure(cards.find("psnr"), *pair)))
    told = [float(row["value"]) for row in rows_of(tmp_path / "out") if row["protocol"] == "psnr/rgb/crop0"]
    assert told == pytest.approx(values, abs=1e-4)
    assert bootstrap(told).text(2) in text


def test_a_run_goes_on_where_it_stopped(pairs: Path, tmp_path: Path, restored: list[str]) -> None:
    (dataset,) = load_datasets("realsr", pairs)
    out = tmp_path / "out"
    half = replace(dataset, items=dataset.items[:2])
    bench.compare(asked(out, [half]))
    assert restored == [item.image for item in dataset.items[:2]]
    before = rows_of(out)
    restored.clear()
    text, _ = bench.compare(asked(out, [dataset]))
    assert restored == [item.image for item in dataset.items[2:]]
    assert rows_of(out)[: len(before)] == before
    restored.clear()
    assert bench.compare(asked(out, [dataset])) == (text, 0)
    assert restored == []


def test_a_kill_in_mid_write_costs_one_photo(pairs: Path, tmp_path: Path, restored: list[str]) -> None:
    sets, out = load_datasets("realsr", pairs), tmp_path / "out"
    bench.compare(asked(out, sets))
    whole = (out / "grid.csv").read_bytes()
    kept = [row for row in rows_of(out) if row["protocol"] not in ("seconds", "memory-mib")]
    for cut in (3, 40, 150, 300):  # bytes: in the last line, and in lines before
        (out / "grid.csv").write_bytes(whole[:-cut])
        restored.clear()
        bench.compare(asked(out, sets))
        assert restored == [sets[0].items[-1].image]
        assert [row for row in rows_of(out) if row["protocol"] not in ("seconds", "memory-mib")] == kept
    (out / "grid.csv").write_bytes(whole[:20])
    bench.compare(asked(out, sets))
    assert len(rows_of(out)) == COUNT * 5


def test_whatever_decides_a_number_is_measured_anew(pairs: Path, tmp_path: Path, restored: list[str]) -> None:
    sets, out = load_datasets("realsr", pairs), tmp_path / "out"
    bench.compare(asked(out, sets))
    restored.clear()
    bench.compare(asked(out, sets, settings=[Settings(steps=2)]))
    assert len(restored) == COUNT
    restored.clear()
    PIL.Image.new("RGB", (16, 16)).save(pairs / "test_LR" / "Canon_001.png")
    bench.compare(asked(out, sets))
    assert restored == ["test_LR/Canon_001.png"]
    restored.clear()
    before = rows_of(out)
    bench.compare(asked(out, sets, metrics=[*METRICS, "psnr/y-yiq/crop0"]))
    assert len(restored) == COUNT
    assert len(rows_of(out)) == len(before) + COUNT  # the new metric, and nothing else a second time


def test_a_photo_that_fails_is_named_and_the_others_are_done(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pairs / "test_LR" / "Canon_002.png").write_bytes(b"no photo")
    sets = load_datasets("flat", pairs / "test_LR")
    text, failed = bench.compare(asked(tmp_path / "out", sets))
    assert failed == 1
    assert "Canon_002.png: not an image" in capsys.readouterr().err
    assert "1 photos failed and are left out" in text
    assert len({row["image"] for row in rows_of(tmp_path / "out")}) == COUNT - 1


class Slow(Restored):
    """The system itself."""

    restore = PLAIN


def test_seconds_and_memory_are_those_of_the_photo(pairs: Path, unires: System) -> None:
    item = load_datasets("realsr", pairs)[0].items[0]
    made = make(Slow("unires:nano", unires, Settings()), item)
    assert 0 < made.seconds < 60
    assert made.mebibytes is None or 0 <= made.mebibytes < 4096
    assert made.image.shape == (1, 3, 64, 64)
    assert torch.equal((made.image * 255).round() / 255, made.image)


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_run_says_so(pairs: Path, tmp_path: Path) -> None:
    """No pyiqa: the column is there, with the reason, and without a number of another metric."""
    sets = load_datasets("realsr", pairs)
    text, failed = bench.compare(asked(tmp_path / "out", sets, metrics=["psnr", "musiq", "pyiqa:ssim", "ms_ssim"]))
    line = next(line for line in text.splitlines() if line.startswith("| unires:nano"))
    assert failed == 0
    assert line.count("not run (1)") == 2
    assert line.count("not run (2)") == 1
    assert "(1) not run: this needs pyiqa: pip install" in text
    assert "(2) not run: the photo is too small for ms_ssim/y-yiq/crop0: 64x64 px" in text
    assert "musiq/pyiqa ↑ | ssim(color_space=ycbcr)/pyiqa ↑" in text


def test_metrics_of_pyiqa_carry_its_version(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(name: str) -> PublishedMetric:
        return PublishedMetric(VARIANTS[name], f"{name}/pyiqa-9.9", weights={"a/b.pth": "0" * 64}, network=torch.mean)

    monkeypatch.setattr(measures, "load_published", loaded)
    sets = load_datasets("flat", pairs / "test_HR")
    text, _ = bench.compare(asked(tmp_path / "out", sets, systems=["input"], metrics=["musiq", "liqe"]))
    values = [float(row["value"]) for row in rows_of(tmp_path / "out") if row["protocol"] == "musiq/pyiqa-9.9"]
    means = [float(read_image(item.degraded).mean()) for item in sets[0].items]
    assert values == pytest.approx(means, rel=1e-5)
    assert "weights b.pth 000000000000" in text
    assert "not run: needs 224 px a side, not 64x64" in text


def test_names_of_metrics() -> None:
    assert [measure.protocol for measure in find_measures(["psnr", "psnr/rgb/crop0"])] == ["psnr/rgb/crop0"]
    assert {measure.needs_reference for measure in find_measures([])} == {True, False}
    families = {
        measure.protocol.split("/")[0]: measure.family for measure in find_measures(["topiq_nr", "maniqa-pipal"])
    }
    assert families == {"topiq_nr": "topiq", "maniqa-pipal": "maniqa"}
    with pytest.raises(UnknownNameError, match="did you mean 'gmsd'"):
        find_measures(["gmsd", "gmsdd"])


def test_folders_are_compared_as_a_whole(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As FID is: from the kept pictures, once, and not where a photo is missing."""
    seen: list[tuple[list[str], list[str]]] = []

    def take(restored: Path, reference: Path) -> tuple[float, str]:
        seen.append((sorted(p.name for p in restored.iterdir()), sorted(p.name for p in reference.iterdir())))
        assert all(p.stat().st_size for p in (*restored.iterdir(), *reference.iterdir()))
        return 12.0, ""

    def never(**_: torch.Tensor | None) -> tuple[None, str]:
        raise AssertionError

    fid = Measure("fid/fake", "fid", False, True, never, "nobody (2026)", take)
    monkeypatch.setattr("clareo.bench.grid.find_measures", lambda _: [fid])
    sets, out = load_datasets("realsr", pairs), tmp_path / "out"
    text, _ = bench.compare(asked(out, sets))
    names = [f"test_LR__Canon_00{number}.png.png" for number in range(COUNT)]
    assert seen == [(names, names)]
    assert "12.00" in text
    assert len(list((out / "pictures" / "unires-nano" / "realsr").rglob("*.png"))) == COUNT
    assert bench.compare(asked(out, sets))[0] == text
    assert len(seen) == 1


# --- the papers' numbers ---------------------------------------------------------------------------------------------


def test_published_numbers_are_data_with_their_warnings() -> None:
    numbers = published.numbers()
    assert len(numbers) == 1675
    assert {number.dataset for number in numbers} <= {
        *dataset_names(),
        *(n.dataset for n in numbers if "/" in n.dataset),
    }
    found = {(n.paper, n.dataset, n.method, n.metric): n.value for n in numbers}
    assert found["UARE", "realsr", "Real-ESRGAN", "maniqa"] == Decimal("0.3749")
    assert found["InstanceRSR", "realsr", "InstanceRSR", "lpips"] == Decimal("0.250")
    assert found["UniRes", "diversephotos", "UniRes", "musiq"] == Decimal("68.22")
    assert found["UniRes", "div2k-val", "StableSR", "lpips"] == Decimal("0.3113")
    assert found["DaLPSR", "div2k-val-seesr", "StableSR", "lpips"] == Decimal("0.4055")
    assert found["UARE", "foundir/14Lowlight", "UARE", "psnr"] == Decimal("19.64")
    assert ("MRIR", "reallr200", "LDM", "niqe") not in found
    assert str(found["InstanceRSR", "realsr", "InstanceRSR", "maniqa"]) == "0.672"


@pytest.mark.parametrize(
    ("dataset", "metric", "said"),
    [
        ("realsr", "maniqa", "two scales"),
        ("realsr", "clipiqa", "0.472"),
        ("drealsr", "psnr", "1.32 dB"),
        ("div2k-val", "lpips", "Four different sets"),
        ("div2k-val-mrir", "lpips", "not released"),
        ("realsr", "fid", "bias"),
        ("reallr200", "liqe", "outlier"),
    ],
)
def test_warnings_come_with_the_numbers_they_concern(dataset: str, metric: str, said: str) -> None:
    of = [number for number in published.chosen(dataset, ["all"]) if number.metric == metric]
    assert any(said in text for text in published.cautions(of))


def test_methods_are_chosen_by_name() -> None:
    assert {number.method for number in published.chosen("realsr")} == {
        "UARE",
        "UniRes",
        "InstanceRSR",
        "MRIR",
        "DaLPSR",
    }
    assert {number.paper for number in published.chosen("realsr", ["real-esrgan"])} == {
        "UARE",
        "InstanceRSR",
        "MRIR",
        "DaLPSR",
    }
    assert not any(number.ablation for number in published.chosen("diversephotos", ["all"]))
    assert {number.method for number in published.chosen("diversephotos", ["UniRes, BR=1"])} == {"UniRes, BR=1"}
    assert not any("not run again" in text for text in published.cautions(published.chosen("realsr")))
    assert any("not run again" in text for text in published.cautions(published.chosen("realsr", ["StableSR"])))
    with pytest.raises(UnknownNameError, match="did you mean 'StableSR'"):
        published.check_methods(["StableSRR"])


def test_papers_stand_beside_ours(pairs: Path, tmp_path: Path) -> None:
    sets = load_datasets("realsr", pairs)
    request = asked(tmp_path / "out", sets, metrics=["psnr", "musiq"], published=["Real-ESRGAN"])
    text = bench.compare(request)[0].split("beside the papers", 1)[1]
    heads = "| metric | unires:nano | Real-ESRGAN (UARE) | Real-ESRGAN (InstanceRSR) | Real-ESRGAN (MRIR) | "
    assert heads in text
    assert "| musiq/pyiqa ↑ | not run | 59.87 | 60.370 | 60.37 | 60.18 |" in text
    assert "| dists | not measured | 0.2063 |  | 0.2060 |  |" in text
    assert "MANIQA is on two scales" in text
    assert "UARE: arXiv 2512.06750, supplement, table B.1" in text


# --- means and tables ------------------------------------------------------------------------------------------------


def test_the_bootstrap_agrees_with_theory_and_with_scipy() -> None:
    values = np.random.default_rng(1).normal(30, 2, 400)
    ours = bootstrap(list(values))
    half = 1.959964 * values.std() / np.sqrt(len(values))  # of the mean of many resamples, by the central limit
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert ours.high == pytest.approx(values.mean() + half, abs=0.06 * half)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", random_state=np.random.default_rng(5)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * half)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * half)
    assert bootstrap(list(values)) == ours


def test_means_without_an_interval() -> None:
    assert bootstrap([3.0]).text(2) == "3.00"
    assert bootstrap([float("inf"), 30.0]).text(2) == "inf"
    assert Estimate(1.0, 0.5, 1.5, 9).text(1) == "1.0 [0.5, 1.5]"
    assert [digits_for([31.2, 9.0]), digits_for([0.7]), digits_for([0.002]), digits_for([])] == [2, 4, 6, 6]


def test_tables_are_escaped() -> None:
    assert escape("50 % & a_b #1 {x} ~^\\ $") == (
        r"50 \% \& a\_b \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} \$"
    )
    table = Table("a|b", ("m ↑", "x|y"), (("1", "2_3"),), ("50 %",))
    assert r"| m ↑ | x\|y |" in table.markdown()
    assert r"m $\uparrow$ & x\textbar{}y \\" in table.latex()
    assert r"1 & 2\_3 \\" in table.latex()
    assert table.latex().count(r"\end{") == 2


def test_a_sheet_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "grid.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="other columns"):
        Sheet(tmp_path / "grid.csv")


def test_rows_survive_commas_and_odd_names(tmp_path: Path) -> None:
    row = Row("unires:a,b", "w", "1", "flat", 'ä "更", b.png', "f", "sr=0.5,x", "psnr", 1.5, "two\nlines")
    Sheet(tmp_path / "grid.csv").add([row])
    (found,) = Sheet(tmp_path / "grid.csv").rows.values()
    assert found == replace(row, note="two lines")
    (tmp_path / "grid.csv").write_bytes((tmp_path / "grid.csv").read_bytes() + b"\0\0\0\0")
    assert row.key in Sheet(tmp_path / "grid.csv")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(pairs: Path, tmp_path: Path, run_cli: Run) -> None:
    out = tmp_path / "out"
    arguments = (
        "bench",
        "--data",
        f"realsr={pairs}",
        "--metric",
        "psnr",
        "--limit",
        "2",
        "--weights",
        "sr=1",
        "-o",
        out,
    )
    said = run_cli(*arguments, "--steps", "1", "2")
    assert said.status == 0, said.err
    assert [said.out.count(f"x4 {steps} sr=1") for steps in ("1 step", "2 steps")] == [1, 1]
    (pairs / "test_LR" / "Canon_001.png").write_bytes(b"no photo")
    broken = run_cli("bench", "--data", f"flat={pairs / 'test_LR'}", "--metric", "gradient_energy", "-o", out)
    assert (broken.status, "Canon_001.png" in broken.err) == (1, True)


WRONG = {
    "a metric": (("--metric", "musik"), "did you mean 'musiq'"),
    "a system": (("--system", "unirez"), "did you mean 'unires'"),
    "a method": (("--published", "Stabl"), "did you mean 'StableSR'"),
    "weights": (("--weights", "sr=2"), "sum to 1"),
    "steps": (("--steps", "0"), "between 1 and"),
    "a limit": (("--limit", "0"), "at least 1"),
    "an upscale": (("--upscale", "2"), "--upscale is for flat folders"),
    "degradations of a set": (("--degradations",), "without a name"),
    "an unnamed set beside": (("--data", "photos"), "several folders need names"),
    "an unknown set": (("--data", "reelsr=photos"), "did you mean 'realsr'"),
    "a set to build": (("--build", "diverse=photos"), "did you mean 'diversephotos'"),
    "a set to build without a folder": (("--build", "diversephotos"), "NAME=FOLDER"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_ends_with_2(case: str, pairs: Path, tmp_path: Path, run_cli: Run) -> None:
    options, said = WRONG[case]
    answer = run_cli("bench", "--data", f"realsr={pairs}", "-o", tmp_path / "out", *options)
    assert (answer.status, said in answer.err) == (2, True), answer.err
    assert not (tmp_path / "out").exists()


def test_clean_photos_take_no_options_of_sets(pairs: Path, tmp_path: Path, run_cli: Run) -> None:
    folder = pairs / "test_HR"
    for options in (
        ("--metric", "psnr"),
        ("--published",),
        ("--keep",),
        ("--weights", "sr=1"),
        ("--system", "unires", "input"),
    ):
        said = run_cli("bench", "--data", folder, "-o", tmp_path / "out", *options)
        assert said.status == 2, said.err
    assert run_cli("bench").status == 2
