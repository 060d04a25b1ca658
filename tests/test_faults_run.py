"""What goes wrong while a batch runs, planted on purpose: the reason, nothing half-written, and the rest is done."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import clareo
from clareo.batch import Outcome, Stop, make_jobs, run
from clareo.batch.locks import FOREIGN, TakenError, claim
from clareo.system import System
from fakes import bytes_of, fake_system, write_photos

QUICK = {"judged": False}
FAKES = Path(__file__).parent / "fakes.py"
Run = Callable[..., object]


def restored(source: Path, out: Path, system: System | None = None, **options: object) -> list[Outcome]:
    """Run a batch as the command line does, without the judge."""
    about_runs = ("overwrite", "resume", "keep_going", "workers", "memory", "stop", "thumbnails")
    how = {name: options.pop(name) for name in about_runs if name in options}
    jobs = make_jobs([source], out, {**QUICK, **options})
    return list(run(jobs, system or fake_system(), **how))  # type: ignore[arg-type]


def states(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.job.source.name: outcome.state for outcome in outcomes}


def names(folder: Path) -> list[str]:
    """Everything below a folder, hidden files included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def whole(*stems: str) -> list[str]:
    return sorted(f"{stem}{suffix}" for stem in stems for suffix in (".png", ".clareo.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos; what is planted among them sorts between the first two and the last two."""
    write_photos(tmp_path / "in", "a b y z")
    return tmp_path / "in"


# --- one photo fails, the others are done ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """How to plant a fault, and what must be said of it."""

    reason: str
    plant: Callable[[Path], None] = lambda _folder: None
    fault: Callable[[Path], Callable[[int, torch.Tensor], torch.Tensor]] | None = None
    name: str = "m.png"  # the photo that fails


def _link_to_itself(folder: Path) -> None:
    (folder / "m.png").symlink_to("m.png")
    (folder / "round").symlink_to(folder, target_is_directory=True)  # a folder in itself: not walked


def _link_to_nowhere(folder: Path) -> None:
    (folder / "m.png").symlink_to("gone.png")


def _one_more(folder: Path) -> None:
    write_photos(folder, "m", size=(40, 64))  # told apart by its width


def _large(folder: Path) -> None:
    write_photos(folder, "m", size=(140, 400))


def _vanishing(folder: Path) -> Callable[[int, torch.Tensor], torch.Tensor]:
    def fault(number: int, x: torch.Tensor) -> torch.Tensor:
        if number == 1:
            (folder / "m.png").unlink()
        return x

    return fault


def _when_wide(error: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    return lambda _folder: lambda _number, x: error(x) if x.shape[-1] == 64 // 4 else x


def _raising(error: Exception) -> Callable[[torch.Tensor], torch.Tensor]:
    def raising(_x: torch.Tensor) -> torch.Tensor:
        raise error

    return raising


def _at_tile(k: int, error: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    """Break tile k of the photo that has several; the others have one and are narrower."""

    def plan(_folder: Path) -> Callable[[int, torch.Tensor], torch.Tensor]:
        tiles = iter(range(1, 1000))

        def fault(_number: int, x: torch.Tensor) -> torch.Tensor:
            return error(x) if x.shape[-1] == 128 // 4 and next(tiles) == k else x

        return fault

    return plan


def _nan(x: torch.Tensor) -> torch.Tensor:
    x[..., 0, 0] = float("nan")
    return x


FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"
FAULTS = {
    "a link to itself, and a folder in itself": Fault("Too many levels of symbolic links", _link_to_itself),
    "a link to nowhere": Fault("no such file", _link_to_nowhere),
    "it vanishes during the run": Fault("no such file", _one_more, _vanishing),
    "a tile that raises": Fault("ValueError: tile", _large, _at_tile(3, _raising(ValueError("tile")))),
    "not a number at tile 2": Fault("tile at row 0, column", _large, _at_tile(2, _nan)),
    "not a number at tile 1": Fault("tile at row 0, column 0 came out", _large, _at_tile(1, _nan)),
    "no memory, at any tile": Fault("not enough memory", _one_more, _when_wide(_raising(RuntimeError(FULL)))),
    "no memory, of Python": Fault("not enough memory", _one_more, _when_wide(_raising(MemoryError()))),
    "an error without a word": Fault("KeyError", _one_more, _when_wide(_raising(KeyError()))),
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("case", FAULTS)
def test_a_photo_fails_alone(case: str, workers: int, folder: Path, tmp_path: Path) -> None:
    fault = FAULTS[case]
    fault.plant(folder)
    system = fake_system(None if fault.fault is None else fault.fault(folder))
    tile = {"tile": 128} if fault.plant is _large else {}
    outcomes = restored(folder, tmp_path / "out", system, workers=1 if case.startswith("it") else workers, **tile)
    assert states(outcomes) == {"a.png": "done", "b.png": "done", "m.png": "failed", "y.png": "done", "z.png": "done"}
    (failed,) = (outcome.error for outcome in outcomes if outcome.error)
    assert fault.reason in failed
    assert "m.png" in failed
    assert names(tmp_path / "out") == whole("a", "b", "y", "z")


def test_the_command_line_names_it_and_ends_with_1(
    folder: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _large(folder)
    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system(_at_tile(2, _nan)(folder)))
    said = run_cli("restore", folder, "-o", tmp_path / "out", "--tile", "128", "--jobs", "2")
    assert said.status == 1
    assert said.err.count("m.png: the tile at row 0, column") == 2  # in its turn, and in the summary
    assert "4 restored, 1 failed" in said.err
    assert "photos/s" in said.err
    assert "Traceback" not in said.err
    assert names(tmp_path / "out") == whole("a", "b", "y", "z")


def test_going_on_or_not(folder: Path, tmp_path: Path) -> None:
    (folder / "m.png").write_bytes(b"")
    outcomes = restored(folder, tmp_path / "out", keep_going=False)
    assert list(states(outcomes).values()) == ["done", "done", "failed"]
    assert names(tmp_path / "out") == whole("a", "b")


def test_a_photo_that_changes_while_it_is_read_is_neither(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = clareo.read_photo

    def slowly(path: Path, *limit: float) -> object:
        photo = read(path, *limit)
        if path.name == "y.png":
            shutil.copyfile(folder / "a.png", path)
        return photo

    monkeypatch.setattr("clareo.batch.one.read_photo", slowly)
    outcomes = restored(folder, tmp_path / "out")
    assert [outcome.error[-32:] for outcome in outcomes if outcome.error] == [
        "was changed while it was being read"[-32:]
    ]
    assert names(tmp_path / "out") == whole("a", "b", "z")


# --- a second time ---------------------------------------------------------------------------------------------------


def test_out_of_memory_at_tile_2_takes_half_the_tile_and_says_so(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", "a", size=(140, 600))

    def full(_number: int, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] > 128 // 4:
            raise RuntimeError(FULL)
        return x

    (outcome,) = restored(tmp_path / "in", tmp_path / "out", fake_system(full), tile=256)
    assert outcome.restoration is not None
    assert outcome.restoration.plan.tile == 128
    assert outcome.restoration.plan.why.endswith("on tiles of 128 px, as memory ran out on 256")
    assert outcome.to_json()["warnings"] == ["on tiles of 128 px, as memory ran out on 256"]
    account = json.loads((tmp_path / "out" / "a.clareo.json").read_text())
    assert (account["plan"]["tile"], account["asked"]["tile"]) == (128, 256)
    again = restored(tmp_path / "in", tmp_path / "again", tile=128)
    assert again[0].state == "done"
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "again" / "a.png").read_bytes()
    (repeated,) = restored(
        tmp_path / "in", tmp_path / "third", fake_system(full), plan=replace(outcome.restoration.plan, tile=256)
    )
    assert "not enough memory, on tiles of 256 px" in repeated.error  # a plan is repeated as it is, or not at all


def test_what_is_not_finite_in_bf16_is_done_in_fp32_and_says_so(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", "a")

    def weak(_number: int, x: torch.Tensor) -> torch.Tensor:
        return _nan(x) if torch.is_autocast_enabled("cpu") else x

    (outcome,) = restored(tmp_path / "in", tmp_path / "out", fake_system(weak), precision="bf16")
    assert outcome.restoration is not None
    assert outcome.restoration.plan.precision == "fp32"
    assert outcome.restoration.warnings == ("in fp32, as bf16 gave values that are not finite",)
    restored(tmp_path / "in", tmp_path / "sound", precision="fp32")
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "sound" / "a.png").read_bytes()


# --- the whole call is wrong -----------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(folder: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system())
    said = run_cli("restore", folder, "-o", tmp_path / "out", "--device", "cuda", "--jobs", "2")
    assert (said.status, "no such device" in said.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_no_jobs(folder: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system())
    said = run_cli("restore", folder, "-o", tmp_path / "out", "--jobs", "0")
    assert (said.status, "at least 1" in said.err) == (2, True)


def test_output_equals_input(folder: Path) -> None:
    before = bytes_of(folder)
    for overwrite in (True, False):
        outcomes = restored(folder, folder, overwrite=overwrite)
        assert set(states(outcomes).values()) == {"failed"}
        reason = "overwritten by its own restoration" if overwrite else "exists already"
        assert all(reason in outcome.error for outcome in outcomes)
        assert bytes_of(folder) == before


def test_what_lies_in_an_output_within_the_input_is_not_restored_again(folder: Path) -> None:
    for _ in range(2):
        outcomes = restored(folder, folder / "out", overwrite=True)
        assert set(states(outcomes)) == {"a.png", "b.png", "y.png", "z.png"}
    assert names(folder / "out") == whole("a", "b", "y", "z")


# --- disks -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """Mount a real small file system, or skip where this is not allowed."""
    place.mkdir()
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=False, capture_output=True
    )
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _noise(path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)  # 1.4 MB that nothing compresses
    PIL.Image.fromarray(array).save(path, "BMP")


@pytest.mark.parametrize("kind", ["a file system of 1 MiB", "a limit of 100 kB"])
def test_a_disk_that_fills_up_in_the_middle_of_a_file(kind: str, folder: Path, tmp_path: Path) -> None:
    _noise(folder / "m.bmp")
    out = tmp_path / "out"
    with mounted(out, "size=1m") if "system" in kind else limited(100_000):
        outcomes = restored(folder, out)
        assert states(outcomes) == {
            "a.png": "done",
            "b.png": "done",
            "m.bmp": "failed",
            "y.png": "done",
            "z.png": "done",
        }
        (failed,) = (outcome.error for outcome in outcomes if outcome.error)
        assert failed.startswith(f"{out / 'm.png'}: ")
        assert "cannot be written" in failed or "not written whole" in failed
        assert names(out) == whole("a", "b", "y", "z")


def test_a_disk_that_is_read_only(folder: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "out", "size=1m,ro"):
        outcomes = restored(folder, tmp_path / "out")
        assert {outcome.error.split(": ", 1)[1] for outcome in outcomes} == {
            "cannot be written (Read-only file system)"
        }
        assert names(tmp_path / "out") == []


def test_a_full_disk_costs_the_report_but_no_photo(
    folder: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system())
    with limited(20_000):
        said = run_cli("restore", folder, "-o", tmp_path / "out", "--report", tmp_path / "r" / "report.html")
    assert (said.status, "report.html: cannot be written" in said.err, "4 restored" in said.err) == (1, True, True)
    assert names(tmp_path / "out") == whole("a", "b", "y", "z")
    assert not (tmp_path / "r").exists()


# --- resuming --------------------------------------------------------------------------------------------------------


def _nothing(_source: Path, _out: Path) -> None:
    """Change nothing."""


CHANGES: dict[str, tuple[Callable[[Path, Path], object], dict[str, object], bool]] = {
    "nothing": (_nothing, {}, False),
    "another device, which moves nothing": (_nothing, {"device": "cpu"}, False),
    "a later date": (lambda source, _: os.utime(source / "a.png"), {}, False),
    "the photo": (lambda source, _: shutil.copyfile(source / "b.png", source / "a.png"), {}, True),
    "a setting": (_nothing, {"seed": 4}, True),
    "the size of the result": (_nothing, {"upscale": 2}, True),
    "the output is cut short": (
        lambda _, out: (out / "a.png").write_bytes((out / "a.png").read_bytes()[:-9]),
        {},
        True,
    ),
    "the output is empty": (lambda _, out: (out / "a.png").write_bytes(b""), {}, True),
    "the output is gone": (lambda _, out: (out / "a.png").unlink(), {}, True),
    "the output is another's": (lambda _, out: shutil.copyfile(out / "b.png", out / "a.png"), {}, True),
    "the sidecar is cut short": (lambda _, out: (out / "a.clareo.json").write_text('{"clareo": "0'), {}, True),
    "the sidecar is another thing": (lambda _, out: (out / "a.clareo.json").write_text("[1]"), {}, True),
    "the sidecar is gone": (lambda _, out: (out / "a.clareo.json").unlink(), {}, True),
    "the version": (
        lambda _, out: (out / "a.clareo.json").write_text(
            (out / "a.clareo.json").read_text().replace(clareo.__version__, "0.0.0")
        ),
        {},
        True,
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_resuming_does_again_what_is_not_the_same(case: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_photos(source, "a b")
    restored(source, out)
    change, options, redone = CHANGES[case]
    change(source, out)
    outcomes = restored(source, out, resume=True, **options)
    assert outcomes[0].state == ("done" if redone else "skipped")
    assert outcomes[1].state == ("done" if options and redone else "skipped")
    fresh = tmp_path / "fresh"
    restored(source, fresh, **options)
    assert {name: content for name, content in bytes_of(out).items() if name.endswith(".png")} == {
        name: content for name, content in bytes_of(fresh).items() if name.endswith(".png")
    }
    assert all(outcome.state == "skipped" for outcome in restored(source, out, resume=True, **options))


def test_resuming_with_other_weights_or_another_system(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", "a")
    restored(tmp_path / "in", tmp_path / "out")
    for change in ({"fingerprint": "0" * 64}, {"name": "other"}):
        other = replace(fake_system(), **change)  # type: ignore[arg-type]
        assert restored(tmp_path / "in", tmp_path / "out", other, resume=True)[0].state == "done"


def test_resuming_makes_a_trust_map_that_is_missing_or_broken(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", "a", size=(64, 64))
    source, out = tmp_path / "in", tmp_path / "out"
    restored(source, out, resume=True)
    for damage in (lambda _: None, Path.unlink, lambda path: path.write_bytes(b"half")):
        damage(out / "a.trust.png")
        assert restored(source, out, resume=True, trust_map=True)[0].state == "done"
        assert restored(source, out, resume=True, trust_map=True)[0].state == "skipped"


def test_5_kills_lose_nothing(tmp_path: Path) -> None:
    killed(tmp_path, 5)


@pytest.mark.slow
def test_50_kills_lose_nothing(tmp_path: Path) -> None:
    killed(tmp_path, 50)


def killed(tmp_path: Path, kills: int) -> None:
    """Kill -9 at random moments, then once more to the end: all is there, whole, and nothing else."""
    source, out, log = tmp_path / "in", tmp_path / "out", tmp_path / "log"
    write_photos(source, " ".join(f"p{number:02}" for number in range(3 * kills)))
    subprocess.run([sys.executable, FAKES, "kill", source, out, log, str(kills)], check=True, timeout=600)
    told = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("]")]
    assert not [error for _, _, error in told if error]
    assert names(out) == whole(*(path.stem for path in source.iterdir()))
    done = Counter(name for name, state, _ in told if state == "done")
    assert max(done.values()) == 1  # what was told to be finished was never done again
    restored(source, tmp_path / "fresh")
    assert bytes_of(out) == bytes_of(tmp_path / "fresh")


# --- several at once -------------------------------------------------------------------------------------------------


def test_two_processes_on_one_folder_share_the_work(tmp_path: Path) -> None:
    source, out, log = tmp_path / "in", tmp_path / "out", tmp_path / "log"
    write_photos(source, " ".join(f"p{number:02}" for number in range(24)))
    subprocess.run([sys.executable, FAKES, "two", source, out, log], check=True, timeout=300)
    told = [json.loads(line) for number in (1, 2) for line in log.with_suffix(f".{number}").read_text().splitlines()]
    assert not [error for _, _, error in told if error]
    done = Counter(name for name, state, _ in told if state == "done")
    assert done == {path.name: 1 for path in source.iterdir()}  # every photo by one of them, once
    assert names(out) == whole(*(path.stem for path in source.iterdir()))


def test_a_photo_that_another_process_is_at_is_left_to_it(folder: Path, tmp_path: Path) -> None:
    with claim(tmp_path / "out" / "b.png"):
        outcomes = restored(folder, tmp_path / "out", workers=2)
    assert list(states(outcomes).values()) == ["done", "elsewhere", "done", "done"]
    assert outcomes[1].to_json()["elsewhere"] == f"process {os.getpid()} on {socket.gethostname()}"
    assert names(tmp_path / "out") == whole("a", "y", "z")


@pytest.mark.parametrize(
    ("host", "age", "taken"), [("here", 0, False), ("far away", 60, True), ("far away", FOREIGN + 60, False)]
)
def test_locks_that_were_left_behind(host: str, age: float, taken: bool, tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.png"
    with claim(target) as place:
        pass
    place.mkdir(parents=True)  # as a process leaves it that was killed
    (place / "output.png").write_bytes(b"half")
    owner = {"pid": 2**22 + 1, "host": socket.gethostname() if host == "here" else host, "since": time.time() - age}
    (place / "lock").write_text(json.dumps(owner))
    if taken:
        with pytest.raises(TakenError, match="far away"), claim(target):
            pass
        return
    with claim(target) as again:
        assert again == place
        assert names(again) == ["lock"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("order", ["as found", "reversed", "another worker"])
def test_the_same_bytes_whatever_the_order_and_the_number_at_once(order: str, folder: Path, tmp_path: Path) -> None:
    restored(folder, tmp_path / "one")
    jobs = make_jobs([folder], tmp_path / "two", QUICK)
    jobs = jobs[::-1] if order == "reversed" else jobs
    outcomes = list(run(jobs, fake_system(), workers=1 if order == "as found" else 3))
    assert [outcome.job for outcome in outcomes] == jobs
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_outcomes_come_in_order_and_the_network_has_one_photo_at_a_time(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", "a b c d e f")
    inside, most = threading.Semaphore(1000), []

    def watch(number: int, x: torch.Tensor) -> torch.Tensor:
        inside.acquire()
        most.append(1000 - inside._value)
        time.sleep(0.02 if number % 2 else 0.0)
        inside.release()
        return x

    outcomes = restored(tmp_path / "in", tmp_path / "out", fake_system(watch), workers=4)
    assert list(states(outcomes)) == [f"{name}.png" for name in "abcdef"]
    if torch.get_num_threads() >= len(os.sched_getaffinity(0)):
        assert max(most) == 1


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c(
    presses: int, workers: int, folder: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: the photo at work is finished. Twice: it is not. Either way a summary, and nothing half-written."""

    def press(number: int, x: torch.Tensor) -> torch.Tensor:
        if number == 2:
            for _ in range(presses):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)
        return x

    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system(press))
    said = run_cli("restore", folder, "-o", tmp_path / "out", "--jobs", str(workers), "--report", tmp_path / "r.html")
    assert said.status == 130
    assert "not begun" in said.err
    finished = [path.stem for path in (tmp_path / "out").glob("*.png")]
    assert names(tmp_path / "out") == whole(*finished)
    assert len(finished) in ({1: (2,), 2: (1,)}[presses] if workers == 1 else (1, 2, 3))
    assert f"{len(finished)} restored" in (tmp_path / "r.html").read_text()
    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system())
    again = run_cli("restore", folder, "-o", tmp_path / "out", "--resume")
    assert (again.status, again.out.count("done before")) == (0, len(finished))


def test_a_stop_that_nobody_presses(folder: Path, tmp_path: Path) -> None:
    stop = Stop()
    stop.asked = True
    assert restored(folder, tmp_path / "out", stop=stop) == []
