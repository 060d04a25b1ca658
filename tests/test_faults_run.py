"""What goes wrong while a batch runs, planted on purpose: the reason, nothing half-written, and the rest is done."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import clareo
from conftest import Said
from fakes import bytes_of, fake_system, names, restored, states, whole, write_photos

Run = Callable[..., Said]


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


def only_failure(said: Said, name: str = "m.png") -> str:
    """See that the command line did all photos but one, in order, and ended with 1; return what it said of that one."""
    accounts = [json.loads(line) for line in said.out.splitlines()]
    assert [Path(account["input"]).name for account in accounts] == ["a.png", "b.png", name, "y.png", "z.png"]
    assert ["error" in account for account in accounts] == [False, False, True, False, False]
    error: str = accounts[2]["error"]
    assert said.status == 1
    assert said.err.count(error) == 2  # in its turn, and in the summary
    assert "4 restored, 1 failed" in said.err
    assert "Traceback" not in said.err
    return error


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("case", FAULTS)
def test_a_photo_fails_alone(
    case: str, workers: int, folder: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FAULTS[case]
    fault.plant(folder)
    system = fake_system(None if fault.fault is None else fault.fault(folder))
    monkeypatch.setattr(clareo, "load_system", lambda *_: system)
    options = (
        "--jobs",
        "1" if case.startswith("it") else str(workers),
        "--tile",
        "128" if fault.plant is _large else "512",
    )
    failed = only_failure(run_cli("restore", folder, "-o", tmp_path / "out", "--json", *options))
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


@pytest.mark.parametrize(
    ("options", "reason"), [(("--overwrite",), "overwritten by its own restoration"), ((), "exists already")]
)
def test_output_equals_input(
    options: tuple[str, ...], reason: str, folder: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system())
    before = bytes_of(folder)
    said = run_cli("restore", folder, "-o", folder, "--json", *options)
    assert said.status == 1
    accounts = [json.loads(line) for line in said.out.splitlines()]
    assert [reason in account["error"] for account in accounts] == [True] * 4
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
def test_a_disk_that_fills_up_in_the_middle_of_a_file(
    kind: str, folder: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system())
    _noise(folder / "m.bmp")
    out = tmp_path / "out"
    with mounted(out, "size=1m") if "system" in kind else limited(100_000):
        failed = only_failure(run_cli("restore", folder, "-o", out, "--json"), "m.bmp")
        assert failed.startswith(f"{out / 'm.png'}: ")
        assert "cannot be written" in failed or "not written whole" in failed
        assert names(out) == whole("a", "b", "y", "z")


def test_a_disk_that_is_read_only(folder: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system())
    with mounted(tmp_path / "out", "size=1m,ro"):
        said = run_cli("restore", folder, "-o", tmp_path / "out", "--json")
        assert said.status == 1
        reasons = {json.loads(line)["error"].split(": ", 1)[1] for line in said.out.splitlines()}
        assert reasons == {"cannot be written (Read-only file system)"}
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
