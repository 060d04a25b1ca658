"""Teachers of InstanceRSR: frozen networks that see a clean photo, whose tokens a diffusion transformer is aligned to.

The paper's is DINOv2 (arXiv 2304.07193). The compact one is a small encoder that learned which pixels belong to one
thing, from procedural scenes and from segments of photos (`clareo.train.teacher`): its tokens are alike within an
instance and apart between two. Neither is there when a photo is restored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.layers import keep_size, pad_to
from clareo.checkpoints import Checkpoint, fill, find, load_packaged, load_run, packaged, ready
from clareo.errors import CheckpointError, UsageError
from clareo.perceive.published import load_network, transformers
from clareo.perceive.shapes import KINDS
from clareo.perceive.sources import Source, named
from clareo.perceive.tags import MEAN, SPREAD
from clareo.perceive.vision import fine
from clareo.toml import with_tuples
from clareo.types import Image

NAME = "teacher-nano"  # in the manifest
SYSTEM = "teacher"  # in a checkpoint
HALVINGS = 3
STRIDE = 2**HALVINGS  # px of a photo along a token


class Teacher(nn.Module, ABC):
    """A frozen network that has a token for every place of a grid."""

    width: int  # numbers in a token
    sha256: str = ""  # of its file: tokens of another teacher mean something else

    @abstractmethod
    def forward(self, clean: Image, grid: tuple[int, int]) -> torch.Tensor:
        """(B, 3, H, W), [0, 1] -> tokens (B, h * w, width), row after row."""


@dataclass(frozen=True)
class TeacherSettings:
    """Shape of the compact network."""

    channels: tuple[int, ...] = (32, 64, 96)  # at a half, a quarter and an eighth of the photo
    dilations: tuple[int, ...] = (1, 2, 1)  # of the convolutions there: 79 px are seen
    width: int = 96  # of a token

    def __post_init__(self) -> None:
        if len(self.channels) != HALVINGS or min(*self.channels, *self.dilations, self.width) < 1:
            msg = f"a teacher has {HALVINGS} halvings and no empty layer, not {self}"
            raise UsageError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> TeacherSettings:
        """Read what `to_json` wrote, or the part of it that a recipe sets."""
        return TeacherSettings(**with_tuples(plain))


class TeacherNetwork(nn.Module):
    """Strided convolutions down to an eighth, and residual ones there.

    Beside the tokens it has what their training asks: how alike two of one instance are, and a head that names shapes.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        super().__init__()
        self.settings = settings
        last = settings.channels[-1]
        down = [nn.Conv2d(before, after, 3, 2, 1) for before, after in pairwise((2 * 3, *settings.channels))]
        wide = [nn.Conv2d(last, last, 3, padding=each, dilation=each) for each in settings.dilations]
        self.down, self.wide = nn.ModuleList(down), nn.ModuleList(wide)
        self.leave = nn.Conv2d(last, settings.width, 1)
        self.kinds = nn.Linear(settings.width, len(KINDS))
        self.alike = nn.Parameter(torch.tensor([4.0, -2.0]))  # slope and offset of the logit of "one instance"
        for layer in down:
            keep_size(layer, gain=2**0.5)
        for layer in wide:
            keep_size(layer, gain=0.7)
        keep_size(self.leave)
        keep_size(self.kinds, gain=0.1)

    def forward(self, photo: Image) -> torch.Tensor:
        """(B, 3, H, W), multiples of 8 -> tokens (B, width, H / 8, W / 8)."""
        features = torch.cat([4 * (photo - 0.5), 16 * fine(photo)], 1)
        for convolution in self.down:
            features = F.silu(convolution(features))
        for convolution in self.wide:
            features = features + F.silu(convolution(features))
        tokens: torch.Tensor = self.leave(features)
        return tokens


class NanoTeacher(Teacher):
    """The compact teacher: a token for every 8 px, averaged or repeated where the grid is another."""

    def __init__(self, network: TeacherNetwork, sha256: str = "") -> None:
        super().__init__()
        self.network, self.width, self.sha256 = network, network.settings.width, sha256

    @torch.no_grad()
    def forward(self, clean: Image, grid: tuple[int, int]) -> torch.Tensor:
        """(B, 3, H, W), [0, 1] -> tokens (B, h * w, width)."""
        tokens = self.network(pad_to(clean.float(), STRIDE))
        return F.adaptive_avg_pool2d(tokens, grid).flatten(2).transpose(1, 2)


class DinoTeacher(Teacher):
    """DINOv2: the photo brought to 14 px a token, as REPA does, and all tokens but the first, which is of the class."""

    def __init__(self, network: Any, sha256: str = "") -> None:  # noqa: ANN401 - transformers' Dinov2Model
        super().__init__()
        self.network, self.width, self.sha256 = network, int(network.config.hidden_size), sha256
        self.patch = int(network.config.patch_size)

    @torch.no_grad()
    def forward(self, clean: Image, grid: tuple[int, int]) -> torch.Tensor:
        """(B, 3, H, W), [0, 1] -> tokens (B, h * w, width)."""
        mean, spread = (clean.new_tensor(numbers)[:, None, None] for numbers in (MEAN, SPREAD))
        size = (self.patch * grid[0], self.patch * grid[1])
        seen = F.interpolate((clean - mean) / spread, size, mode="bicubic")
        tokens: torch.Tensor = self.network(pixel_values=seen).last_hidden_state
        return tokens[:, 1:]


# --- in use ----------------------------------------------------------------------------------------------------------


def find_teacher(name: str) -> Teacher:
    """Find a teacher by name, as `TEACHERS` lists them."""
    return named(name, "teacher", TEACHERS)


@cache
def load_teacher_nano() -> NanoTeacher:
    """Load the packaged teacher, once."""
    if NAME not in packaged():
        msg = f"{NAME}: none is shipped; train one with recipes/teacher-nano.toml and give the run's folder"
        raise CheckpointError(msg)
    return build_teacher(load_packaged(NAME))


def load_teacher(preset: str = "nano") -> NanoTeacher:
    """Load the packaged teacher, or the one of a training run."""
    return load_teacher_nano() if preset == "nano" else build_teacher(load_run(find(preset)))


def build_teacher(checkpoint: Checkpoint) -> NanoTeacher:
    """Build the teacher that a checkpoint describes."""
    if checkpoint.metadata.get("system") != SYSTEM:
        msg = f"{checkpoint.path}: holds a {checkpoint.metadata.get('system', 'network')!r}, no teacher"
        raise CheckpointError(msg)
    network = TeacherNetwork(TeacherSettings.from_json(checkpoint.settings()))
    fill(network, checkpoint)
    return ready(NanoTeacher(network, checkpoint.sha256))


@cache  # a training builds its system twice
def _dino(place: str) -> Teacher:
    return DinoTeacher(load_network(transformers().Dinov2Model, find(place)).float()).eval()


TEACHERS: Mapping[str, Source[Teacher]] = {
    "nano": Source(lambda place: load_teacher(place or "nano"), ("", ":PATH")),  # the embedded one, or that of a run
    "dino": Source(_dino),
}
