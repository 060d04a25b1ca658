"""Colour: luma, and matching a restored photo to the colours of the photo it came from (whole images, never tiles)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch.nn import functional as F

from clareo.errors import UsageError
from clareo.types import LUMA, Image

LEVELS = 5  # of the wavelet; its reach is 31 px
SMALL_LEVELS = 3  # below 64 px

Standard = Literal["bt601", "yiq"]
YIQ = (LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def rgb_to_yiq(image: Image) -> torch.Tensor:
    """Return luma and the two chroma planes of NTSC: (B, 3, H, W); Y in [0, 1], I in +-0.596, Q in +-0.523."""
    return torch.einsum("bchw,kc->bkhw", image, image.new_tensor(YIQ))


def luma(image: Image) -> torch.Tensor:
    """Return the weighted mean of the colours: (B, 1, H, W), [0, 1]."""
    return torch.einsum("bchw,c->bhw", image, image.new_tensor(YIQ[0]))[:, None]


def rgb_to_luma(image: Image, standard: Standard) -> torch.Tensor:
    """Return luma as a standard stores it: (B, 1, H, W).

    "yiq" fills [0, 1]. "bt601" is the Y of studio YCbCr, 16 to 235 of 255: errors shrink to 219/255 of what they are in
    "yiq", so the same two photos are 20 log10(255 / 219) = 1.32 dB closer to each other.
    """
    full = luma(image)
    return full if standard == "yiq" else (16 + 219 * full) / 255


def keep(restored: Image, source: Image) -> Image:
    """Change nothing."""
    del source
    return restored


class Bands:
    """`adain` and `keep` in bands of rows: statistics of the whole, without a copy of it.

    >>> import torch
    >>> a, b = torch.rand(2, 1, 3, 50, 40)
    >>> matched = Bands(adain, a, b)
    >>> bool(torch.allclose(torch.cat([matched(slice(0, 20)), matched(slice(20, 50))], 2), adain(a, b), atol=1e-5))
    True
    """

    def __init__(self, match: Callable[[Image, Image], Image], restored: Image, source: Image) -> None:
        self.restored, self.gain, self.bias = restored, torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 1)
        plain, options = (match.func, match.keywords) if isinstance(match, partial) else (match, {})
        if plain is keep:
            return
        if plain is not adain:
            msg = f"colours of a photo in bands can be matched by adain or not at all, not by {match}"
            raise UsageError(msg)
        (mean, std), (source_mean, source_std) = (
            _statistics(_pooled(image, **options), 1) for image in (restored, source)
        )
        self.gain = source_std / std
        self.bias = source_mean - mean * self.gain

    def __call__(self, rows: slice) -> Image:
        """Return the matched rows, float32."""
        return self.restored[..., rows, :].float() * self.gain + self.bias


def _pooled(image: Image, pool: int = 1) -> Image:
    """Average blocks as `_statistics` does, band by band."""
    pool = min(pool, *image.shape[-2:])
    height, step = image.shape[-2] // pool * pool, 64 * pool
    bands = (image[..., top : min(top + step, height), :].float() for top in range(0, height, step))
    return torch.cat([F.avg_pool2d(band, pool) for band in bands], 2)


def adain(restored: Image, source: Image, pool: int = 1) -> Image:
    """Match mean and standard deviation of each colour: out = (x - m_x) / s_x * s_s + m_s.

    ``pool`` > 1 takes the statistics from means over blocks of that many pixels: otherwise the noise of a noisy source
    counts as its contrast, and comes back as too much of it.
    """
    mean, std = _statistics(restored, pool)
    source_mean, source_std = _statistics(source, pool)
    return restored * (source_std / std) + (source_mean - mean * source_std / std)


def _statistics(image: Image, pool: int) -> tuple[torch.Tensor, torch.Tensor]:
    pool = min(pool, *image.shape[-2:])
    flat = F.avg_pool2d(image, pool).flatten(2) if pool > 1 else image.flatten(2)
    variance = flat.var(2) if flat.shape[2] > 1 else torch.zeros_like(flat[..., 0])
    return flat.mean(2)[..., None, None], (variance + 1e-5).sqrt()[..., None, None]


def wavelet(restored: Image, source: Image) -> Image:
    """Keep the restored detail, take the low frequencies of the source. Sizes must agree."""
    if restored.shape != source.shape:
        msg = f"wavelet colour needs equal sizes, not {tuple(restored.shape)} and {tuple(source.shape)}"
        raise ValueError(msg)
    levels = LEVELS if min(restored.shape[-2:]) >= 64 else SMALL_LEVELS
    return restored - _low(restored, levels) + _low(source, levels)


def _low(image: Image, levels: int) -> Image:
    """Blur with [1 2 1; 2 4 2; 1 2 1] / 16, dilated by 1, 2, 4, ..."""
    row = torch.tensor([1.0, 2.0, 1.0], device=image.device, dtype=image.dtype) / 4
    kernel = torch.outer(row, row).expand(3, 1, 3, 3)
    for level in range(levels):
        reach = 2**level
        padded = F.pad(image, (reach,) * 4, mode="replicate")
        image = F.conv2d(padded, kernel, dilation=reach, groups=3)
    return image
