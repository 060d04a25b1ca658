"""Control: a trainable copy of a published U-Net's encoder that speaks to the skips of the original.

ControlNet (Zhang et al. 2023) on diffusers' parts. What controls enters the copy behind its first convolution, through
a module of the caller's choice, and leaves it through zero convolutions: untrained, the copy says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from clareo.errors import MissingExtraError

if TYPE_CHECKING:
    from clareo.types import Condition, Latent


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
    layer = nn.Conv2d(entering, leaving, 1)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
