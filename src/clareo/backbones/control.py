"""Control: a trainable copy of a U-Net's encoder that speaks to the skips of the original.

ControlNet (Zhang et al. 2023), on diffusers' parts and on the compact U-Net. What controls enters the copy behind its
first convolution, and leaves it through zero convolutions: untrained, the copy says nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from clareo.backbones.layers import keep_size, pad_to, zeroed
from clareo.backbones.unet import Aside, UNet, descend
from clareo.errors import MissingExtraError
from clareo.types import Condition

if TYPE_CHECKING:
    from clareo.backbones.prior import Prior
    from clareo.types import Latent


class ControlledUNet(nn.Module):
    """diffusers' U-Net beside its control branch: `control` enters the branch, `text` goes to both."""

    def __init__(
        self,
        unet: nn.Module,
        branch: nn.Module,
        timestep: Callable[[torch.Tensor], torch.Tensor],
        strength: float = 1.0,  # factor on everything that the branch says
    ) -> None:
        super().__init__()
        self.unet, self.branch = unet, branch
        self.timestep = timestep  # our t in [0, 1] -> the discrete step that the network was trained with
        self.strength = strength

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """(B, 4, h, w), (B,), control as the branch takes it, text (B, L, D) -> (B, 4, h, w)."""
        skips, middle = self.residuals(x, t, condition)
        predicted: Latent = self.unet(
            x,
            self.timestep(t),
            encoder_hidden_states=condition.text,
            down_block_additional_residuals=skips,
            mid_block_additional_residual=middle,
        ).sample
        return predicted

    def residuals(self, x: Latent, t: torch.Tensor, condition: Condition) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return what is added to the skips, in the order in which the encoder makes them, and to the middle."""
        skips, middle = self.branch(
            x,
            self.timestep(t),
            encoder_hidden_states=condition.text,
            controlnet_cond=condition.control,
            conditioning_scale=self.strength,
            return_dict=False,
        )
        return list(skips), middle


def copy_encoder(unet: Any, embedding: nn.Module) -> nn.Module:  # noqa: ANN401 - an untyped library
    """Copy a U-Net's encoder and middle into a control branch: h0 = conv_in(x) + embedding(control)."""
    try:
        from diffusers import ControlNetModel  # noqa: PLC0415
    except ImportError as error:
        package = "diffusers"
        raise MissingExtraError.of(package, "paper") from error
    branch: nn.Module = ControlNetModel.from_unet(unet)
    branch.controlnet_cond_embedding = embedding  # in place of eight convolutions on the pixels of an edge map
    return branch.train(unet.training)


def zero_convolution(entering: int, leaving: int) -> nn.Conv2d:
    """Return a 1x1 convolution that starts as nothing; gradients reach it, since what enters it is something."""
    return zeroed(nn.Conv2d(entering, leaving, 1))


# --- compact ---------------------------------------------------------------------------------------------------------


class Listener(nn.Module):
    """What any number of words come to, in one vector: a few learned questions are put to them."""

    def __init__(self, words: int, width: int, questions: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.questions = nn.Parameter(torch.randn(questions, words))
        self.attend = nn.MultiheadAttention(words, heads, batch_first=True)
        self.join = nn.Linear(questions * words, width)
        keep_size(self.join)

    def forward(self, said: torch.Tensor) -> torch.Tensor:
        """(B, L, words) -> (B, width)."""
        asked = self.questions.to(said.dtype).expand(len(said), -1, -1)
        vector: torch.Tensor = self.join(self.attend(asked, said, said, need_weights=False)[0].flatten(1))
        return vector


class CompactControl(nn.Module):
    """A copy of the compact U-Net's encoder that sees what controls it; told how wide words are, it also listens.

    What it says goes to every level of the original. What it heard goes to the vector that carries time and words as
    well: so a text that asks for less noise can lean on what the original knows of noise.
    """

    def __init__(self, original: UNet, see: nn.Module, words: int | None = None, *, additive: bool = True) -> None:
        super().__init__()
        settings = original.settings
        self.enter, self.encoder = copy.deepcopy(original.enter), copy.deepcopy(original.encoder)
        self.down = copy.deepcopy(original.down)
        self.requires_grad_(requires_grad=True)  # the original may stand still
        self.see = see  # what controls -> the finest level; it starts as nothing
        if words is not None:
            self.listen = Listener(words, settings.width)
            self.tell = zeroed(nn.Linear(settings.width, settings.width))
        spoken = settings.channels if additive else settings.channels[-1:]  # the coarsest level is no skip
        self.leave = nn.ModuleList(zero_convolution(channels, channels) for channels in spoken)

    def levels(self, entering: torch.Tensor, vector: torch.Tensor, seen: torch.Tensor) -> list[torch.Tensor]:
        """What enters the original, a vector, and what `see` takes -> the branch's own features, finest level first."""
        return descend(self.enter(entering) + self.see(seen), self.encoder, self.down, vector)

    def said(self, levels: list[torch.Tensor], strength: float = 1.0) -> list[torch.Tensor | None]:
        """Return what is added to each level of the original."""
        silent = len(levels) - len(self.leave)
        spoken = zip(self.leave, levels[silent:], strict=True)
        return [None] * silent + [strength * leave(level) for leave, level in spoken]


class ControlledCompact(nn.Module):
    """The compact U-Net, which stays as it is, beside its control branch: `control` and `text` go to the branch."""

    def __init__(self, prior: Prior, branch: CompactControl, words: str = "", strength: float = 1.0) -> None:
        super().__init__()
        self.prior, self.branch = prior, branch
        self.words = words  # what the prior itself is told
        self.strength = strength  # factor on everything that the branch says

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """(B, C, h, w), (B,), control (B, C, h, w), text (B, L, D) -> (B, C, h, w)."""
        if condition.control is None or condition.text is None:
            msg = "a control branch needs something to see and words to hear"
            raise ValueError(msg)
        unet = self.prior.backbone
        heard = self.branch.listen(condition.text)
        seen = unet.scaled(pad_to(condition.control, unet.settings.stride))
        aside = Aside(partial(self._skips, heard=heard, seen=seen), self.strength * self.branch.tell(heard))
        return unet.explain(x, t, self.prior.told(self.words, len(x)), aside)[0]

    def _skips(
        self, entering: torch.Tensor, vector: torch.Tensor, heard: torch.Tensor, seen: torch.Tensor
    ) -> list[torch.Tensor | None]:
        return self.branch.said(self.branch.levels(entering, vector + heard, seen), self.strength)
