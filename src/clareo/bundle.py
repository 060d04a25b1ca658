"""Weights for machines without network: a folder or zip with hashes and licences, made here and checked there."""

from __future__ import annotations

import fnmatch
import functools
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import clareo
from clareo import hub
from clareo.catalogue import foreign
from clareo.checkpoints import BUNDLE, file_hash, find, load_packaged, packaged, stream_hash, system_of
from clareo.errors import CheckpointError, UsageError
from clareo.io import atomic

README = """Weights for clareo {version}. On the machine where they are used:

    clareo models verify THIS_FOLDER
    export {variable}=THIS_FOLDER        (names of the hub are then looked up here, and nothing is downloaded)
    clareo restore ... --offline --preset THIS_FOLDER/NAME

{licences}
"""


def make_bundle(names: Sequence[str], out: Path) -> dict[str, Any]:
    """Copy models (packaged ones, hub names, folders) to a new folder or .zip; return its account."""
    if out.exists() and (out.is_file() or any(out.iterdir())):
        msg = f"{out}: exists already"
        raise UsageError(msg)
    models: dict[str, dict[str, str]] = {}
    files: dict[str, Path] = {}
    for name in names or sorted(packaged()):
        model, parts = _model(name)
        folder = model["folder"]
        if folder in models:
            msg = f"two models would be called {folder}: {models[folder]['name']} and {name}"
            raise UsageError(msg)
        models[folder] = model
        files |= {f"{folder}/{part}": path for part, path in parts.items()}
    listed = {place: {"sha256": file_hash(path), "bytes": path.stat().st_size} for place, path in files.items()}
    account = {"clareo": clareo.__version__, "models": models, "files": listed}
    licences = "\n".join(
        f"{model['name']}\n    {model['licence']}; trained on {model['trained_on']}" for model in models.values()
    )
    texts = {
        "README.txt": README.format(version=clareo.__version__, variable=hub.MODELS, licences=licences),
        BUNDLE: json.dumps(account, indent=1),  # last: what has none is not whole
    }
    (_write_zip if out.suffix.lower() == ".zip" else _write_folder)(out, files, texts)
    return account


def _model(name: str) -> tuple[dict[str, str], dict[str, Path]]:
    """Return what is to be said about a model, and its files by their place in its folder."""
    if name in packaged():
        entry = packaged()[name]
        load_packaged(name)  # intact
        said = {"system": entry.system, "licence": entry.licence, "trained_on": entry.trained_on}
        return {"name": name, "folder": name, **said}, {"weights.safetensors": entry.path}
    place = find(name)
    folder = hub.folder_name(name) if not Path(name).expanduser().exists() else place.resolve().name
    parts = {str(path.relative_to(place).as_posix()): path for path in _files(place)}
    if not any(part.endswith(".safetensors") for part in parts):
        msg = f"{name}: holds no safetensors"
        raise CheckpointError(msg)
    known = foreign().get(name)
    said = {
        "system": system_of(place),
        "licence": known.licence if known else "not known; see its card",
        "trained_on": known.trained_on if known else "not known; see its card",
    }
    return {"name": name, "folder": folder, **said}, parts


def _files(place: Path) -> Iterator[Path]:
    for path in sorted(place.rglob("*")):
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in hub.WANTED):
            yield path


def _write_folder(out: Path, files: dict[str, Path], texts: dict[str, str]) -> None:
    try:
        for place, path in files.items():
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / place)
        for place, text in texts.items():
            (out / place).write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{out}: cannot be written ({error.strerror or error})"
        raise CheckpointError(msg) from error


def _write_zip(out: Path, files: dict[str, Path], texts: dict[str, str]) -> None:
    with atomic(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for place, path in files.items():
            archive.write(path, place)
        for place, text in texts.items():
            archive.writestr(place, text)


# --- there -----------------------------------------------------------------------------------------------------------


def verify_bundle(place: Path) -> list[str]:
    """Return what is wrong with a bundle, folder or zip; nothing if every file is what it was."""
    if not place.exists():
        msg = f"{place}: no such folder or zip"
        raise CheckpointError(msg)
    try:
        if place.is_dir():
            there = {path.relative_to(place).as_posix(): path for path in sorted(place.rglob("*")) if path.is_file()}
            return list(_wrong(_account(place, there.get(BUNDLE)), {name: path.open for name, path in there.items()}))
        with zipfile.ZipFile(place) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            text = archive.read(BUNDLE) if BUNDLE in names else None
            openers = {name: functools.partial(_open_member, archive, name) for name in names}
            return list(_wrong(_parsed(place, text), openers))
    except (OSError, zipfile.BadZipFile) as error:
        msg = f"{place}: cannot be read ({error})"
        raise CheckpointError(msg) from error


def _open_member(archive: zipfile.ZipFile, name: str, _: str) -> IO[bytes]:
    return archive.open(name)


def _account(place: Path, path: Path | None) -> dict[str, Any]:
    return _parsed(place, None if path is None else path.read_bytes())


def _parsed(place: Path, text: bytes | None) -> dict[str, Any]:
    if text is None:
        msg = f"{place}: no bundle, or not a whole one: it has no {BUNDLE}"
        raise CheckpointError(msg)
    try:
        files: dict[str, Any] = json.loads(text)["files"]
        return {name: str(known["sha256"]) for name, known in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{place}: its {BUNDLE} cannot be read"
        raise CheckpointError(msg) from error


def _wrong(known: dict[str, Any], openers: dict[str, Any]) -> Iterator[str]:
    for name, sha256 in known.items():
        if name not in openers:
            yield f"{name}: missing"
            continue
        with openers[name]("rb") as file:
            if stream_hash(file) != sha256:
                yield f"{name}: is not the file that was bundled"
    for name in sorted(openers.keys() - known.keys() - {BUNDLE, "README.txt"}):
        yield f"{name}: does not belong to the bundle"
