"""Codecs: photo <-> the grid on which a system works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from clareo.types import Image, Latent


class Codec(Protocol):
    """Encode photos into latents and back; sides must be multiples of ``factor``."""

    @property
    def linear(self) -> bool:
        """Tell whether a blend of latents is the blend of their photos, to the last bit."""

    @property
    def factor(self) -> int:
        """Photo pixels along one side of a latent pixel."""

    @property
    def channels(self) -> int:
        """Channels of a latent."""

    def encode(self, image: Image) -> Latent:
        """(B, 3, H, W), [0, 1] -> (B, channels, H / factor, W / factor)."""

    def decode(self, latent: Latent) -> Image:
        """Invert `encode`; values may leave [0, 1]."""


@dataclass(frozen=True)
class PixelUnshuffle:
    """Move each factor x factor block of pixels into channels: lossless to the last bit, and linear.

    Linearity is what makes a one-step blend of experts exact in pixels.

    >>> import torch
    >>> photo = torch.rand(1, 3, 8, 12)
    >>> codec = PixelUnshuffle(4)
    >>> bool((codec.decode(codec.encode(photo)) == photo).all())
    True
    """

    factor: int = 4
    linear: ClassVar[bool] = True

    @property
    def channels(self) -> int:
        """Three colours times the pixels of a block."""
        return 3 * self.factor**2

    def encode(self, image: Image) -> Latent:
        """(B, 3, H, W) -> (B, 3 * factor^2, H / factor, W / factor), values untouched."""
        return F.pixel_unshuffle(image, self.factor)

    def decode(self, latent: Latent) -> Image:
        """(B, 3 * factor^2, h, w) -> (B, 3, h * factor, w * factor), values untouched."""
        return F.pixel_shuffle(latent, self.factor)


@dataclass(frozen=True)
class VAE:
    """A published autoencoder, with its own constants: pixels go in as [-1, 1], latents are shifted and scaled."""

    vae: Any  # diffusers' AutoencoderKL
    linear: ClassVar[bool] = False

    @property
    def factor(self) -> int:
        """Each level of the encoder but the last halves the photo."""
        return 1 << (len(self.vae.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return int(self.vae.config.latent_channels)

    @property
    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)

    def encode(self, image: Image) -> Latent:
        """Take the mode of the posterior: the same photo gives the same latent."""
        latent: Latent = self.vae.encode(image * 2 - 1).latent_dist.mode()
        return (latent - self._shift) * float(self.vae.config.scaling_factor)

    def decode(self, latent: Latent) -> Image:
        """Invert the shift and the scale, decode, and go back to [0, 1]."""
        latent = latent.to(next(self.vae.parameters()).dtype)  # a walk in half precision ends with halves
        image: Image = self.vae.decode(latent / self.vae.config.scaling_factor + self._shift).sample
        pixels: Image = image / 2 + 0.5
        return pixels


@dataclass(frozen=True)
class JointLatent:
    """A photo and a map of it side by side: the channels of one codec twice, z = [z_x ; z_m].

    Of a photo alone nobody knows the map yet: its half holds ``blank``.
    """

    codec: Codec
    blank: float = 0.0  # what a latent of nothing holds: 0, or the grey of a codec that leaves pixels as they are

    @property
    def linear(self) -> bool:
        """As that of the codec."""
        return self.codec.linear

    @property
    def factor(self) -> int:
        """As that of the codec."""
        return self.codec.factor

    @property
    def channels(self) -> int:
        """Twice the codec's."""
        return 2 * self.codec.channels

    def encode(self, image: Image) -> Latent:
        """Encode a photo whose map is not known."""
        latent = self.codec.encode(image)
        return torch.cat([latent, torch.full_like(latent, self.blank)], dim=1)

    def encode_both(self, image: Image, drawn: Image) -> Latent:
        """Encode a photo and its map, (B, 3, H, W) twice."""
        return torch.cat([self.codec.encode(image), self.codec.encode(drawn)], dim=1)

    def decode(self, latent: Latent) -> Image:
        """Decode the photo."""
        return self.codec.decode(latent.chunk(2, dim=1)[0])

    def decode_map(self, latent: Latent) -> Image:
        """Decode the map."""
        return self.codec.decode(latent.chunk(2, dim=1)[1])


def enlarge(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bring (3, H, W) or (B, 3, H, W) to a larger size by bicubic interpolation; the one way that clareo enlarges."""
    if tuple(image.shape[-2:]) == size:
        return image
    batch = image if image.dim() == 4 else image[None]
    enlarged = F.interpolate(batch, size, mode="bicubic", align_corners=False).clamp(0, 1)
    return enlarged if image.dim() == 4 else enlarged[0]


def shrink_and_enlarge(image: Image, factor: float) -> Image:
    """Throw detail away: antialiased bicubic down by ``factor``, bicubic back up (UniRes' DownLQ)."""
    height, width = image.shape[-2:]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    return F.interpolate(
        F.interpolate(image, small, mode="bicubic", align_corners=False, antialias=True),
        (height, width),
        mode="bicubic",
        align_corners=False,
    )


def fit(photo: Image, upscale: int, multiple: int) -> Image:
    """Enlarge a photo and repeat its last rows and columns until both sides are multiples: the canvas."""
    height, width = photo.shape[-2] * upscale, photo.shape[-1] * upscale
    canvas = enlarge(photo, (height, width))
    if height % multiple == width % multiple == 0:
        return canvas  # a large one is not copied
    return F.pad(canvas, (0, -width % multiple, 0, -height % multiple), mode="replicate")
