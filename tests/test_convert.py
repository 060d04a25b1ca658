"""Weights out of pickles: only plain tensors, in a process that can do nothing else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clareo import unpickle
from clareo.convert import convert, main
from clareo.errors import CheckpointError, UsageError


class Evil:
    """Calls what it is given when it is unpickled."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call, self.arguments


@pytest.mark.slow
def test_plain_tensors_come_across(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.ones(2, dtype=torch.float16), "c": torch.arange(3)}
    torch.save({"state_dict": tensors, "epoch": 3, "rate": 0.1}, tmp_path / "run.ckpt")
    out = tmp_path / "run.safetensors"
    assert main([str(tmp_path / "run.ckpt"), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}  3 tensors\n"
    found = load_file(out)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with pytest.raises(CheckpointError, match="exists already"):
        convert(tmp_path / "run.ckpt", out)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "bare"])
def test_a_malicious_pickle_is_refused_and_not_run(form: str, tmp_path: Path) -> None:
    source, trace = tmp_path / "evil.pth", tmp_path / "ran"
    bait = {"weight": Evil(os.system, f"touch {trace}")}
    if form == "zip":
        torch.save(bait, source)
    else:
        source.write_bytes(pickle.dumps(bait))
    with pytest.raises(CheckpointError, match=r"evil\.pth: holds more than tensors.*it was not run"):
        convert(source, tmp_path / "evil.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pth"]


@pytest.mark.slow
def test_a_tensor_that_unpacks_to_far_more_than_its_file(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1).expand(10**11)}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="unpacks to far more than its size"):
        convert(tmp_path / "bomb.pth", tmp_path / "bomb.safetensors")
    assert not (tmp_path / "bomb.safetensors").exists()


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("import os; os.system('echo ran')", "os.system"),
        ("import subprocess; subprocess.run(['echo', 'ran'])", "subprocess.Popen"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "socket"),
        ("open('trace', 'w').write('ran')", "open"),
        ("import os; os.remove('there')", "os.remove"),
        ("import os; os.execv('/bin/echo', ['echo', 'ran'])", "os.exec"),
        ("import ctypes; ctypes.CDLL(None)", "ctypes.dlopen"),
    ],
)
def test_the_second_guard_holds_where_the_first_would_fail(code: str, event: str, tmp_path: Path) -> None:
    """Whatever got past the reader of plain weights could neither start a program, nor connect, nor write."""
    (tmp_path / "there").touch()
    guard = "import sys, ctypes, socket, subprocess\nfrom clareo import unpickle\nsys.addaudithook(unpickle._refuse)\n"
    done = subprocess.run(
        [sys.executable, "-c", guard + code], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert f"tried to use {event}" in done.stderr
    assert "ran" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_which_tensors_are_meant() -> None:
    plain = {"a": torch.ones(1)}
    assert unpickle.choose(plain, "") == plain
    assert unpickle.choose({"state_dict": plain, "epoch": 1}, "") == plain
    assert unpickle.choose({"x": {"y": plain}}, "x.y") == plain
    for found, part, reason in (
        ({"params": plain, "params_ema": plain}, "", "name one with --part: params, params_ema"),
        ({"epoch": 1, "names": ["a"]}, "", r"no plain set of tensors, but epoch \(int\), names \(list\)"),
        (torch.ones(1), "", "but Tensor"),
        ({}, "", "but dict"),
        ({"a": torch.ones(2, 2).to_sparse()}, "", r"a \(Tensor\)"),
        (plain, "b", "has no part 'b'"),
    ):
        with pytest.raises(ValueError, match=reason):
            unpickle.choose(found, part)


def test_wrong_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere.pth"), "-o", str(tmp_path / "a.safetensors")]) == 1
    assert "nowhere.pth: no such file" in capsys.readouterr().err
    assert main([str(tmp_path), "-o", str(tmp_path / "a.pth")]) == 2
    with pytest.raises(UsageError, match=r"written as \.safetensors"):
        convert(tmp_path / "a.pth", tmp_path / "a.bin")
