"""One photo of a batch: claimed, read, restored, written, and accounted for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image

from clareo.batch.jobs import Job, same_place
from clareo.batch.locks import TakenError, claim, tidy
from clareo.batch.memory import Budget, Fit, Load, fit_into
from clareo.batch.outcome import Outcome
from clareo.batch.pictures import KEPT, draw_pictures, picture_of
from clareo.batch.resume import ABOUT_FILES, account_of, finished
from clareo.batch.turns import Turn, at_once
from clareo.checkpoints import file_hash
from clareo.devices import hand_back_freed_memory
from clareo.errors import PhotoError
from clareo.io import MAX_MEGAPIXELS, Photo, atomic, photo_bits, photo_size, read_photo, write_photo
from clareo.restore import restore
from clareo.system import System
from clareo.trust import Trust, draw_map
from clareo.types import Restoration
from clareo.walk import draws_noise


@dataclass(frozen=True)
class Bench:
    """What the photos of a batch share: the weights, the memory, the processor, and how to go about it."""

    system: System
    budget: Budget
    turn: Turn = at_once  # in which the network is at work
    together: int = 1  # photos that are computed at once
    precision: str = "fp32"
    overwrite: bool = False
    resume: bool = False
    byproducts: bool = False  # write what the system sees beside a photo
    thumbnails: int = 0  # px of the pictures for a report; 0: none


def restore_one(job: Job, bench: Bench) -> Outcome:
    """Restore a photo into its place, unless that was done before, or is being done by another process."""
    if job.trouble:
        raise PhotoError(job.trouble)
    done = _done_before(job, bench)
    if done is not None:
        tidy(job.target)
        return done
    refuse_to_replace(job.target, overwrite=bench.overwrite or bench.resume)
    if same_place(job.target, job.source):
        msg = f"{job.source}: would be overwritten by its own restoration; choose another output"
        raise PhotoError(msg)
    fit = _planned(job, bench)
    with bench.budget.taken(fit.size):
        read = _read(job)
        try:
            with claim(job.target) as folder:
                done = _done_before(job, bench)  # by another process, while this one was reading
                if done is not None:
                    return done
                refuse_to_replace(job.target, overwrite=bench.overwrite or bench.resume)
                return _restored(job, bench, folder, read, fit)
        except TakenError as error:
            return Outcome(job, elsewhere=str(error))


def _done_before(job: Job, bench: Bench) -> Outcome | None:
    if not bench.resume or bench.overwrite or not job.target.exists():
        return None
    account = finished(job, bench.system)
    if account is None:
        return None
    if not bench.thumbnails:
        return Outcome(job, skipped=True)
    beside = {KEPT: job.trust_map} if "trust_map" in account else {}
    pictures = picture_of(job.source, job.target, beside, bench.thumbnails)
    return Outcome(job, skipped=True, account=account, pictures=pictures)


def _planned(job: Job, bench: Bench) -> Fit:
    """Return how a photo fits into memory. What the caller decided stays, whether it fits or not."""
    plan, options = job.options.get("plan"), job.options
    try:
        (height, width), bits = photo_size(job.source), photo_bits(job.source)
    except PhotoError:
        return Fit(0)  # reading it will say the same, and better
    if height * width > 1e6 * options.get("max_megapixels", MAX_MEGAPIXELS):
        return Fit(0)  # likewise
    upscale = plan.upscale if plan else options.get("upscale", 1)
    load = Load(height * width, upscale, bench.precision, bits, bench.system.appetite)
    if plan is not None:
        return Fit(load.streamed(plan.tile) if plan.streamed else load.peak(plan.tile))
    if options.get("tile") is not None:
        return Fit(load.peak(options["tile"]))
    return fit_into(load, bench.budget.free, can_stream=not draws_noise(bench.system))


@dataclass
class _Read:
    """A photo as it was read; its pixels are let go as soon as nothing needs them any more."""

    sha256: str
    photo: Photo

    def let_go(self) -> None:
        """Keep everything but the pixels: of a large photo they are what writing needs the room for."""
        self.photo = replace(self.photo, pixels=self.photo.pixels[..., :1, :1].clone())


def _read(job: Job) -> _Read:
    """Read a photo with its sha256. What changes in that moment is neither the old photo nor the new one."""
    reading = {k: job.options[k] for k in ("max_megapixels", "frame") if k in job.options}
    before = _state(job.source)
    photo = read_photo(job.source, **reading)
    photo = photo.stripped() if job.options.get("strip") else photo
    source = _hashed(job.source)
    if _state(job.source) != before:
        msg = f"{job.source}: was changed while it was being read"
        raise PhotoError(msg)
    return _Read(source, photo)


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return what moves when a file is written; None where there is none, of which reading says more."""
    with contextlib.suppress(OSError):
        told = path.stat()
        return told.st_ino, told.st_size, told.st_mtime_ns
    return None


