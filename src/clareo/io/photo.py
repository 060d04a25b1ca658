"""A photo in memory: pixels, and everything about them that is not pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from clareo.errors import MissingExtraError, UsageError
from clareo.io.alpha import bleed

if TYPE_CHECKING:
    from clareo.types import Image

Tables: TypeAlias = tuple[tuple[int, ...], ...]  # of a JPEG: brightness first, then colour, 64 numbers each


@dataclass(frozen=True)
class Photo:
    """A photo in memory: pixels as (1, 3, H, W), [0, 1], and what has to survive a restoration."""

    pixels: Image
    alpha: torch.Tensor | None = None  # (1, 1, H, W), [0, 1]
    bits: Literal[8, 16] = 8
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    tables: Tables | None = None  # how finely a JPEG was quantised; it is not written back any coarser
    exact: bool = False  # came from a format that can lose, without loss (WebP)
    notes: tuple[str, ...] = ()  # what could not be kept, in words for the user
    path: Path | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def stripped(self) -> Photo:
        """Return the photo without what tells who took it, when and where; its colours keep their profile."""
        return replace(self, exif=None, xmp=None)


def to_image(array: NDArray[Any], top: float) -> Image:
    """(H, W, 3) integers or floats -> (1, 3, H, W) in [0, 1]."""
    channels_first = np.empty((3, *array.shape[:2]), np.float32)
    for channel, plane in enumerate(channels_first):
        plane[...] = array[..., channel]  # one copy: of a large photo every further one counts
    return torch.from_numpy(channels_first).div_(top)[None]


def to_plane(channel: PIL.Image.Image | NDArray[Any], top: float = 255) -> torch.Tensor:
    """One channel (H, W) -> (1, 1, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(channel, dtype=np.float32)).div_(top)[None, None]


def from_tensor(tensor: torch.Tensor) -> Photo:
    """Take over a float tensor (3, H, W) or (1, 3, H, W) in [0, 1]."""
    image = tensor[None] if tensor.dim() == 3 else tensor
    if image.dim() != 4 or image.shape[:2] != (1, 3) or not image.is_floating_point() or 0 in image.shape:
        msg = f"a tensor photo is float (3, H, W) in [0, 1], not {tensor.dtype} {tuple(tensor.shape)}"
        raise UsageError(msg)
    _check_values(float(image.min()), float(image.max()))
    return Photo(image.detach().float().cpu())


def _check_values(low: float, high: float) -> None:
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN fails as well
        msg = f"float photos lie in [0, 1]; this one reaches from {low:g} to {high:g}"
        raise UsageError(msg)


def from_array(array: NDArray[Any]) -> Photo:
    """Take over an array (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16 or float in [0, 1]."""
    tops = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0, "float16": 1.0}
    if array.ndim == 2:
        array = array[..., None]
    bands = array.shape[2] if array.ndim == 3 else 0
    if array.dtype.name not in tops or bands not in (1, 3, 4) or 0 in array.shape:
        what = f"{array.dtype} {array.shape}"
        msg = f"an array photo is (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16 or float, not {what}"
        raise UsageError(msg)
    top = tops[array.dtype.name]
    if top == 1:
        _check_values(float(array.min()), float(array.max()))
    return from_bands(array, top, 16 if array.dtype == np.uint16 else 8)


def from_bands(array: NDArray[Any], top: float, bits: Literal[8, 16]) -> Photo:
    """Take over (H, W, 1 to 4): grey or colour, with or without alpha; ``top`` is white."""
    bands = array.shape[2]
    rgb = np.repeat(array[..., :1], 3, axis=2) if bands <= 2 else array[..., :3]
    image = to_image(rgb, top)
    if bands in (1, 3):
        return Photo(image, None, bits, grey=bands == 1)
    alpha = to_plane(array[..., -1], top)
    return Photo(bleed(image, alpha), alpha, bits, grey=bands == 2)


def load_vips() -> Any:  # noqa: ANN401 - an untyped library
    """Import libvips when a 16-bit photo first needs it."""
    try:
        import pyvips  # noqa: PLC0415
    except (ImportError, OSError) as error:
        package = "libvips for 16-bit photos"
        raise MissingExtraError.of(package, "deep") from error
    return pyvips
