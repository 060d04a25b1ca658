"""What several tests need: a real photo, a loaded system, the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

import clareo
from clareo import cli
from clareo.system import System


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """A photo of the public domain that scikit-image carries: (128, 160, 3)."""
    return np.ascontiguousarray(data.astronaut()[20:148, 150:310])


@pytest.fixture(scope="session")
def photo(astronaut: NDArray[np.uint8]) -> torch.Tensor:
    """The same as (1, 3, 128, 160)."""
    return torch.from_numpy(astronaut).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="session")
def shared_photos() -> torch.Tensor:
    """Twenty different pieces (20, 3, 128, 128) of free photos that scikit-image carries."""
    pieces = [
        torch.from_numpy(whole[top : top + 128, left : left + 128].copy()).permute(2, 0, 1).float() / 255
        for whole in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
        for top, left in ((0, 0), (0, 200), (100, 100), (150, 220), (170, 40))
    ]
    return torch.stack(pieces)


@pytest.fixture(scope="session")
def unires() -> System:
    return clareo.load_system("unires")


@dataclass
class Said:
    status: int
    out: str
    err: str


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run `clareo ...` in this process."""

    def run(*arguments: str | Path) -> Said:
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as leave:
            status = int(leave.code or 0)
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run
