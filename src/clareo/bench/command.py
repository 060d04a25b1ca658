"""What `clareo bench` was asked for: the options of the command line, checked, and one benchmark run."""

from __future__ import annotations

import argparse
from pathlib import Path

from clareo import planning
from clareo.bench.arguments import load_named, name_and_folder, only_folder, only_system
from clareo.bench.build import build
from clareo.bench.cases import quality
from clareo.bench.contenders import Settings
from clareo.bench.damage import degradations
from clareo.bench.forgery import forgeries
from clareo.bench.grid import Request, compare
from clareo.bench.judging import judging
from clareo.bench.obedience import obedience
from clareo.bench.planning import planning as choosing
from clareo.bench.prompts import prompts
from clareo.bench.speech import speech
from clareo.bench.speed import speed
from clareo.bench.steering import words
from clareo.bench.studies import study
from clareo.errors import UsageError
from clareo.system import load_system

ON_CLEAN_PHOTOS = (
    *("degradations", "judge", "obedience", "planning", "prompts", "speech", "study", "trust", "words"),
)  # with a folder


def bench(asked: argparse.Namespace) -> tuple[str, bool]:
    """Run the benchmark that is asked for; return its tables, and whether a photo failed."""
    if asked.build is not None:
        return str(build(*name_and_folder(asked.build), asked.out)) + "\n", False
    if asked.speed:
        return speed(load_system(*only_system(asked.system, asked.preset))) + "\n", False
    folder = only_folder(asked.data)
    if folder is None and not any(getattr(asked, name) for name in ON_CLEAN_PHOTOS):
        return _of_sets(asked)
    if folder is None:
        *names, last = (f"--{name}" for name in ON_CLEAN_PHOTOS)
        msg = f"{', '.join(names)} and {last} take a folder of clean photos, without a name"
        raise UsageError(msg)
    return _of_clean_photos(asked, folder) + "\n", False


def _of_clean_photos(asked: argparse.Namespace, folder: Path) -> str:
    """Measure on photos that are damaged on purpose; return the tables."""
    if asked.judge or asked.prompts:
        wanted = (folder, asked.out, asked.limit or 2000)
        return judging(*wanted) if asked.judge else prompts(*wanted, asked.preset)
    if asked.degradations:
        return degradations(folder)
    _refuse_options_of_sets(asked, folder)
    if asked.study is not None:
        return _study(asked, folder)
    system = load_system(*only_system(asked.system, asked.preset))
    if asked.trust:
        return forgeries(system, folder, asked.out, asked.limit)
    if asked.planning:
        return choosing(system, folder, asked.out, asked.limit, asked.lessons)
    if asked.speech:
        return speech(system, folder, asked.out, asked.limit or 400)
    if asked.words or asked.obedience:
        return (words if asked.words else obedience)(system, folder, asked.out, asked.limit)
    return quality(system, folder, asked.out, tuple(asked.steps or (1, 4)), asked.limit)


def _study(asked: argparse.Namespace, folder: Path) -> str:
    if asked.photos is None:
        msg = "--study trains: --photos names the folder of photos to train on, --data the one to measure on"
        raise UsageError(msg)
    return study(asked.study, asked.photos, folder, asked.out, asked.limit)


def _refuse_options_of_sets(asked: argparse.Namespace, folder: Path) -> None:
    given = {"metric": bool(asked.metric), "keep": asked.keep, "device": asked.device != "auto"}
    given |= {option: getattr(asked, option) is not None for option in ("weights", "upscale", "published")}
    clash = [f"--{option}" for option, there in given.items() if there]
    if clash:
        msg = f"{', '.join(clash)}: for benchmark sets; name the set: --data NAME={folder}"
        raise UsageError(msg)


def _of_sets(asked: argparse.Namespace) -> tuple[str, bool]:
    weights = planning.AUTO if asked.weights is None else planning.parse_weights(asked.weights)
    request = Request(
        asked.system or ["unires"],
        load_named(asked.data, asked.upscale, asked.limit),
        asked.out,
        metrics=asked.metric,
        preset=asked.preset,
        settings=[Settings(steps, weights, asked.device) for steps in asked.steps or (None,)],
        keep=asked.keep,
        published=asked.published,
    )
    tables, failed = compare(request)
    return tables, bool(failed)
