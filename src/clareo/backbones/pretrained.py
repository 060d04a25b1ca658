"""Published networks as backbones and words: thin adapters around diffusers and transformers, imported when used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from clareo.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from clareo.types import Condition, Latent


class StableDiffusionUNet(nn.Module):
    """diffusers' U-Net: `concat` joins the latent at the first convolution, `text` goes to cross-attention."""

    def __init__(self, unet: nn.Module, timestep: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.unet = unet
        self.timestep = timestep  # our t in [0, 1] -> the discrete step that the network was trained with

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """(B, 4, h, w), (B,), concat (B, C, h, w), text (B, L, D) -> (B, 4, h, w)."""
        entering = x if condition.concat is None else torch.cat([x, condition.concat], dim=1)
        predicted: Latent = self.unet(entering, self.timestep(t), encoder_hidden_states=condition.text).sample
        return predicted


def widen_first_convolution(unet: Any, channels: int) -> None:  # noqa: ANN401 - an untyped library
    """Give a U-Net more input channels; their weights are zero, so that it predicts what it predicted before."""
    old = unet.conv_in
    if old.in_channels == channels:
        return
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, padding=old.padding, device=old.weight.device)
    if not new.weight.is_meta:
        with torch.no_grad():
            new.weight.zero_()
            new.weight[:, : old.in_channels] = old.weight
            new.bias.copy_(old.bias)  # type: ignore[union-attr]
    unet.conv_in = new
    unet.register_to_config(in_channels=channels)


class ClipWords(nn.Module):
    """CLIP's tokenizer and text encoder: prompts to (B, 77, D)."""

    def __init__(self, tokenizer: Any, encoder: nn.Module) -> None:  # noqa: ANN401
        super().__init__()
        self.tokenizer, self.encoder = tokenizer, encoder

    def forward(self, prompts: list[str]) -> torch.Tensor:
        """Encode prompts; longer ones are cut at the encoder's window."""
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        device = next(self.encoder.parameters()).device
        encoded: torch.Tensor = self.encoder(tokens.to(device))[0]
        return encoded


@dataclass(frozen=True)
class StableDiffusion:
    """The parts of a Stable Diffusion folder."""

    unet: nn.Module
    vae: nn.Module
    words: ClipWords


def load_stable_diffusion(folder: Path) -> StableDiffusion:
    """Load unet/, vae/, text_encoder/ and tokenizer/ in diffusers' layout."""
    try:
        from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: PLC0415
        from transformers import CLIPTextModel, CLIPTokenizer  # noqa: PLC0415
    except ImportError as error:
        packages = "diffusers and transformers"
        raise MissingExtraError.of(packages, "paper") from error
    missing = [part for part in ("unet", "vae", "text_encoder", "tokenizer") if not (folder / part).is_dir()]
    if missing:
        msg = f"{folder}: not a Stable Diffusion folder, without {', '.join(missing)}"
        raise CheckpointError(msg)
    try:
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", use_safetensors=True)
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", use_safetensors=True)
        encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", use_safetensors=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    except (OSError, ValueError) as error:
        msg = f"{folder}: {error}"
        raise CheckpointError(msg) from error
    vae.requires_grad_(requires_grad=False).eval()
    encoder.requires_grad_(requires_grad=False).eval()
    return StableDiffusion(unet, vae, ClipWords(tokenizer, encoder))
