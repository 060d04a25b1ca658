"""Batches without faults: jobs, names, memory, pace, and many photos."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import clareo
from clareo.batch import Outcome, Summary, find_photos, make_jobs, run
from clareo.batch.jobs import Job
from clareo.batch.memory import TILES, Budget, Fit, Load, fit_into, free_memory
from clareo.batch.summary import duration
from clareo.errors import NoMemoryError, PhotoError, UsageError
from clareo.system import System
from clareo.systems import instancersr, uare
from fakes import bytes_of, fake_system, write_photos

# --- which file goes where -------------------------------------------------------------------------------------------


def touch(folder: Path, *places: str) -> None:
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(b"x")


def test_folders_are_walked_in_order_without_what_is_ours(tmp_path: Path) -> None:
    touch(
        tmp_path, "b.png", "a/z.jpg", "a/c.tif", "a/.clareo-1/output.png", ".clareo-half.png", "notes.txt", "out/b.png"
    )
    places = [str(place) for _, place in find_photos([tmp_path])]
    assert places == ["a/c.tif", "a/z.jpg", "b.png", "out/b.png"]
    jobs = make_jobs([tmp_path], tmp_path / "out", {})
    assert [str(job.target.relative_to(tmp_path)) for job in jobs] == ["out/a/c.tif", "out/a/z.jpg", "out/b.png"]


def test_a_folder_that_cannot_be_looked_into_is_named_and_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "in", "a b")
    (tmp_path / "in" / "locked").mkdir()
    scan = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    outcomes = list(run(make_jobs([tmp_path / "in"], tmp_path / "out", {"judged": False}), fake_system()))
    assert [outcome.state for outcome in outcomes] == ["done", "done", "failed"]
    assert outcomes[2].error == f"{tmp_path / 'in' / 'locked'}: Permission denied"
    with pytest.raises(PhotoError, match="Permission denied"):
        find_photos([tmp_path / "in" / "locked"])


@pytest.mark.parametrize(
    ("photos", "sidecars"),
    [
        ("a.png b.png", "a.clareo.json b.clareo.json"),
        ("a.jpg a.png", "a.jpg.clareo.json a.png.clareo.json"),
        ("a.jpg a.jpg.png a.png", "a.jpg.clareo.json a.jpg.png.clareo.json a.png.clareo.json"),
        ("a..png", "a..clareo.json"),
    ],
)
def test_no_two_photos_share_a_sidecar(photos: str, sidecars: str, tmp_path: Path) -> None:
    touch(tmp_path, *photos.split())
    jobs = make_jobs([tmp_path], tmp_path / "out", {})
    assert [job.sidecar.name for job in jobs] == sidecars.split()


def test_names_that_are_as_long_as_can_be(tmp_path: Path) -> None:
    twins = ["ä" * 125 + end + ".png" for end in ("a", "b")]  # 255 bytes
    for name in twins:
        write_photos(tmp_path / "in", name.removesuffix(".png"))
    outcomes = list(run(make_jobs([tmp_path / "in"], tmp_path / "out", {"trust_map": True}), fake_system()))
    assert not [outcome.error for outcome in outcomes if outcome.error]
    assert len(list((tmp_path / "out").iterdir())) == 6
    again = run(make_jobs([tmp_path / "in"], tmp_path / "out", {"trust_map": True}), fake_system(), resume=True)
    assert all(outcome.skipped for outcome in again)


def test_two_photos_for_one_place_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/a.png", "three/a.gif")
    with pytest.raises(UsageError, match="several photos would be written to"):
        make_jobs([tmp_path / "one", tmp_path / "two"], tmp_path / "out", {})
    jobs = make_jobs([tmp_path / "one", tmp_path / "three"], tmp_path / "out", {})
    assert [job.target.name for job in jobs] == ["a.png", "a.gif.png"]


# --- memory ----------------------------------------------------------------------------------------------------------


def test_peaks_grow_with_everything_that_they_are_made_of() -> None:
    for smaller, larger in pairwise((Load(10**6), Load(2 * 10**6), Load(2 * 10**6, 2), Load(2 * 10**6, 4))):
        for less, more in pairwise(sorted(TILES)):
            assert smaller.peak(less) < larger.peak(less)
            assert larger.peak(less) <= larger.peak(more)
    assert Load(10**6, precision="bf16").peak(512) < Load(10**6).peak(512)
    assert Load(10**6, bits=16).streamed(512) == Load(10**6).streamed(512) + 8 * 10**6


@pytest.mark.parametrize(
    ("height", "width", "upscale", "tile", "measured"),
    [  # MiB above what is loaded, unires-nano and dalpsr-nano, one thread
        (256, 256, 1, 512, 155),
        (512, 512, 1, 512, 373),
        (512, 512, 1, 256, 50),
        (768, 768, 1, 512, 215),
        (1024, 1024, 1, 512, 247),
        (1024, 1536, 1, 512, 226),
        (1024, 1536, 1, 256, 186),
        (512, 768, 2, 512, 257),
        (4000, 6000, 1, 512, 1773),
    ],
)
def test_estimates_lie_above_what_was_measured(height: int, width: int, upscale: int, tile: int, measured: int) -> None:
    estimate = Load(height * width, upscale).peak(tile) / 2**20
    assert measured < estimate < measured + max(0.5 * measured, 256)


@pytest.mark.parametrize(
    ("height", "width", "name", "measured"),
    [
        (1500, 1800, "uare", 949),
        (2000, 2700, "uare", 1406),
        (1500, 1800, "instancersr", 507),
        (2000, 2700, "instancersr", 881),
    ],
)
def test_systems_that_take_more_say_so(height: int, width: int, name: str, measured: int) -> None:
    build = {
        "uare": lambda: uare.build_nano(uare.NanoSettings(base="photo")),
        "instancersr": lambda: instancersr.build_nano(instancersr.NanoSettings(prior="")),
    }[name]
    appetite = build()[0].appetite
    assert Load(height * width).peak(512) / 2**20 < measured
    assert measured < Load(height * width, appetite=appetite).peak(512) / 2**20 < 1.5 * measured
    assert Load(height * width, appetite=appetite).streamed(128) >= Load(height * width).streamed(128)


def test_the_largest_tile_that_fits() -> None:
    load = Load(24 * 10**6)
    assert fit_into(load, 16 * 2**30) == Fit(load.peak(512))
    assert fit_into(Load(10**6), Load(10**6).peak(384)) == Fit(Load(10**6).peak(384), 384)
    streamed = fit_into(load, 2**30, can_stream=True)
    assert (streamed.tile, streamed.streamed, streamed.why) == (None, True, "streamed, for want of memory")
    assert fit_into(
        Load(100 * 10**6), int(2.3 * 2**30), can_stream=True
    ).streamed  # within 3 GiB with all that is loaded
    with pytest.raises(NoMemoryError, match=r"needs about 2\.\d GiB of memory, and there are 1\.0"):
        fit_into(load, 2**30)
    assert 2**20 < free_memory() < 2**50


def test_a_tile_for_want_of_memory_is_said_and_does_not_depend_on_the_number_at_once(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", "a b", size=(700, 700))
    tight = Load(490_000).peak(384)
    for workers in (1, 2):
        out = tmp_path / str(workers)
        jobs = make_jobs([tmp_path / "in"], out, {"judged": False})
        outcomes = list(run(jobs, fake_system(), memory=tight, workers=workers))
        plans = [outcome.restoration.plan for outcome in outcomes if outcome.restoration is not None]
        assert [plan.tile for plan in plans] == [384, 384]
        assert plans[0].why == "the system's usual blend; tiles of 384 px, for want of memory"
        assert all(one.skipped for one in run(jobs, fake_system(), memory=tight, resume=True))
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")
    jobs = make_jobs([tmp_path / "in"], tmp_path / "none", {"judged": False})
    for outcome in run(jobs, fake_system(), memory=2**20):
        assert "a.png: needs about 0." in outcome.error or "b.png: needs about 0." in outcome.error


def test_a_budget_lets_in_what_fits_and_one_alone_always() -> None:
    budget, order = Budget(10), []

    def use(name: str, size: int, seconds: float) -> None:
        with budget.taken(size):
            order.append(f"{name} in")
            time.sleep(seconds)
            order.append(f"{name} out")

    threads = [threading.Thread(target=use, args=given) for given in (("large", 50, 0.2), ("small", 4, 0.0))]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert order == ["large in", "large out", "small in", "small out"]


# --- pace and summary ------------------------------------------------------------------------------------------------


def test_a_summary_tells_pace_and_reasons() -> None:
    job = Job(Path("a.png"), Path("out/a.png"), Path("out/a.clareo.json"))
    summary = Summary(10, began=time.perf_counter() - 8)
    assert summary.pace() == ""
    for outcome in (Outcome(job, skipped=True), Outcome(job, error="a.png: bad"), Outcome(job, elsewhere="process 1")):
        summary.add(outcome)
    assert summary.pace().endswith("left")
    assert summary.pace().startswith("0.12 photos/s, ")  # what was done before is no pace
    told = summary.told().splitlines()
    assert told[0].startswith("1 done before, 1 failed, 1 left to another process, 7 not begun, in 8.")
    assert told[1] == "  failed: a.png: bad"
    assert (summary.come, summary.failed) == (3, 1)


def test_durations_in_words() -> None:
    assert [duration(seconds) for seconds in (0.04, 59, 61, 3599, 3600, 86400)] == [
        "0.0 s",
        "59.0 s",
        "1 min",
        "1 h 0 min",
        "1 h 0 min",
        "24 h 0 min",
    ]


# --- many ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_network_gives_the_same_bytes_whatever_the_order_and_the_number_at_once(
    unires: System, tmp_path: Path
) -> None:
    write_photos(tmp_path / "in", "a b c d", size=(70, 90))
    for workers in (1, 2, 3):
        jobs = make_jobs([tmp_path / "in"], tmp_path / str(workers), {"trust_map": True})
        jobs = jobs[::-1] if workers == 2 else jobs
        assert all(outcome.state == "done" for outcome in run(jobs, unires, workers=workers))
    for name in "abcd":  # each on its own
        (job,) = make_jobs([tmp_path / "in" / f"{name}.png"], tmp_path / "4", {"trust_map": True})
        assert next(run([job], unires)).state == "done"
    assert len(bytes_of(tmp_path / "1")) == 12
    assert all(bytes_of(tmp_path / str(other)) == bytes_of(tmp_path / "1") for other in (2, 3, 4))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


FAULTY = {  # how every twentieth photo is broken, in turn
    "is empty": lambda path: path.write_bytes(b""),
    "cannot be read as a photo": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "not an image": lambda path: path.write_text("no photo"),
    "no such file": lambda path: (path.unlink(), path.symlink_to("gone.png")),
    "over the limit": lambda path: PIL.Image.fromarray(np.zeros((1100, 1000), np.uint8)).save(path),
}


@pytest.mark.slow
def test_many_mixed_photos_with_planted_faults(tmp_path: Path) -> None:
    """The rest restored, the broken ones named, memory flat, nothing to do the second time.

    CLAREO_MANY=1000 makes the long run of it, CLAREO_REAL=1 restores with the embedded model; told.json: the numbers.
    """
    system = clareo.load_system() if os.environ.get("CLAREO_REAL") else fake_system()
    count = int(os.environ.get("CLAREO_MANY", "60"))
    source, out = tmp_path / "in", tmp_path / "out"
    kinds = ("png", "jpg", "tif", "webp", "bmp")
    reasons = {}
    rng = np.random.default_rng(0)
    for number in range(count):
        shape = (int(rng.integers(33, 96)), int(rng.integers(33, 96)), 3)
        path = source / f"{number % 7}" / f"p{number:05}.{kinds[number % len(kinds)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(path)
        if number % 20 == 7:
            reason = list(FAULTY)[number // 20 % len(FAULTY)]
            FAULTY[reason](path.with_suffix(".png") if reason == "over the limit" else path)
            reasons[path if reason != "over the limit" else path.with_suffix(".png")] = reason
            if reason == "over the limit" and path.suffix != ".png":
                path.unlink()
    jobs = make_jobs([source], out, {"max_megapixels": 1.0})
    resident, done, failed = [], 0, {}
    for outcome in run(jobs, system, workers=2):
        done += outcome.state == "done"
        if outcome.error:
            failed[outcome.job.source] = outcome.error
        resident.append(_resident())
    assert done == count - len(reasons)
    assert failed.keys() == reasons.keys()
    for path, reason in reasons.items():
        assert str(path) in failed[path]
        assert reason in failed[path]
    settled = resident[min(100, count // 3) :]
    window = len(settled) // 10  # what is at work in one moment moves single values
    growth = statistics.median(settled[-window:]) / statistics.median(settled[:window]) - 1
    began = time.perf_counter()
    again = list(run(jobs, system, resume=True, workers=2))
    seconds = time.perf_counter() - began
    told = {"restored": done, "named": len(failed), "growth": growth, "most": max(settled), "seconds again": seconds}
    (tmp_path / "told.json").write_text(json.dumps(told))
    assert growth < 0.05
    assert max(settled) < 1.3 * settled[0]
    assert sum(outcome.skipped for outcome in again) == done
    assert seconds < 10
    assert not list(out.rglob(".clareo-*"))
