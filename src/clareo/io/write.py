"""Photo -> photo file: whole or not at all, with everything that the original photo had."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.features
import PIL.Image
import PIL.PngImagePlugin
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from clareo.errors import PhotoError
from clareo.io.deep import write_deep
from clareo.io.formats import SUFFIXES
from clareo.io.metadata import XMP, for_size
from clareo.io.photo import Photo, Tables
from clareo.io.read import decoded_size
from clareo.io.tiff import add_exif

if TYPE_CHECKING:
    from clareo.types import Image

WRITTEN = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}
QUALITY = 95  # what was restored is not thrown away again
MOST = {"JPEG": 65535, "WEBP": 16383, "AVIF": 65536}  # pixels along a side that a format has room for
ROOM = 65535 - 2 - 29  # bytes of EXIF or XMP that JPEG has room for
BAND = 512  # rows that are rounded together


def output_place(path: Path) -> Path:
    """Return what a restored photo is called: as before where that can be written, else NAME.png."""
    suffix = path.suffix.lower()
    if suffix in WRITTEN:
        return path
    return path.with_suffix(".png") if suffix in SUFFIXES else path.with_name(path.name + ".png")  # 5.May -> 5.May.png


def to_picture(restored: Image, like: Photo) -> PIL.Image.Image:
    """Make an 8-bit picture of (1, 3, H, W), with the alpha and greyness of the photo it came from."""
    array = _integers(restored, like, np.uint8)
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    picture = PIL.Image.fromarray(array[..., 0] if array.shape[2] == 1 else array, modes[array.shape[2]])
    kept = {"icc_profile": like.icc, "exif": like.exif, "xmp": like.xmp, "dpi": like.dpi}
    picture.info |= {name: value for name, value in kept.items() if value is not None}
    return picture


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


def check_target(path: Path, size: tuple[int, int]) -> str:
    """Return the format that a suffix stands for, if (height, width) can be written in it here."""
    kind = WRITTEN.get(path.suffix.lower())
    if kind is None or (kind == "AVIF" and not PIL.features.check("avif")):
        known = sorted(suffix for suffix in WRITTEN if suffix != ".avif")
        msg = f"{path}: cannot write {path.suffix or 'a file without a suffix'}; use {', '.join(known)}"
        raise PhotoError(msg)
    if max(size) > MOST.get(kind, max(size)):
        msg = f"{path}: {kind} has room for {MOST[kind]} pixels a side, not {max(size)}; write a PNG or TIFF"
        raise PhotoError(msg)
    return kind


def write_photo(restored: Image, like: Photo, path: str | Path) -> Path:
    """Write (1, 3, H, W) with everything that the original photo had; whole or not at all."""
    path = Path(path)
    size = (restored.shape[-2], restored.shape[-1])
    kind = check_target(path, size)
    exif = for_size(like.exif, size) if like.exif else None
    with atomic(path) as partial:
        with _said(path):
            if like.bits == 16 and kind in ("PNG", "TIFF"):
                write_deep(_integers(restored, like, np.uint16), like, exif, partial)
            else:
                _write_8(to_picture(restored, like), like, exif, partial, kind)
        _verify(partial, path, size)
    return path


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """Turn whatever an encoder raises into an error that names the file."""
    try:
        yield
    except (PhotoError, OSError, MemoryError):
        raise  # said already, by `atomic`, by the batch
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path}: cannot be written ({reason})"
        raise PhotoError(msg) from error


def _write_8(picture: PIL.Image.Image, like: Photo, exif: PIL.Image.Exif | None, path: Path, kind: str) -> None:
    options: dict[str, Any] = {"icc_profile": like.icc, "dpi": like.dpi, "exif": exif, "xmp": like.xmp}
    if kind == "JPEG":
        picture = _on_white(picture)
        _check_room(like.xmp, exif)
        options |= {"qtables": _finest(like.tables), "subsampling": 0, "optimize": True}
    elif kind == "WEBP":
        options |= {"quality": QUALITY, "method": 4, "lossless": like.exact}
    elif kind == "AVIF":
        options |= {"quality": QUALITY, "subsampling": "4:4:4"}
    elif kind == "PNG":
        options |= {"pnginfo": _xmp_chunk(options.pop("xmp"))}
    elif kind == "TIFF":
        options |= {"compression": "tiff_lzw", "tiffinfo": {XMP: like.xmp} if options.pop("xmp") else None}
        del options["exif"]
    picture.save(path, kind, **{key: value for key, value in options.items() if value is not None})
    if kind == "TIFF" and exif:
        add_exif(path, exif)


def _check_room(xmp: bytes | None, exif: PIL.Image.Exif | None) -> None:
    for name, block in (("EXIF", exif.tobytes() if exif else b""), ("XMP", xmp or b"")):
        if len(block) > ROOM:
            msg = f"its {name} of {len(block)} bytes has no room in a JPEG; write a PNG, or drop it with --strip"
            raise PhotoError(msg)


def _xmp_chunk(xmp: bytes | None) -> PIL.PngImagePlugin.PngInfo | None:
    if xmp is None:
        return None
    chunks = PIL.PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return chunks


def _finest(tables: Tables | None) -> list[list[int]]:
    """Return how finely to quantise a JPEG: as at our quality, and nowhere coarser than its source was."""
    ours = _usual_tables()
    theirs = tables or ours
    pairs = ((ours[0], theirs[0]), (ours[1], theirs[min(1, len(theirs) - 1)]))
    return [[min(each) for each in zip(*pair, strict=True)] for pair in pairs]


@functools.cache
def _usual_tables() -> Tables:
    """Ask the encoder itself what our quality means."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=QUALITY)
    with PIL.Image.open(buffer) as picture:
        found: dict[int, list[int]] = getattr(picture, "quantization")  # noqa: B009 - JPEG only
    return tuple(tuple(found[number]) for number in sorted(found))


def _on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Lay a transparent picture on white, because JPEG has no alpha."""
    if picture.mode not in ("LA", "RGBA"):
        return picture
    opaque = "L" if picture.mode == "LA" else "RGB"
    ground = PIL.Image.new(opaque, picture.size, "white")
    ground.paste(picture.convert(opaque), mask=picture.getchannel("A"))
    return ground


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it when all went well, remove it when not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".clareo-{secrets.token_hex(6)}{path.suffix}")
        partial.touch(exist_ok=False)  # with the permissions of any new file
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield partial
        _flush(partial)
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
