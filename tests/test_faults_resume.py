"""A batch that is stopped, killed, repeated or shared: nothing lost, nothing half-written, nothing done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import clareo
from clareo.batch import Stop, make_jobs, run
from clareo.batch.locks import FOREIGN, TakenError, claim
from clareo.batch.turns import Counter as Compute
from fakes import QUICK, bytes_of, fake_system, names, restored, states, whole, write_photos

FAKES = Path(__file__).parent / "fakes.py"
Run = Callable[..., object]

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


def test_who_asked_for_the_batch_computes(tmp_path: Path) -> None:
    """In any other thread a network is slower; and whatever workers are told, threads are as many as before."""
    write_photos(tmp_path / "in", "a b c d")
    threads, before = set(), torch.get_num_threads()

    def watch(_: int, x: torch.Tensor) -> torch.Tensor:
        threads.add((threading.get_ident(), torch.get_num_threads()))
        return x

    assert len(restored(tmp_path / "in", tmp_path / "out", fake_system(watch), workers=3)) == 4
    if before >= len(os.sched_getaffinity(0)):
        assert threads == {(threading.get_ident(), before)}
    counted = []
    after = threading.Thread(target=lambda: counted.append(torch.get_num_threads()))
    after.start()
    after.join()
    assert counted == [before]


def test_who_waits_for_a_turn_is_woken_by_an_interrupt() -> None:
    turns, woken = Compute(), []

    def wait() -> None:
        with pytest.raises(KeyboardInterrupt):
            turns(lambda: 1)
        woken.append(True)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.05)
    turns.refuse()
    waiting.join(5)
    wait()  # nor is anything taken later
    assert woken == [True, True]


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
    if (presses, workers) != (2, 2):  # what another worker finishes in the same moment is on the disk, and untold
        assert f"{len(finished)} restored" in (tmp_path / "r.html").read_text()
    monkeypatch.setattr(clareo, "load_system", lambda *_: fake_system())
    again = run_cli("restore", folder, "-o", tmp_path / "out", "--resume")
    assert (again.status, again.out.count("done before")) == (0, len(finished))


def test_a_stop_that_nobody_presses(folder: Path, tmp_path: Path) -> None:
    stop = Stop()
    stop.asked = True
    assert restored(folder, tmp_path / "out", stop=stop) == []
