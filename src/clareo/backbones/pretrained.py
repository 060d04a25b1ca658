"""Published networks as backbones and words: thin adapters around diffusers and transformers, imported when used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.text import in_windows, windows_needed
from clareo.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from clareo.types import Condition, Image, Latent

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of [0, 1] colours


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
    """CLIP's tokenizer and text encoder: prompts to (B, 77, D), or texts of any length to (B, 77 n, D).

    Stable Diffusion 2 was trained on the penultimate layer of OpenCLIP's ViT-H. Its folder leaves the last of the 24
    layers out and keeps the norm behind it, so what the encoder there returns last is what the U-Net expects.
    """

    def __init__(self, tokenizer: Any, encoder: nn.Module) -> None:  # noqa: ANN401
        super().__init__()
        self.tokenizer, self.encoder = tokenizer, encoder

    @property
    def room(self) -> int:
        """Tokens of a window that are free for words: all but the marks at both ends."""
        return int(self.tokenizer.model_max_length) - 2

    def forward(self, prompts: list[str]) -> torch.Tensor:
        """Encode prompts; longer ones are cut at the encoder's window."""
        encoded: torch.Tensor = self._encoded(self._windows(prompts))[0]
        return encoded

    def pooled(self, prompts: list[str]) -> torch.Tensor:
        """Return one vector per prompt, (B, D): the state at its end mark."""
        vectors: torch.Tensor = self._encoded(self._windows(prompts)).pooler_output
        return vectors

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text of any length, without marks."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def chunked(self, texts: list[list[int]], most: int) -> torch.Tensor:
        """Encode tokens in as many windows as the longest text takes, ``most`` at most: (B, 77 n, D).

        Every window is marked as a prompt of its own; shorter texts are filled up with empty windows.
        """
        count = min(most, windows_needed(texts, self.room))
        windows = [self._marked(part) for part in in_windows(texts, self.room, count)]
        encoded: torch.Tensor = self._encoded(torch.tensor(windows))[0]
        return encoded.reshape(len(texts), -1, encoded.shape[-1])

    def _marked(self, tokens: list[int]) -> list[int]:
        first, last, padding = (getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
        return [first, *tokens, last, *[padding] * (self.room - len(tokens))]

    def _windows(self, prompts: list[str]) -> torch.Tensor:
        length = self.tokenizer.model_max_length
        tokens: torch.Tensor = self.tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        return tokens

    def _encoded(self, tokens: torch.Tensor) -> Any:  # noqa: ANN401 - an untyped library
        return self.encoder(tokens.to(next(self.encoder.parameters()).device))


class ClipVision(nn.Module):
    """CLIP's vision tower: photos to patch features (B, N, D) of the last layer but one, as LLaVA takes them."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    @property
    def width(self) -> int:
        """Numbers in a token."""
        config: Any = self.tower.config
        return int(config.hidden_size)

    def forward(self, photo: Image) -> torch.Tensor:
        """(B, 3, H, W) -> (B, N, D); ViT-L/14-336 gives (B, 576, 1024)."""
        layers = self.tower(self.squared(photo), output_hidden_states=True).hidden_states
        patches: torch.Tensor = layers[-2][:, 1:]  # the first token stands for the whole
        return patches

    def tokens(self, square: torch.Tensor) -> torch.Tensor:
        """Return all that the last layer says of what `squared` made, the token for the whole first.

        ViT-L/14 gives (B, 257, 1024).
        """
        tokens: torch.Tensor = self.tower(square).last_hidden_state
        return tokens

    def squared(self, photo: Image) -> torch.Tensor:
        """Bring (B, 3, H, W) to the tower's square, whatever its shape, and to CLIP's mean and spread."""
        config: Any = self.tower.config
        place = next(self.tower.parameters())
        square = F.interpolate(
            photo.to(place.device), (config.image_size,) * 2, mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 1)
        mean, std = (torch.tensor(values, device=place.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        return (square - mean) / std


@dataclass(frozen=True)
class StableDiffusion:
    """The parts of a Stable Diffusion folder."""

    unet: nn.Module
    vae: nn.Module
    words: ClipWords


def load_stable_diffusion(folder: Path) -> StableDiffusion:
    """Load unet/, vae/, text_encoder/ and tokenizer/ in diffusers' layout."""
    try:
        from diffusers import UNet2DConditionModel  # noqa: PLC0415
        from transformers import CLIPTextModel, CLIPTokenizer  # noqa: PLC0415
    except ImportError as error:
        packages = "diffusers and transformers"
        raise MissingExtraError.of(packages, "paper") from error
    missing = [part for part in ("unet", "vae", "text_encoder", "tokenizer") if not (folder / part).is_dir()]
    if missing:
        msg = f"{folder}: not a Stable Diffusion folder, without {', '.join(missing)}"
        raise CheckpointError(msg)
    require_noise(folder)
    vae = load_vae(folder)
    try:
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", use_safetensors=True)
        encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", use_safetensors=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    except (OSError, ValueError) as error:
        msg = f"{folder}: {error}"
        raise CheckpointError(msg) from error
    encoder.requires_grad_(requires_grad=False).eval()
    return StableDiffusion(unet, vae, ClipWords(tokenizer, encoder))


def load_vae(folder: Path) -> nn.Module:
    """Load vae/ in diffusers' layout, to be used and not to be trained."""
    try:
        from diffusers import AutoencoderKL  # noqa: PLC0415
    except ImportError as error:
        package = "diffusers"
        raise MissingExtraError.of(package, "paper") from error
    try:
        vae: nn.Module = AutoencoderKL.from_pretrained(folder, subfolder="vae", use_safetensors=True)
    except (OSError, ValueError) as error:
        msg = f"{folder}: {error}"
        raise CheckpointError(msg) from error
    return vae.requires_grad_(requires_grad=False).eval()


def require_noise(folder: Path) -> None:
    """Refuse a network whose folder says that it predicts anything but noise, as Stable Diffusion 2's for 768 px."""
    path = folder / "scheduler" / "scheduler_config.json"
    predicts = json.loads(path.read_text()).get("prediction_type", "epsilon") if path.is_file() else "epsilon"
    if predicts != "epsilon":
        msg = f"{folder}: its network predicts {predicts}, and a system learns to predict noise on top of it"
        raise CheckpointError(msg)
