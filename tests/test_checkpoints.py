"""Weights are what they say, fit exactly, and are never pickles."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clareo.checkpoints import Checkpoint, fill, find, load_checkpoint, load_packaged, packaged
from clareo.errors import CheckpointError, UnknownNameError
from clareo.systems import unires


def test_packaged_weights_are_intact_small_and_documented() -> None:
    total = 0
    for name, entry in packaged().items():
        checkpoint = load_packaged(name)
        assert sum(tensor.numel() for tensor in checkpoint.tensors.values()) == entry.parameters
        assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.float16}
        assert {"settings", "recipe", "commit", "data", "scores"} <= set(checkpoint.metadata)
        card = Path(__file__).parent.parent / "docs" / "models" / f"{name}.md"
        assert entry.sha256 in card.read_text()
        total += entry.path.stat().st_size
    assert total < 90e6
    assert packaged()["unires-nano"].parameters <= 12_000_000


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    entry = packaged()["unires-nano"]
    altered = bytearray(entry.path.read_bytes())
    altered[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(altered)
    with pytest.raises(CheckpointError, match="not the file that was shipped"):
        load_checkpoint(tmp_path / "weights.safetensors", entry.sha256)


def test_every_missing_unknown_and_misshapen_tensor_is_named() -> None:
    shape = {"channels": [8, 8], "blocks": [1, 1], "width": 8, "text_width": 8}
    network = unires.build_nano(unires.NanoSettings.from_json({"network": shape})).network
    tensors = dict(network.state_dict())
    gone = tensors.pop("backbone.enter.bias")
    tensors |= {"backbone.entrance.bias": gone, "backbone.leave.bias": torch.zeros(3)}
    with pytest.raises(CheckpointError) as caught:
        fill(network, Checkpoint(tensors, {}, "", Path("x.safetensors")))
    said = str(caught.value)
    assert "missing: backbone.enter.bias" in said
    assert "unknown: backbone.entrance.bias" in said
    assert "backbone.leave.bias (3,) not (147,)" in said


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="no settings"):
        unires.load(str(tmp_path / "a.safetensors"))
    for name in ("a.pt", "a b.CKPT", "a.bin"):
        with pytest.raises(CheckpointError, match="pickled") as caught:
            load_checkpoint(tmp_path / name)
        command = shlex.split(str(caught.value).partition("convert them: ")[2])
        assert command[:3] == ["python", "-m", "clareo.convert"]
        assert command[3:] == [str(tmp_path / name), "-o", str((tmp_path / name).with_suffix(".safetensors"))]
    with pytest.raises(CheckpointError, match="no such"):
        load_checkpoint(tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="no hub name"):
        find("not/a/hub/name")
    with pytest.raises(UnknownNameError):
        load_packaged("unires-micro")


def test_a_packaged_file_can_be_loaded_by_its_path() -> None:
    entry = packaged()["unires-nano"]
    system = unires.load(str(entry.path))
    assert system.fingerprint == entry.sha256
    assert replace(system, fingerprint="").preset == "nano"
