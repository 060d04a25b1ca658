"""Many photos: which file goes where, one outcome and one sidecar each. A bad photo stops nobody else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import clareo
from clareo.checkpoints import file_hash
from clareo.degrade import Degraded, Record, degrade
from clareo.degrade.recipes import find_recipe
from clareo.degrade.sheet import contact_sheet
from clareo.errors import ClareoError, PhotoError, UsageError
from clareo.io import (
    MAX_MEGAPIXELS,
    SUFFIXES,
    Photo,
    atomic,
    count_frames,
    list_photos,
    output_place,
    read_photo,
    write_photo,
)
from clareo.planning import AUTO
from clareo.quality.report import assess
from clareo.restore import restore
from clareo.system import System
from clareo.trust import Trust, draw_map
from clareo.types import Assessment, Percept, Restoration

WORDS = ("caption", "prompt")
ABOUT_FILES = ("strip", "frame")  # what is read and written, of no concern to `restore`
DECISIONS = ("weights", "detail", "ask", "steps", "seed", "upscale", "tile", "precision", *WORDS, *ABOUT_FILES)
LONGEST = 255  # bytes of a file's name


@dataclass(frozen=True)
class Job:
    """One photo, where it goes, and the keywords of `clareo.restore` that it is restored with."""

    source: Path
    target: Path
    sidecar: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trust_map(self) -> Path:
        """Return where the map of what was kept goes: NAME.trust.png."""
        return self.beside("trust")

    def beside(self, name: str) -> Path:
        """Return where a picture that is no photo goes: NAME.``name``.png."""
        return self.sidecar.with_name(f"{self.sidecar.name.removesuffix('.clareo.json')}.{name}.png")


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a restoration, or the reason why there is none."""

    job: Job
    restoration: Restoration | None = None
    error: str = ""
    skipped: bool = False  # finished by an earlier run
    byproducts: Mapping[str, Path] = field(default_factory=dict)  # that were written, by name
    warnings: tuple[str, ...] = ()  # what could not be kept

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        if self.skipped:
            return {"input": str(self.job.source), "output": str(self.job.target), "skipped": True}
        done = self.restoration
        if done is None:
            return {"input": str(self.job.source), "error": self.error}
        return {
            "input": str(self.job.source),
            "output": str(self.job.target),
            "seconds": round(done.seconds, 3),
            "system": done.system,
            "preset": done.preset,
            "plan": done.plan.to_json(),
            "percept": done.percept.to_json(),
            "before": _assessed(done.before),
            "after": None if done.after is None else {"score": done.after.score},
            "trust": None if done.trust is None else {"score": round(done.trust, 3)},
            **({"byproducts": {k: str(path) for k, path in self.byproducts.items()}} if self.byproducts else {}),
            "warnings": list(self.warnings),
        }


def _assessed(assessment: Assessment | None) -> dict[str, Any] | None:
    if assessment is None:
        return None
    return {"score": assessment.score, "degradations": dict(assessment.degradations)}


# --- which file goes where -------------------------------------------------------------------------------------------


