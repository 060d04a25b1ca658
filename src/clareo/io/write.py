"""Photo -> photo file: whole or not at all, with everything that the original photo had."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from clareo.errors import PhotoError
from clareo.io.photo import Photo, load_vips
from clareo.io.read import decoded_size

if TYPE_CHECKING:
    from clareo.types import Image

WRITTEN = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
BAND = 512  # rows that are rounded together
JPEG_QUALITY, JPEG_SUBSAMPLING = 95, 0  # what was restored is not thrown away again


def output_suffix(path: Path) -> str:
    """Return the suffix a restored photo gets: its own where that can be written, else .png."""
    return path.suffix if path.suffix.lower() in WRITTEN else ".png"


def to_picture(restored: Image, like: Photo) -> PIL.Image.Image:
    """Make an 8-bit picture of (1, 3, H, W), with the alpha and greyness of the photo it came from."""
    array = _integers(restored, like, np.uint8)
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    return PIL.Image.fromarray(array[..., 0] if array.shape[2] == 1 else array, modes[array.shape[2]])


def _integers(restored: Image, like: Photo, dtype: type[np.uint8 | np.uint16]) -> NDArray[Any]:
    """Round (1, 3, H, W) to (H, W, 1 to 4) integers, band by band: copies of a large photo count."""
    height, width = restored.shape[-2:]
    alpha = None if like.alpha is None else _resized(like.alpha, (height, width))
    array = np.empty((height, width, (1 if like.grey else 3) + (alpha is not None)), dtype)
    for top in range(0, height, BAND):
        planes = restored[..., top : top + BAND, :].float()
        if not bool(torch.isfinite(planes).all()):
            msg = "the restored photo holds values that are not finite"
            raise PhotoError(msg)
        planes = planes.mean(1, keepdim=True) if like.grey else planes
        if alpha is not None:
            planes = torch.cat([planes, alpha[..., top : top + BAND, :]], dim=1)
        scaled = planes[0].clamp(0, 1).mul(np.iinfo(dtype).max).round_()
        array[top : top + BAND] = scaled.permute(1, 2, 0).numpy().astype(dtype)
    return array


def _resized(plane: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(plane.shape[-2:]) == size:
        return plane
    return F.interpolate(plane, size, mode="bicubic", align_corners=False).clamp(0, 1)


def write_photo(restored: Image, like: Photo, path: str | Path) -> Path:
    """Write (1, 3, H, W) with everything that the original photo had; whole or not at all."""
    path = Path(path)
    kind = WRITTEN.get(path.suffix.lower())
    if kind is None:
        msg = f"{path}: cannot write {path.suffix or 'a file without a suffix'}; use {', '.join(sorted(WRITTEN))}"
        raise PhotoError(msg)
    size = (restored.shape[-2], restored.shape[-1])
    with atomic(path) as partial:
        if like.bits == 16 and kind in ("PNG", "TIFF"):
            _write_16(_integers(restored, like, np.uint16), like, partial)
        else:
            _write_8(to_picture(restored, like), like, partial, kind)
        _verify(partial, path, size)
    return path


def _write_8(picture: PIL.Image.Image, like: Photo, path: Path, kind: str) -> None:
    options: dict[str, Any] = {"icc_profile": like.icc, "dpi": like.dpi, "exif": like.exif}
    if kind == "JPEG":
        picture = _on_white(picture)
        options |= {"quality": JPEG_QUALITY, "subsampling": JPEG_SUBSAMPLING, "optimize": True}
    if kind == "WEBP":
        options |= {"quality": JPEG_QUALITY, "method": 4}
    if kind == "TIFF":
        options |= {"compression": "tiff_lzw"}
    picture.save(path, kind, **{key: value for key, value in options.items() if value is not None})


def _on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Lay a transparent picture on white, because JPEG has no alpha."""
    if picture.mode not in ("LA", "RGBA"):
        return picture
    opaque = "L" if picture.mode == "LA" else "RGB"
    ground = PIL.Image.new(opaque, picture.size, "white")
    ground.paste(picture.convert(opaque), mask=picture.getchannel("A"))
    return ground


def _write_16(array: NDArray[np.uint16], like: Photo, path: Path) -> None:
    vips = load_vips()
    grey = array.shape[2] <= 2
    image = vips.Image.new_from_array(array, interpretation="grey16" if grey else "rgb16")
    if like.icc:
        image.set_type(vips.GValue.blob_type, "icc-profile-data", like.icc)
    if like.exif:
        image.set_type(vips.GValue.blob_type, "exif-data", b"Exif\x00\x00" + like.exif.removeprefix(b"Exif\x00\x00"))
    if like.dpi:
        image = image.copy(xres=like.dpi[0] / 25.4, yres=like.dpi[1] / 25.4)
    options: dict[str, Any] = {"bitdepth": 16} if path.suffix.lower() == ".png" else {"compression": "lzw"}
    image.write_to_file(str(path), **options)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it when all went well, remove it when not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".clareo-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    partial = Path(name)
    try:
        yield partial
        _flush(partial)
        partial.chmod(0o666 & ~UMASK)
        partial.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> PhotoError:
    return PhotoError(f"{path}: cannot be written ({error.strerror or error})")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    """Return the permissions that new files do not get, as a plain open() would apply them."""
    current = os.umask(0)
    os.umask(current)
    return current


UMASK = _umask()  # once: it can only be asked for by changing it, which two threads must not do at the same time


def _verify(partial: Path, path: Path, size: tuple[int, int]) -> None:
    """Read the written file back: a full disk does not always raise."""
    try:
        found = decoded_size(partial)
    except PhotoError as error:
        msg = f"{path}: was not written whole ({error})"
        raise PhotoError(msg) from error
    if found != size:
        msg = f"{path}: was written with {found} instead of {size} pixels"
        raise PhotoError(msg)
