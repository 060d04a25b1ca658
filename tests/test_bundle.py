"""Weights on machines without network: bundles, the list of models, and what a system does offline."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clareo import catalogue, hub
from clareo.bundle import make_bundle, verify_bundle
from clareo.checkpoints import find, load_preset, packaged
from clareo.errors import CheckpointError, UsageError
from photo_files import encoded, put, scene

Run = Callable[..., object]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What a training leaves behind, with a pickle beside it that nobody asked for."""
    folder = tmp_path / "myrun"
    folder.mkdir()
    save_file({"a": torch.ones(3)}, folder / "weights.safetensors", {"system": "mrir", "settings": "{}"})
    put(b"pickle", folder / "optimiser.pth")
    put(b"free", folder / "LICENSE")
    return folder


def test_a_bundle_is_made_checked_and_used(run_folder: Path, tmp_path: Path, run_cli: Run) -> None:
    out = tmp_path / "bundle"
    said = run_cli("models", "bundle", "unires-nano", run_folder, "-o", out)
    assert said.status == 0, said.err
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {
        *("bundle.json", "README.txt", "unires-nano/weights.safetensors"),
        *("myrun/weights.safetensors", "myrun/LICENSE"),
    }
    account = json.loads((out / "bundle.json").read_text())
    assert account["files"]["unires-nano/weights.safetensors"]["sha256"] == packaged()["unires-nano"].sha256
    assert account["models"]["unires-nano"]["licence"] == "MIT"
    assert account["models"]["myrun"]["system"] == "mrir"
    assert "MIT; trained on 1,328 photos" in (out / "README.txt").read_text()
    assert run_cli("models", "verify", out).status == 0
    photo = put(encoded(scene()), tmp_path / "a.png")
    for preset in (out, out / "unires-nano"):
        options = ("--preset", preset, "--offline", "--weights", "denoise=1", "--steps", "1", "--json", "--overwrite")
        said = run_cli("restore", photo, "-o", tmp_path / "out", *options)
        assert said.status == 0, said.err
        assert json.loads((tmp_path / "out" / "a.clareo.json").read_text())["preset"] == str(preset)


def test_what_happened_to_a_bundle_is_told_file_by_file(run_folder: Path, tmp_path: Path, run_cli: Run) -> None:
    make_bundle([str(run_folder)], tmp_path / "bundle")
    make_bundle([str(run_folder)], tmp_path / "bundle.zip")
    assert verify_bundle(tmp_path / "bundle") == verify_bundle(tmp_path / "bundle.zip") == []
    with (tmp_path / "bundle" / "myrun" / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    (tmp_path / "bundle" / "myrun" / "LICENSE").unlink()
    put(b"", tmp_path / "bundle" / "myrun" / "stranger.bin")
    faults = [
        "myrun/LICENSE: missing",
        "myrun/weights.safetensors: is not the file that was bundled",
        "myrun/stranger.bin: does not belong to the bundle",
    ]
    assert sorted(verify_bundle(tmp_path / "bundle")) == sorted(faults)
    said = run_cli("models", "verify", tmp_path / "bundle", tmp_path / "bundle.zip")
    assert said.status == 1
    assert all(fault in said.err for fault in faults)
    assert said.out == f"{tmp_path / 'bundle'}  damaged\n{tmp_path / 'bundle.zip'}  intact\n"
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(b"free", b"paid"))
    assert verify_bundle(tmp_path / "bundle.zip") == ["myrun/LICENSE: is not the file that was bundled"]


def test_things_that_are_no_bundles(run_folder: Path, tmp_path: Path, run_cli: Run) -> None:
    for place, reason in {
        tmp_path / "nowhere": "no such folder or zip",
        run_folder: "it has no bundle.json",
        put(b"no zip", tmp_path / "a.zip"): "cannot be read",
    }.items():
        with pytest.raises(CheckpointError, match=reason):
            verify_bundle(place)
    put(b"{", tmp_path / "broken" / "bundle.json")
    with pytest.raises(CheckpointError, match=r"bundle\.json cannot be read"):
        verify_bundle(tmp_path / "broken")
    with pytest.raises(UsageError, match="exists already"):
        make_bundle([], run_folder)
    with pytest.raises(UsageError, match="two models would be called myrun"):
        make_bundle([str(run_folder), str(run_folder)], tmp_path / "bundle")
    for words, reason in {("bundle",): "say where the bundle goes", ("verify",): "say which"}.items():
        said = run_cli("models", *words)
        assert (said.status, reason in said.err) == (2, True)
    empty = tmp_path / "empty"
    put(b"pickle", empty / "weights.pth")
    with pytest.raises(CheckpointError, match="holds no safetensors"):
        make_bundle([str(empty)], tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_names_of_the_hub_are_looked_up_in_a_bundle_first(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder.rename(tmp_path / "owner--model")
    make_bundle([str(tmp_path / "owner--model")], tmp_path / "bundle")
    monkeypatch.setenv(hub.MODELS, str(tmp_path / "bundle"))
    with hub.offline():
        assert find("owner/model") == tmp_path / "bundle" / "owner--model"
        with pytest.raises(CheckpointError, match="clareo models bundle owner/other"):
            find("owner/other")
    monkeypatch.setenv(hub.MODELS, str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=r"CLAREO_MODELS=.*nowhere: no such folder"):
        find("owner/model")


def test_a_bundle_without_the_system_says_what_it_holds(run_folder: Path, tmp_path: Path) -> None:
    make_bundle([str(run_folder)], tmp_path / "bundle")
    with pytest.raises(CheckpointError, match="a bundle with 0 models of unires; name one of myrun"):
        load_preset("unires", str(tmp_path / "bundle"), lambda checkpoint: checkpoint, lambda place: place)
    loaded = load_preset("mrir", str(tmp_path / "bundle"), lambda checkpoint: checkpoint, lambda place: place)
    assert loaded.path == tmp_path / "bundle" / "myrun" / "weights.safetensors"


def test_offline_on_the_command_line(tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(hub.MODELS, raising=False)
    photo = put(encoded(scene()), tmp_path / "a.png")
    said = run_cli("restore", photo, "-o", tmp_path / "out", "--preset", "owner/never-heard-of", "--offline")
    assert said.status == 1
    assert "owner/never-heard-of: not on this machine, and the network is off limits" in said.err
    assert "clareo models bundle owner/never-heard-of -o FOLDER" in said.err
    assert not hub.is_offline()


def test_every_model_tells_its_licence_and_what_it_learned_from(run_cli: Run) -> None:
    models = catalogue.list_models()
    assert {model.name for model in models} >= {*packaged(), "stable-diffusion-v1-5/stable-diffusion-v1-5"}
    for model in models:
        assert model.licence
        assert model.trained_on
    said = run_cli("models")
    for model in models:
        assert model.name in said.out
        assert model.trained_on in said.out


def test_only_what_may_be_sold(run_cli: Run) -> None:
    said = run_cli("models", "--commercial-ok", "--json")
    names = {model["name"] for model in json.loads(said.out)}
    assert "unires-nano" in names
    assert "llava-hf/llava-1.5-7b-hf" not in names
    assert {model["licence"] for model in json.loads(said.out)} <= catalogue.COMMERCIAL
    assert "not for commercial use" in run_cli("models", "llava-hf/llava-1.5-7b-hf").out
    strange = catalogue.Foreign("a/b", "nobody", "a licence that nobody has heard of", "nothing")
    assert not catalogue.may_be_sold(strange)