def find_photos(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return each photo with its place below the folder it was found in; files are taken as they are."""
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if not path.is_dir():
            found.append((path, Path(path.name)))
            continue
        try:
            inside = list_photos(path)
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise PhotoError(msg) from error
        if not inside:
            msg = f"{path}: no photos in this folder (looked for {', '.join(sorted(SUFFIXES))})"
            raise PhotoError(msg)
        found += [(p, p.relative_to(path)) for p in inside]
    return found


def make_jobs(paths: Sequence[Path], out: Path, options: Mapping[str, Any], *, all_frames: bool = False) -> list[Job]:
    """Plan a batch: OUT is a file for one photo when it has a photo's suffix, else a folder."""
    photos = find_photos(paths)
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        if len(photos) != 1:
            msg = f"{out} is one file, but there are {len(photos)} photos; give a folder"
            raise UsageError(msg)
        pairs = [(photos[0][0], out)]
    else:
        pairs = [(source, out / place) for source, place in _apart(photos)]
    jobs = [job for pair in pairs for job in _frames(*pair, options, all_frames=all_frames)]
    twice = [str(target) for target, count in Counter(job.target for job in jobs).items() if count > 1]
    if twice:
        msg = f"several photos would be written to {', '.join(twice)}; restore their folders one by one"
        raise UsageError(msg)
    stems = Counter(job.target.with_suffix("") for job in jobs)
    return [replace(job, sidecar=_sidecar(job.target, stems[job.target.with_suffix("")] == 1)) for job in jobs]


def _apart(photos: Sequence[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Name the outputs; a.gif beside a.png becomes a.gif.png."""
    count = Counter(output_place(place) for _, place in photos)
    return [
        (source, new if count[new] == 1 or new.name == place.name else place.with_name(place.name + new.suffix))
        for source, place in photos
        for new in (output_place(place),)
    ]


def _frames(source: Path, target: Path, options: Mapping[str, Any], *, all_frames: bool) -> list[Job]:
    """Make one job of a photo, or one of each frame: NAME-0001 and so on. What cannot be read fails as one."""
    count = 1
    if all_frames:
        with contextlib.suppress(ClareoError):  # said when the job is done
            count = count_frames(source)
    if count == 1:
        return [Job(source, target, target, options)]
    names = [target.with_name(f"{target.stem}-{number + 1:04}{target.suffix}") for number in range(count)]
    return [Job(source, name, name, {**options, "frame": number}) for number, name in enumerate(names)]


def with_percept(jobs: Sequence[Job], photo: str | None, percept: Percept | None) -> list[Job]:
    """Give the percept of a sidecar to the photo (sha256) that it was about; the others are looked at themselves."""
    if percept is None:
        return list(jobs)
    about = [photo is None or (job.source.is_file() and file_hash(job.source) == photo) for job in jobs]
    told = [replace(job, options={**job.options, "percept": percept}) for job in jobs]
    return [new if meant else job for new, job, meant in zip(told, jobs, about, strict=True)]


def _sidecar(target: Path, alone: bool) -> Path:  # noqa: FBT001
    """NAME.clareo.json; with the suffix in NAME where two photos differ in nothing else. Long names are cut."""
    name, ending = target.stem if alone else target.name, ".clareo.json"
    if len(os.fsencode(name + ending)) > LONGEST:
        mark = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
        name = os.fsencode(name)[: LONGEST - len(mark + ending)].decode("utf-8", "ignore") + mark
    return target.with_name(name + ending)


# --- the work --------------------------------------------------------------------------------------------------------


def run(
    jobs: Sequence[Job],
    system: System,
    *,
    overwrite: bool = False,
    resume: bool = False,
    keep_going: bool = True,
    byproducts: bool = False,
) -> Iterator[Outcome]:
    """Do the jobs in order, and yield what became of each; write what systems see beside photos where asked to."""
    for job in jobs:
        try:
            yield _one(job, system, overwrite=overwrite, resume=resume, byproducts=byproducts)
        except UsageError:
            raise  # the same for every photo
        except ClareoError as error:
            yield Outcome(job, error=_named(str(error), job.source, job.target))
            if not keep_going:
                return
        except (MemoryError, RuntimeError) as error:  # torch says so when memory runs out
            reason = " ".join(str(error).split()) or "not enough memory"
            yield Outcome(job, error=_named(reason, job.source, job.target))
            if not keep_going:
                return


def _named(reason: str, source: Path, *others: Path) -> str:
    """See to it that a reason names its photo, or a file that belongs to it."""
    named = any(str(path) in reason for path in (source, *others))
    return reason if named else f"{source}: {reason}"


def _one(job: Job, system: System, *, overwrite: bool, resume: bool, byproducts: bool) -> Outcome:
    if resume and not overwrite and job.target.exists() and _finished(job, system):
        return Outcome(job, skipped=True)
    _refuse_to_replace(job.target, overwrite=overwrite or resume)
    if job.target.resolve() == job.source.resolve():
        msg = f"{job.source}: would be overwritten by its own restoration; choose another output"
        raise PhotoError(msg)
    reading = {k: job.options[k] for k in ("max_megapixels", "frame") if k in job.options}
    photo = read_photo(job.source, **reading)
    photo = photo.stripped() if job.options.get("strip") else photo
    done = restore(photo, system=system, **{k: v for k, v in job.options.items() if k not in ABOUT_FILES})
    write_photo(done.tensor, photo, job.target)
    if done.kept is not None and done.trust is not None:
        with atomic(job.trust_map) as partial:
            draw_map(Trust(done.trust, done.kept), done.tensor).save(partial, "PNG")
    shown = {name: job.beside(name) for name in done.byproducts} if byproducts else {}
    for name, path in shown.items():
        write_photo(done.byproducts[name], Photo(done.byproducts[name]), path)
    _write_sidecar(job, system, done)
    return Outcome(job, done, byproducts=shown, warnings=photo.notes)


def _write_sidecar(job: Job, system: System, done: Restoration) -> None:
    account = {
        "clareo": clareo.__version__,
        "input": {"name": job.source.name, "sha256": file_hash(job.source)},
        "output": {"name": job.target.name, "sha256": file_hash(job.target)},
        "system": done.system,
        "preset": system.source or done.preset,
        "weights_sha256": system.fingerprint,
        "asked": _decided(job.options),
        "plan": done.plan.to_json(),
        "percept": done.percept.to_json(),
        "before": _assessed(done.before),
        "after": _assessed(done.after),
        "trust": None if done.trust is None else round(done.trust, 3),
    }
    with atomic(job.sidecar) as partial:
        partial.write_text(json.dumps(account, indent=1), encoding="utf-8")


def _finished(job: Job, system: System) -> bool:
    """Tell whether a run with the same photo, weights and version has left this very output."""
    try:
        account = json.loads(job.sidecar.read_text(encoding="utf-8"))
        return bool(
            account["clareo"] == clareo.__version__
            and account["weights_sha256"] == system.fingerprint
            and account["input"]["sha256"] == file_hash(job.source)
            and account["output"]["sha256"] == file_hash(job.target)
            and _same_decisions(account, job.options)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _same_decisions(account: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Compare what the caller decides with what was decided then."""
    if options.get("plan") is None:
        return bool(account["asked"] == _decided(options))
    words = {name: options[name] for name in WORDS if options.get(name) is not None}
    percept = options.get("percept")
    if percept is not None:
        same_words = account["percept"] == {**percept.to_json(), **words}
    else:
        same_words = words == {name: account["asked"][name] for name in WORDS if name in account["asked"]}
    same_files = all(account["asked"].get(name) == options.get(name) for name in ABOUT_FILES)
    return bool(account["plan"] == options["plan"].to_json() and same_words and same_files)


def _decided(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the caller decided that moves the result, as JSON gives it back; what was left open is not there."""
    told = {name: options[name] for name in DECISIONS if options.get(name) is not None}
    told |= {name: options[name].to_json() for name in ("plan", "percept") if options.get(name) is not None}
    if told.get("weights") == AUTO:
        del told["weights"]  # as if nothing had been said
    decided: dict[str, Any] = json.loads(json.dumps(told))
    return decided


# --- assessing -------------------------------------------------------------------------------------------------------


def assess_batch(
    paths: Sequence[Path], max_megapixels: float = MAX_MEGAPIXELS
) -> Iterator[tuple[Path, Assessment | None, str]]:
    """Assess photos and folders of photos: the path, and an assessment or the reason why there is none."""
    for path, _ in find_photos(paths):
        try:
            yield path, assess(path, max_megapixels), ""
        except ClareoError as error:
            yield path, None, _named(str(error), path)


# --- degrading -------------------------------------------------------------------------------------------------------


def degrade_batch(
    paths: Sequence[Path], out: Path, recipe: str, seed: int, count: int, *, overwrite: bool = False
) -> Iterator[tuple[str, str]]:
    """Degrade photos into a folder, each with NAME.record.json beside it; yield (what was done, what went wrong)."""
    record = Record.from_json(Path(recipe).read_text(encoding="utf-8")) if recipe.endswith(".json") else None
    if record is None:
        find_recipe(recipe)  # a wrong name is told before the first photo
    if count < 1:
        msg = f"count must be at least 1, not {count}"
        raise UsageError(msg)
    for number, (source, place) in enumerate(find_photos(paths)):
        for version in range(count):
            name = place.with_suffix(".png") if count == 1 else place.with_name(f"{place.stem}-{version}.png")
            with_seed = seed + number * count + version
            yield _told(partial(_degrade_one, source, out / name, recipe, with_seed, record, overwrite=overwrite))


def sheet_batch(paths: Sequence[Path], out: Path, seed: int, *, overwrite: bool = False) -> Iterator[tuple[str, str]]:
    """Draw the contact sheet of each photo, NAME-sheet.png; yield (what was done, what went wrong)."""
    for source, place in find_photos(paths):
        target = out / place.with_name(f"{place.stem}-sheet.png")
        yield _told(partial(_draw_sheet, source, target, seed, overwrite=overwrite))


def _told(work: Callable[[], str]) -> tuple[str, str]:
    """Do one photo's work; return (what was done, what went wrong). A wrong call fails for all photos alike."""
    try:
        return work(), ""
    except UsageError:
        raise
    except ClareoError as error:
        return "", str(error)


def _draw_sheet(source: Path, target: Path, seed: int, *, overwrite: bool) -> str:
    _refuse_to_replace(target, overwrite=overwrite)
    sheet = contact_sheet(read_photo(source).pixels[0], seed=seed)
    with atomic(target) as unfinished:
        sheet.save(unfinished, "PNG")
    return str(target)


def _refuse_to_replace(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        msg = f"{target}: exists already; --overwrite replaces it"
        raise PhotoError(msg)


def _degraded(source: Path, recipe: str, seed: int, record: Record | None) -> Degraded:
    if record is None:
        return degrade(source, recipe, seed)
    return Degraded(record.apply(read_photo(source).pixels[0]), record)


def _degrade_one(source: Path, target: Path, recipe: str, seed: int, record: Record | None, *, overwrite: bool) -> str:
    made = _degraded(source, recipe, seed, record)
    _refuse_to_replace(target, overwrite=overwrite)
    write_photo(made.tensor[None], Photo(made.tensor[None]), target)
    with atomic(target.with_suffix(".record.json")) as unfinished:
        unfinished.write_text(made.record.to_json(), encoding="utf-8")
    return f"{target}  from {source}: {made.record.prompt()}"
