"""Which file goes where: one job a photo. Folders are mirrored, and no two jobs write the same file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clareo.checkpoints import file_hash
from clareo.errors import ClareoError, PhotoError, UsageError
from clareo.io import SUFFIXES, count_frames, output_place
from clareo.types import Percept

SIDECAR = ".clareo.json"
OURS = ".clareo-"  # files and folders of a run that is at work, or was killed
LONGEST = 255  # bytes of a file name


@dataclass(frozen=True)
class Job:
    """One photo, where it goes, and the keywords of `clareo.restore` that it is restored with."""

    source: Path
    target: Path
    sidecar: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    trouble: str = ""  # why it cannot be done, where that is known beforehand

    @property
    def trust_map(self) -> Path:
        """Return where the map of what was kept goes: NAME.trust.png."""
        return self.beside("trust")

    def beside(self, name: str) -> Path:
        """Return where a picture that is no photo goes: NAME.``name``.png."""
        return self.sidecar.with_name(f"{self.sidecar.name.removesuffix(SIDECAR)}.{name}.png")


@dataclass(frozen=True)
class Found:
    """A photo and its place below the folder it was found in; or a folder that could not be looked into."""

    path: Path
    place: Path
    trouble: str = ""


def find_photos(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return each photo with its place below the folder it was found in; files are taken as they are."""
    found = [one for path in paths for one in look_through(path)]
    for one in found:
        if one.trouble:
            raise PhotoError(one.trouble)
    return [(one.path, one.place) for one in found]


def look_through(path: Path, out: Path | None = None) -> list[Found]:
    """Return the photos of a folder in the order of their paths, but none below ``out``; a file is taken as it is.

    Links to folders are not followed, so that no photo is found twice and no loop is walked; links to photos are.
    """
    if not path.is_dir():
        return [Found(path, Path(path.name))]
    troubles: list[OSError] = []
    found: list[Found] = []
    for name, folders, files in os.walk(path, onerror=troubles.append):
        folder = Path(name)
        folders[:] = [each for each in folders if not each.startswith(OURS) and not same_place(folder / each, out)]
        found += [Found(folder / each, (folder / each).relative_to(path)) for each in files if _photo(folder / each)]
    found += [_unreadable(error, path) for error in troubles]
    if not found:
        msg = f"{path}: no photos in this folder (looked for {', '.join(sorted(SUFFIXES))})"
        raise PhotoError(msg)
    return sorted(found, key=lambda one: one.path)


def _photo(path: Path) -> bool:
    """Tell a photo by its name. A link that leads nowhere counts, so that it is named and not passed over."""
    named = path.suffix.lower() in SUFFIXES and not path.name.startswith(OURS)
    return named and (path.is_symlink() or path.is_file())


def same_place(path: Path, other: Path | None) -> bool:
    """Tell whether two paths lead to the same place. Links that lead round and round lead nowhere."""
    return other is not None and os.path.realpath(path) == os.path.realpath(other)


def _unreadable(error: OSError, top: Path) -> Found:
    folder = Path(str(error.filename or top))
    if folder == top:
        msg = f"{top}: {error.strerror}"
        raise PhotoError(msg) from error
    return Found(folder, folder.relative_to(top), f"{folder}: {error.strerror}")


def make_jobs(paths: Sequence[Path], out: Path, options: Mapping[str, Any], *, all_frames: bool = False) -> list[Job]:
    """Plan a batch: OUT is a file for one photo when it has a photo's suffix, else a folder.

    Where OUT lies inside a folder of photos, what is in it is not restored again. ``all_frames`` of an animation or of
    a file with pages become a photo each.
    """
    alone = out.suffix.lower() in SUFFIXES and not out.is_dir()
    found = [one for path in paths for one in look_through(path, None if alone else out)]
    if alone and len(found) != 1:
        msg = f"{out} is one file, but there are {len(found)} photos; give a folder"
        raise UsageError(msg)
    pairs = [(found[0], out)] if alone else [(one, out / place) for one, place in _apart(found)]
    jobs = [job for pair in pairs for job in _frames(*pair, options, all_frames=all_frames)]
    targets = [job.target for job in jobs]
    twice = [str(target) for target, count in Counter(targets).items() if count > 1]
    if twice:
        msg = f"several photos would be written to {', '.join(twice)}; restore their folders one by one"
        raise UsageError(msg)
    return [replace(job, sidecar=sidecar) for job, sidecar in zip(jobs, _sidecars(targets), strict=True)]


def _apart(found: Sequence[Found]) -> list[tuple[Found, Path]]:
    """Name the outputs; a.gif beside a.png becomes a.gif.png."""
    count = Counter(output_place(one.place) for one in found)
    named = []
    for one in found:
        new = output_place(one.place)
        taken = count[new] > 1 and new.name != one.place.name
        named.append((one, one.place.with_name(one.place.name + new.suffix) if taken else new))
    return named


def _frames(one: Found, target: Path, options: Mapping[str, Any], *, all_frames: bool) -> list[Job]:
    """Make one job of a photo, or one of each frame: NAME-0001 and so on. What cannot be read fails as one."""
    count = 1
    if all_frames:
        with contextlib.suppress(ClareoError):  # said when the job is done
            count = count_frames(one.path)
    if count == 1:
        return [Job(one.path, target, target, options, one.trouble)]
    names = [target.with_name(f"{target.stem}-{number + 1:04}{target.suffix}") for number in range(count)]
    return [Job(one.path, name, name, {**options, "frame": number}) for number, name in enumerate(names)]


def _sidecars(targets: Sequence[Path]) -> list[Path]:
    """NAME.clareo.json; with the suffix in NAME where two photos differ in nothing else."""
    stems = Counter(target.with_suffix("") for target in targets)
    plain = [target.stem if stems[target.with_suffix("")] == 1 else target.name for target in targets]
    names = Counter(target.with_name(name) for target, name in zip(targets, plain, strict=True))
    return [
        _named(target, (name if names[target.with_name(name)] == 1 else target.name) + SIDECAR)
        for target, name in zip(targets, plain, strict=True)
    ]


def _named(target: Path, name: str) -> Path:
    """Name a file beside another; where file systems would refuse the name as too long, a hash stands for its end."""
    stem = name.removesuffix(SIDECAR)
    mark = f"~{hashlib.sha256(os.fsencode(stem)).hexdigest()[:12]}"
    room = LONGEST - len(SIDECAR)
    if len(os.fsencode(stem)) <= room:
        return target.with_name(name)
    short = os.fsencode(stem)[: room - len(mark)].decode(errors="ignore")
    return target.with_name(short + mark + SIDECAR)


def with_percept(jobs: Sequence[Job], photo: str | None, percept: Percept | None) -> list[Job]:
    """Give the percept of a sidecar to the photo (sha256) that it was about; the others are looked at themselves."""
    if percept is None:
        return list(jobs)
    about = [photo is None or _hash(job.source) == photo for job in jobs]
    told = [replace(job, options={**job.options, "percept": percept}) for job in jobs]
    return [new if meant else job for new, job, meant in zip(told, jobs, about, strict=True)]


def _hash(path: Path) -> str:
    """Return the sha256 of a file; nothing of one that cannot be read, which is told when its turn comes."""
    try:
        return file_hash(path)
    except OSError:
        return ""
