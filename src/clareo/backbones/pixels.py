"""Pixels as a door into diffusers' U-Net: read by a small network, sent through a control branch, attended to.

MRIR's, laid out as PASD's (arXiv 2308.14469). The U-Net is not rewritten: its up blocks are wrapped, and the residuals
travel through `cross_attention_kwargs`. Untrained, nothing that is attached says anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from clareo.backbones.control import ControlledUNet
from clareo.backbones.features import recorded
from clareo.backbones.layers import zeroed
from clareo.errors import MissingExtraError
from clareo.types import Condition, Image, Latent

CHANNELS = (16, 32, 96, 256)  # at full size, and behind each halving


class PixelProcessor(nn.Module):
    """MRIR's Pixel-level Processor (PLP), in the place of a control branch's embedding of an edge map.

    Pairs of convolutions, one that keeps the size and one that halves it; what leaves starts as nothing. Where there
    are few halvings, a picture of ``full_size`` may be drawn as well.
    """

    def __init__(self, leaving: int, channels: tuple[int, ...] = CHANNELS, *, full_size: bool = False) -> None:
        super().__init__()
        self.enter, self.activate = nn.Conv2d(3, channels[0], 3, padding=1), nn.SiLU()
        self.stages = nn.ModuleList(_halving(before, after) for before, after in pairwise(channels))
        drawn = channels if full_size else channels[1:]
        self.heads = nn.ModuleList(nn.Conv2d(after, 3, 3, padding=1) for after in drawn)
        self.leave = zeroed(nn.Conv2d(channels[-1], leaving, 3, padding=1))

    def forward(self, photo: Image) -> torch.Tensor:
        """(B, 3, H, W), [0, 1] -> (B, 320, H / 8, W / 8)."""
        features = self.activate(self.enter(photo))
        for stage in self.stages:
            features = stage(features)
        left: torch.Tensor = self.leave(features)
        return left

    def recorded(self) -> AbstractContextManager[list[torch.Tensor]]:
        """Hear along what is drawn from within the context: a list that the last forward pass filled, finest first."""
        return recorded(self, [self.activate, *self.stages][-len(self.heads) :])

    def pictures(self, heard: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return I_1/2, I_1/4 and I_1/8, in [-1, 1], of what `recorded` heard: one convolution to RGB each.

        With ``full_size`` I_1 comes first.
        """
        return [head(features) for head, features in zip(self.heads, heard, strict=True)]


def _halving(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, before, 3, padding=1), nn.SiLU(), nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()
    )


# --- attention to what the control branch says ------------------------------------------------------------------------


class PixelUpBlock(nn.Module):
    """diffusers' up block, with attention to the control branch's residual of the same skip behind every resnet.

    ``first`` is how many skips the blocks before it have taken: skips and residuals are taken from the end, one each
    per resnet.
    """

    has_cross_attention = True  # so that the U-Net hands words, image and residuals on, also where nobody hears words

    def __init__(self, block: Any, pixels: Sequence[nn.Module], first: int) -> None:  # noqa: ANN401
        super().__init__()
        self.block, self.pixels, self.first = block, nn.ModuleList(pixels), first

    @property
    def resnets(self) -> nn.ModuleList:
        """Return the resnets, by which the U-Net counts the skips of a block."""
        resnets: nn.ModuleList = self.block.resnets
        return resnets

    def forward(
        self,
        hidden_states: torch.Tensor,
        res_hidden_states_tuple: tuple[torch.Tensor, ...],
        temb: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        upsample_size: tuple[int, int] | None = None,
        **masks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Run resnet, attention and pixel attention skip by skip; all residuals are in ``cross_attention_kwargs``."""
        told = cross_attention_kwargs or {}
        residuals = told["pixels"][: len(told["pixels"]) - self.first]
        x, attentions = hidden_states, getattr(self.block, "attentions", [None] * len(self.resnets))
        for place, (resnet, attention, pixels) in enumerate(zip(self.resnets, attentions, self.pixels, strict=True), 1):
            x = resnet(torch.cat([x, res_hidden_states_tuple[-place]], dim=1), temb)
            if attention is not None:
                x = attention(x, encoder_hidden_states, cross_attention_kwargs=told, **masks, return_dict=False)[0]
            x = pixels(x, residuals[-place].flatten(2).transpose(1, 2), return_dict=False)[0]
        for upsampler in self.block.upsamplers or ():
            x = upsampler(x, upsample_size)
        return x


def attach_pixels(unet: Any) -> nn.ModuleList:  # noqa: ANN401 - an untyped library
    """Let the decoder of a U-Net see a control branch's residuals; return what was attached, in the order of use.

    As in PASD (arXiv 2308.14469), a whole transformer per skip: attention to itself, to the residual, and a forward
    layer. What leaves it starts as nothing. Attach the image first, which is not meant for these transformers.
    """
    attached, skips = nn.ModuleList(), skip_channels(unet)
    for number, block in enumerate(unet.up_blocks):
        first = len(attached)
        heads = unet.config.num_attention_heads or unet.config.attention_head_dim
        each = heads if isinstance(heads, int) else heads[-1 - number]
        made = [
            _pixel_attention(resnet.out_channels, each, skips[-1 - first - place], unet.config.norm_num_groups)
            for place, resnet in enumerate(block.resnets)
        ]
        unet.up_blocks[number] = PixelUpBlock(block, made, first)
        attached.extend(made)
    return attached


def skip_channels(unet: Any) -> list[int]:  # noqa: ANN401
    """Return the channels of the skips, in the order in which the encoder makes them."""
    made = [unet.conv_in.out_channels]
    for block in unet.down_blocks:
        made += [resnet.out_channels for resnet in block.resnets]
        made += [sampler.out_channels for sampler in block.downsamplers or ()]
    return made


def _pixel_attention(width: int, heads: int, context: int, groups: int) -> nn.Module:
    try:
        from diffusers.models.transformers.transformer_2d import Transformer2DModel  # noqa: PLC0415
    except ImportError as error:
        package = "diffusers"
        raise MissingExtraError.of(package, "paper") from error
    made = Transformer2DModel(
        heads, width // heads, in_channels=width, cross_attention_dim=context, norm_num_groups=groups
    )
    nn.init.zeros_(made.proj_out.weight)
    nn.init.zeros_(made.proj_out.bias)
    attention: nn.Module = made
    return attention


class SeeingUNet(ControlledUNet):
    """A controlled U-Net that also attends: `image` tokens everywhere, the branch's residuals in the decoder."""

    def __init__(
        self,
        unet: nn.Module,
        branch: nn.Module,
        timestep: Callable[[torch.Tensor], torch.Tensor],
        strength: float = 1.0,
        *,
        additive: bool = True,  # the residuals are added to the skips as well; the middle's, which has none, always is
    ) -> None:
        super().__init__(unet, branch, timestep, strength)
        self.additive = additive
        self.attends = any(isinstance(module, PixelUpBlock) for module in unet.modules())

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """(B, 4, h, w), (B,), control (B, 3, 8 h, 8 w), text (B, L, D), image (B, N, D) -> (B, 4, h, w)."""
        skips, middle = self.residuals(x, t, condition)
        doors = {"image": condition.image, "pixels": skips if self.attends else None}
        predicted: Latent = self.unet(
            x,
            self.timestep(t),
            encoder_hidden_states=condition.text,
            cross_attention_kwargs={name: door for name, door in doors.items() if door is not None} or None,
            down_block_additional_residuals=skips if self.additive else [0.0] * len(skips),
            mid_block_additional_residual=middle,
        ).sample
        return predicted
