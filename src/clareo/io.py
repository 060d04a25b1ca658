"""Photo file <-> image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from clareo.errors import PhotoError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})


def read_rgb8(path: Path) -> NDArray[np.uint8]:
    """Read a photo as upright 8-bit RGB (H, W, 3), for training."""
    try:
        with PIL.Image.open(path) as picture:
            return np.asarray(PIL.ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError) as error:
        msg = f"{path}: {error}"
        raise PhotoError(msg) from error