def _hashed(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        msg = f"{path}: {error.strerror or error}"
        raise PhotoError(msg) from error


def _restored(job: Job, bench: Bench, folder: Path, read: _Read, fit: Fit) -> Outcome:
    options = {name: value for name, value in job.options.items() if name not in ABOUT_FILES}
    options |= {} if fit.tile is None else {"tile": fit.tile}
    options |= {"streamed": True} if fit.streamed else {}
    done = bench.turn(lambda: restore(read.photo, system=bench.system, **options))
    hand_back_freed_memory()
    done = _with_why(done, fit.why) if fit.why else done
    pictures = draw_pictures(read.photo, done, bench.thumbnails) if bench.thumbnails else None
    read.let_go()
    with _about(job, folder):
        written = _written(job, folder, read.photo, done, byproducts=bench.byproducts)
        warnings = (*read.photo.notes, *done.warnings)
        account = account_of(job, bench.system, done, read.sha256, written, warnings)
        _move(job, folder, written, account)
    shown = {name: job.beside(name) for name in done.byproducts} if bench.byproducts else {}
    done = done.let_go(partial(PIL.Image.open, job.target))  # outcomes wait for their turn, and for the next photo
    return Outcome(job, done, pictures=pictures, byproducts=shown, warnings=warnings)


def _with_why(done: Restoration, told: str) -> Restoration:
    why = f"{done.plan.why}; {told}" if done.plan.why else told
    return replace(done, plan=replace(done.plan, why=why))


def _written(job: Job, folder: Path, photo: Photo, done: Restoration, *, byproducts: bool) -> dict[str, Path]:
    """Write what belongs to a photo into the folder of its claim: nothing of it is seen before it is whole."""
    staged = _staged(job, folder)
    written = {"output": write_photo(done.tensor, photo, staged["output"])}
    if done.kept is not None and done.trust is not None:
        written["trust_map"] = staged["trust_map"]
        with atomic(written["trust_map"]) as partial:
            draw_map(Trust(done.trust, done.kept), done.tensor).save(partial, "PNG")
    for name, image in done.byproducts.items() if byproducts else ():
        written[name] = write_photo(image, Photo(image), folder / f"{name}.png")
    return written


def _move(job: Job, folder: Path, written: Mapping[str, Path], account: Mapping[str, Any]) -> None:
    """Put everything into its place, the account last: what has none is not finished."""
    sidecar = _staged(job, folder)["sidecar"]
    with atomic(sidecar) as partial:
        partial.write_text(json.dumps(account, indent=1), encoding="utf-8")
    beside = {"trust" if what == "trust_map" else what: path for what, path in written.items() if what != "output"}
    for name, path in beside.items():
        path.replace(job.beside(name))
    written["output"].replace(job.target)
    sidecar.replace(job.sidecar)


@contextlib.contextmanager
def _about(job: Job, folder: Path) -> Iterator[None]:
    """Name the place where a file was to go, not the folder in which it was made."""
    staged = _staged(job, folder)
    places = {staged["output"]: job.target, staged["trust_map"]: job.trust_map, staged["sidecar"]: job.sidecar}
    try:
        yield
    except PhotoError as error:
        said = str(error)
        for made, place in places.items():
            said = said.replace(str(made), str(place))
        raise PhotoError(said) from error
    except OSError as error:
        msg = f"{job.target}: cannot be written ({error.strerror or error})"
        raise PhotoError(msg) from error


def _staged(job: Job, folder: Path) -> dict[str, Path]:
    """Return where files are made before they are put into their places."""
    names = {"output": f"output{job.target.suffix}", "trust_map": "trust.png", "sidecar": "account.json"}
    return {what: folder / name for what, name in names.items()}


def refuse_to_replace(target: Path, *, overwrite: bool) -> None:
    """Refuse to replace a file without having been told to."""
    if target.exists() and not overwrite:
        msg = f"{target}: exists already; --overwrite replaces it"
        raise PhotoError(msg)
