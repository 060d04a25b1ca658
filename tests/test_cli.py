"""The command line from outside: results, reasons, exit statuses; and every bad input of the contract."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

import clareo
from clareo.cli import build_parser

Run = Callable[..., object]


@pytest.fixture
def noisy(astronaut: NDArray[np.uint8], tmp_path: Path) -> Path:
    """A noisy photo in a folder of its own."""
    rng = np.random.default_rng(0)
    array = np.clip(astronaut[:64, :80] + rng.normal(0, 25, (64, 80, 3)), 0, 255).astype(np.uint8)
    path = tmp_path / "in" / "noisy.png"
    path.parent.mkdir()
    PIL.Image.fromarray(array).save(path)
    return path


def test_help_is_quick() -> None:
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "clareo.cli", "--help"], check=True, capture_output=True)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(5)) < 0.3


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, clareo.cli; clareo.cli.build_parser().format_help(); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "False"


def test_restore_prints_one_json_object_a_photo(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    said = run_cli("restore", noisy.parent, "-o", tmp_path / "out", "--json", "--weights", "denoise=1", "--steps", "1")
    assert said.status == 0
    account = json.loads(said.out)
    assert account["output"] == str(tmp_path / "out" / "noisy.png")
    assert account["plan"]["weights"] == {"denoise": 1.0}
    assert set(account) >= {
        "input",
        "output",
        "seconds",
        "system",
        "preset",
        "plan",
        "percept",
        "before",
        "after",
        "trust",
    }
    assert "noisy.png" in said.err


def test_a_plan_is_replayed_byte_for_byte(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    first = tmp_path / "a" / "noisy.png"
    options = ("--weights", "sr=0.4,denoise=0.8,motion=-0.2", "--steps", "3", "--seed", "7", "--upscale", "2")
    assert run_cli("restore", noisy, "-o", tmp_path / "a", *options).status == 0
    sidecar = tmp_path / "a" / "noisy.clareo.json"
    assert run_cli("restore", noisy, "-o", tmp_path / "b", "--plan", sidecar).status == 0
    assert first.read_bytes() == (tmp_path / "b" / "noisy.png").read_bytes()
    accounts = [json.loads((tmp_path / run / "noisy.clareo.json").read_text()) for run in ("a", "b")]
    assert accounts[1].pop("asked") == {key: accounts[0][key] for key in ("plan", "percept")}
    assert accounts[0].pop("asked")["steps"] == 3
    assert accounts[0] == accounts[1]
    said = run_cli("restore", noisy, "-o", tmp_path / "c", "--plan", sidecar, "--steps", "2")
    assert (said.status, "--plan already decides steps" in said.err) == (2, True)


@pytest.mark.parametrize("option", ["--caption", "--prompt"])
def test_a_system_that_hears_no_words_says_so(noisy: Path, tmp_path: Path, run_cli: Run, option: str) -> None:
    said = run_cli("restore", noisy, "-o", tmp_path / "out", option, "a cat")
    assert said.status == 2
    assert f"unires hears no words; leave the {option[2:]} out" in said.err


def test_a_file_as_output(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    assert run_cli("restore", noisy, "-o", tmp_path / "clean.jpg", "--steps", "1").status == 0
    assert (tmp_path / "clean.jpg").read_bytes().startswith(b"\xff\xd8")
    assert (tmp_path / "clean.clareo.json").exists()


def test_one_bad_photo_stops_nobody_else(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    (noisy.parent / "aaa-empty.jpg").write_bytes(b"")
    (noisy.parent / "zzz-text.png").write_text("no photo")
    report = tmp_path / "report.html"
    said = run_cli("restore", noisy.parent, "-o", tmp_path / "out", "--json", "--steps", "1", "--report", report)
    accounts = [json.loads(line) for line in said.out.splitlines()]
    assert said.status == 1
    assert ["error" in account for account in accounts] == [True, False, True]
    assert "empty" in accounts[0]["error"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["noisy.clareo.json", "noisy.png"]
    page = report.read_text()
    assert "1 restored, 2 failed" in page
    assert "://" not in page
    assert "default-src 'none'" in page  # so that a browser sends no request, whatever is in the page
    stopped = run_cli("restore", noisy.parent, "-o", tmp_path / "stopped", "--no-keep-going")
    assert stopped.status == 1
    assert not (tmp_path / "stopped").exists()


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        ((), ("--weights", "auto"), True),
        ((), ("--ask", "less noise"), False),
        (("--ask", "less noise"), ("--ask", "less noise"), True),
        (("--ask", "less noise"), (), False),
        (("--weights", "fixed"), ("--weights", "fixed"), True),
        (("--weights", "sr=1"), (), False),
        (("--detail", "0.5"), ("--detail", "0.5"), True),
        ((), ("--seed", "3"), False),
    ],
)
def test_resuming_repeats_what_was_decided_otherwise(
    noisy: Path, tmp_path: Path, run_cli: Run, then: tuple[str, ...], now: tuple[str, ...], *, same: bool
) -> None:
    arguments = ("restore", noisy, "-o", tmp_path / "out")
    assert run_cli(*arguments, *then).status == 0
    again = run_cli(*arguments, *now, "--resume")
    assert again.status == 0
    assert ("done before" in again.out) == same


def test_existing_outputs_are_kept_unless_told(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    arguments = ("restore", noisy, "-o", tmp_path / "out", "--steps", "1")
    assert run_cli(*arguments).status == 0
    before = (tmp_path / "out" / "noisy.png").stat().st_mtime_ns
    refused = run_cli(*arguments)
    assert (refused.status, "--overwrite" in refused.err) == (1, True)
    skipped = run_cli(*arguments, "--resume")
    assert (skipped.status, "done before" in skipped.out) == (0, True)
    assert (tmp_path / "out" / "noisy.png").stat().st_mtime_ns == before
    (tmp_path / "out" / "noisy.png").write_bytes(b"half")
    assert "done before" not in run_cli(*arguments, "--resume").out
    assert "done before" not in run_cli(*arguments, "--resume", "--seed", "5").out
    assert run_cli(*arguments, "--overwrite").status == 0


def test_folders_are_mirrored(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    deeper = noisy.parent / "ä b" / "更"
    deeper.mkdir(parents=True)
    (deeper / "photo.PNG").write_bytes(noisy.read_bytes())
    assert run_cli("restore", noisy.parent, "-o", tmp_path / "out", "--steps", "1").status == 0
    assert (tmp_path / "out" / "ä b" / "更" / "photo.PNG").exists()


BAD_USAGE = {
    "weights that do not sum to 1": (["--weights", "sr=0.4"], "sum to 1"),
    "weights that name nobody": (["--weights", "denoize=1"], "did you mean 'denoise'"),
    "weights that cannot be read": (["--weights", "sr:1"], "sr=0.4,denoise=0.6"),
    "an unknown system": (["--system", "uniress"], "did you mean 'unires'"),
    "an unknown upscale": (["--upscale", "5"], "invalid choice"),
    "too few steps": (["--steps", "0"], "between 1 and"),
    "tiny tiles": (["--tile", "10"], "at least 128"),
    "detail out of range": (["--detail", "1.5"], "between 0 and 1"),
    "a plan that is none": (["--plan", "README.md"], "not a plan"),
    "a plan that is not there": (["--plan", "nowhere.json"], "No such file"),
    "an unknown option": (["--colour", "red"], "unrecognized"),
}


@pytest.mark.parametrize("case", BAD_USAGE)
def test_bad_usage_ends_with_2(case: str, noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    options, reason = BAD_USAGE[case]
    said = run_cli("restore", noisy, "-o", tmp_path / "out", *options)
    assert said.status == 2
    assert reason in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    said = run_cli("restore", noisy, "-o", tmp_path / "out", "--device", "mps")
    assert (said.status, "no such device" in said.err) == (2, True)


def test_bad_presets_and_checkpoints(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    pickle = tmp_path / "weights.pth"
    pickle.write_bytes(b"\x80\x04")
    text = tmp_path / "weights.safetensors"
    text.write_text("no tensors")
    for preset, reason in {
        "paper": "never published",
        str(pickle): "pickled weights",
        str(text): "not a readable safetensors file",
        str(tmp_path / "nowhere"): "no such file or folder",
    }.items():
        said = run_cli("restore", noisy, "-o", tmp_path / "out", "--preset", preset)
        assert (said.status, reason in said.err) == (1, True), said.err


def test_bad_inputs_through_the_command_line(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, reason in {empty: "no photos in this folder", tmp_path / "missing.jpg": "no such file"}.items():
        said = run_cli("restore", path, "-o", tmp_path / "out")
        assert (said.status, reason in said.err) == (1, True), said.err
    said = run_cli("restore", noisy, "-o", tmp_path / "out", "--max-megapixels", "0.001")
    assert (said.status, "--max-megapixels" in said.err) == (1, True)
    said = run_cli("restore", noisy, "-o", noisy.parent, "--overwrite")
    assert (said.status, "overwritten by its own restoration" in said.err) == (1, True)
    said = run_cli("restore", noisy.parent, noisy, "-o", tmp_path / "one.png")
    assert (said.status, "is one file, but there are 2 photos" in said.err) == (2, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write anything")
def test_permissions(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    noisy.chmod(0)
    assert "Permission denied" in run_cli("restore", noisy, "-o", tmp_path / "out").err
    noisy.chmod(0o644)
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot be written" in run_cli("restore", noisy, "-o", tmp_path / "locked").err


def test_debug_shows_the_traceback(noisy: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAREO_DEBUG", "1")
    with pytest.raises(Exception, match="unknown system"):
        run_cli("restore", noisy, "-o", tmp_path / "out", "--system", "x")


# --- the other commands ----------------------------------------------------------------------------------------------


def test_degrade_writes_records_that_repeat(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    said = run_cli("degrade", noisy, "-o", tmp_path / "bad", "--recipe", "motion", "--seed", "3", "--count", "2")
    assert said.status == 0
    assert len(said.out.splitlines()) == 2
    record = tmp_path / "bad" / "noisy-0.record.json"
    assert run_cli("degrade", noisy, "-o", tmp_path / "again", "--recipe", record).status == 0
    assert (tmp_path / "bad/noisy-0.png").read_bytes() == (tmp_path / "again/noisy.png").read_bytes()
    assert run_cli("degrade", noisy, "-o", tmp_path / "bad", "--recipe", "motoin").status == 2
    assert run_cli("degrade", noisy, "-o", tmp_path / "x", "--count", "0").status == 2


def test_models_and_doctor(run_cli: Run) -> None:
    said = run_cli("models")
    assert (said.status, "unires-nano" in said.out, "MIT" in said.out) == (0, True, True)
    assert json.loads(run_cli("models", "unires-nano", "--json").out)[0]["system"] == "unires"
    assert "did you mean" in run_cli("models", "unires-nana").err
    said = run_cli("doctor")
    assert (said.status, "unires-nano, intact" in said.out) == (0, True)


def test_bench_measures_every_case(noisy: Path, tmp_path: Path, run_cli: Run) -> None:
    said = run_cli("bench", "--data", noisy.parent, "-o", tmp_path / "bench", "--steps", "1")
    assert said.status == 0
    assert said.out.count("| denoise | 1 |") == 3
    rows = (tmp_path / "bench" / "quality.csv").read_text().splitlines()
    assert len(rows) == 1 + 7 + 6


def test_train_refuses_bad_recipes(tmp_path: Path, run_cli: Run) -> None:
    recipe = tmp_path / "r.toml"
    for text, reason in {
        "system = ": "cannot read the recipe",
        "seed = 1": "names its `system`",
        "system = 'unires'\nstage = []\nstages = [{steps = 1, crop = 8, batch = 1}]": "did you mean 'stages'",
        "system = 'unires'\nstages = [{steps = 0, crop = 8, batch = 1}]": "impossible stage",
        "system = 'unires'\nstages = [{steps = 1, crop = 8, batch = 1}]\noptimiser = {rat = 1}": "did you mean 'rate'",
    }.items():
        recipe.write_text(text)
        said = run_cli("train", recipe, "--data", tmp_path, "-o", tmp_path / "run")
        assert (said.status, reason in said.err) == (2, True), said.err
    assert run_cli("train", recipe, "nonsense", "--data", tmp_path).status == 2


def test_every_option_of_restore_is_a_keyword_or_about_files() -> None:
    about_files = {
        "help",
        "paths",
        "out",
        "plan",
        "overwrite",
        "resume",
        "keep_going",
        "report",
        "byproducts",
        "json",
        "jobs",
        "memory",
        "strip",
        "all_frames",
        "offline",
    }
    parser = build_parser()
    actions = parser._subparsers._group_actions[0].choices["restore"]._actions  # type: ignore[union-attr]
    keywords = set(inspect.signature(clareo.restore).parameters)
    assert {action.dest for action in actions} - about_files <= keywords
