"""A system that takes no time and does as it is told, and many processes with it: what fault tests restore with."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from skimage import data
from torch import nn

import clareo
from clareo.batch import Outcome, make_jobs, run
from clareo.batch.memory import Load
from clareo.colour import keep
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DirectIteration
from clareo.diffusion.samplers import sample_ddim
from clareo.io import photo_size
from clareo.latents import PixelUnshuffle
from clareo.restore import restore
from clareo.system import System
from clareo.types import Condition, Percept

QUICK = {"judged": False, "precision": "fp32"}  # the same bytes on every machine, also in a process of their own


@dataclass
class FakeBackbone:
    """Softens contrast a little; ``fault`` is called with the number of the evaluation and may change or break it."""

    fault: Callable[[int, torch.Tensor], torch.Tensor] | None = None
    calls: int = 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        del t, condition
        self.calls += 1
        out = 0.95 * x + 0.02
        return out if self.fault is None else self.fault(self.calls, out)


def fake_system(fault: Callable[[int, torch.Tensor], torch.Tensor] | None = None) -> System:
    """One expert, no network, one step."""
    return System(
        name="fake",
        preset="nano",
        codec=PixelUnshuffle(4),
        denoiser=Denoiser(FakeBackbone(fault), DirectIteration(), "clean"),
        sampler=sample_ddim,
        network=nn.Identity(),
        experts=("blind",),
        weights={"blind": 1.0},
        steps=1,
        perceive=lambda _: Percept(),
        condition=lambda _canvas, _percept: {"blind": Condition(text=torch.zeros(1, 1, 1))},
        match_colour=keep,
        cases={},
        multiple=8,
        fingerprint="f" * 64,
    )


def write_photos(folder: Path, names: str, size: tuple[int, int] = (40, 56)) -> list[Path]:
    """Write a PNG a letter, each another picture: smooth, with some texture."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in names.split()]
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        wave = 120 + 60 * np.sin(rows / (5 + number)) + 40 * np.cos(columns / (7 + number))
        array = np.clip(wave[..., None] + rng.normal(0, 6, (*size, 3)), 0, 255).astype(np.uint8)
        PIL.Image.fromarray(array).save(path)
    return paths


def write_astronauts(folder: Path, count: int, step: int, size: tuple[int, int]) -> Path:
    """Write pieces of one photo, each some pixels below the one before; return the folder."""
    folder.mkdir()
    height, width = size
    for number in range(count):
        PIL.Image.fromarray(data.astronaut()[number * step :][:height, :width]).save(folder / f"{number}.png")
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its place; of sidecars, what does not tell the time."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


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


# --- in processes of their own ---------------------------------------------------------------------------------------
# `python fakes.py COMMAND ...` imports everything once and forks: a killed run costs no second import.


def work(source: Path, out: Path, seconds: float, log: Path) -> None:
    """Restore a folder with --resume, slowly, and write down what became of every photo."""

    def slow(_number: int, x: torch.Tensor) -> torch.Tensor:
        time.sleep(seconds)
        return x

    jobs = make_jobs([source], out, QUICK)
    with log.open("a", encoding="utf-8") as file:
        for outcome in run(jobs, fake_system(slow), resume=True, workers=2):
            file.write(json.dumps([outcome.job.source.name, outcome.state, outcome.error]) + "\n")
            file.flush()


def forked(*arguments: object) -> int:
    """Run `work` in a process of its own; return its number."""
    pid = os.fork()
    if pid == 0:
        try:
            working = threading.Thread(target=work, args=arguments)  # OpenMP's threads of this one are not forked
            working.start()
            working.join()
        finally:
            os._exit(0)
    return pid


def kill_and_resume(source: Path, out: Path, log: Path, kills: int) -> None:
    """Kill a run so many times, at random moments, and let the last one finish."""
    rng = random.Random(kills)
    for _ in range(kills):
        pid = forked(source, out, 0.01, log)
        time.sleep(rng.uniform(0.0, 0.25))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.waitpid(forked(source, out, 0.0, log), 0)


def two_at_once(source: Path, out: Path, log: Path) -> None:
    """Let two processes work on one folder."""
    pids = [forked(source, out, 0.02, log.with_suffix(f".{number}")) for number in (1, 2)]
    for pid in pids:
        os.waitpid(pid, 0)


def _memory(what: str) -> int:
    """Return a line of the system's account of this process, in bytes: VmRSS is now, VmHWM the most so far."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


def restore_large(source: Path, out: Path, log: Path) -> None:
    """Restore photos in a process of their own, streamed; write down what that took."""
    system = clareo.load_system() if os.environ.get("CLAREO_REAL") else fake_system()
    restore(torch.rand(3, 256, 256), system=system, weights={system.experts[0]: 1.0})  # loads whatever is loaded anyway
    sizes = [photo_size(path) for path in sorted(source.iterdir())]
    estimate = max(Load(height * width).streamed(512) for height, width in sizes)
    before = _memory("VmRSS")
    jobs = make_jobs([source], out, {"weights": {"denoise": 1.0}} if os.environ.get("CLAREO_REAL") else {})
    outcomes = list(run(jobs, system, memory=estimate, thumbnails=200))
    told = {
        "errors": [outcome.error for outcome in outcomes],
        "streamed": [done.plan.streamed for outcome in outcomes if (done := outcome.restoration) is not None],
        "pictures": [len(seen.before) for outcome in outcomes if (seen := outcome.pictures) is not None],
        "before": before,
        "most": _memory("VmHWM"),
        "estimate": estimate,
    }
    log.write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    places = [Path(path) for path in paths[:3]]
    if command == "kill":
        kill_and_resume(*places, kills=int(paths[3]))
    elif command == "large":
        restore_large(*places)
    else:
        two_at_once(*places)
