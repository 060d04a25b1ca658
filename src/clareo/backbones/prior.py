"""The prior that nano presets share: the compact U-Net and its words, as UniRes learned them.

It knows what photos look like and how the four usual damages are undone. A method that leans on it ships what it has
learned beside it, and names the file that it leaned on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from clareo.backbones.text import TextEncoder
from clareo.backbones.unet import UNet, UNetSettings
from clareo.checkpoints import check_same, entry_of, fill, load_packaged, ready
from clareo.types import Condition, Latent


class Prior(nn.Module):
    """A backbone and its words."""

    def __init__(self, network: UNetSettings, vocabulary: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone = UNet(network)
        self.text = TextEncoder(vocabulary, network.text_width)

    def told(self, words: str, count: int) -> Condition:
        """Say the same words to a batch."""
        return Condition(text=self.text([words]).expand(count, -1, -1))


class Told(nn.Module):
    """A prior that is told the same words about every photo, and does not learn."""

    def __init__(self, prior: Prior, words: str) -> None:
        super().__init__()
        self.prior, self.words = prior, words

    @torch.no_grad()
    def forward(self, x: Latent, t: torch.Tensor) -> Latent:
        """(B, C, h, w), (B,) -> the photo that it makes of it."""
        made: Latent = self.prior.backbone(x, t, self.prior.told(self.words, len(x)))
        return made


def load_prior(name: str) -> Prior:
    """Load a packaged prior, to be leaned on and not to be trained."""
    checkpoint = load_packaged(name)
    prior = build_prior(checkpoint.settings())
    fill(prior, checkpoint)
    return ready(prior)


def check_prior(name: str, sha256: str) -> None:
    """Refuse a packaged prior that is not the file that was leaned on while training."""
    check_same(name, sha256, entry_of(name).sha256)


def build_prior(settings: Mapping[str, Any]) -> Prior:
    """Build the prior that a checkpoint's settings describe, untrained."""
    return Prior(UNetSettings.from_json(settings["network"]), tuple(settings["vocabulary"]))
