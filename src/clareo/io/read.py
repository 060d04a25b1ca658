"""Photo file -> photo. 16-bit files are read by libvips, all others by Pillow."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import torch
from numpy.typing import NDArray

from clareo.errors import PhotoError, UsageError
from clareo.io.deep import from_numbers, read_deep, with_kept
from clareo.io.formats import (
    MAX_MEGAPIXELS,
    PILLOW_MEGAPIXELS,
    SUFFIXES,
    TIFF,
    check_file,
    check_size,
    opened,
    refuse_raw,
    said,
)
from clareo.io.metadata import exif_of, is_grey, kept_of, turned, upright
from clareo.io.photo import Photo, from_array, from_bands, from_tensor

if TYPE_CHECKING:
    from clareo.types import Image

MAX_FRAMES = 10_000  # a PNG may claim four thousand millions
BAND = 512  # rows that are converted together


def read_photo(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS, frame: int | None = None) -> Photo:
    """Read a photo, upright. Whatever is wrong with the file ends as a `PhotoError` that names it.

    Args:
        path: any file; its content decides what it is, not its name.
        max_megapixels: refuse more.
        frame: which one of an animation, or page of a document; None is the first, with a note where there are more.
    """
    path = Path(path)
    head = check_file(path)
    with said(path):
        try:
            photo = _read(path, max_megapixels, frame)
        except PIL.UnidentifiedImageError as error:
            if head[:4] in TIFF:  # some layouts of 16-bit TIFF are unknown to Pillow
                return read_deep(path, max_megapixels, frame or 0)
            msg = f"{path}: not an image, or a format that is not supported"
            raise PhotoError(msg) from error
        return replace(photo, exact=_is_exact(path, head))


def read_frames(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> Iterator[Photo]:
    """Read every frame of an animation or page of a document, one at a time; an ordinary photo is one frame."""
    for frame in range(count_frames(path)):
        yield read_photo(path, max_megapixels, frame)


def count_frames(path: str | Path) -> int:
    """Return how many pictures a file holds."""
    path = Path(path)
    check_file(path)
    with said(path), opened(path) as picture:
        frames = _frames(picture)
        if frames > MAX_FRAMES:
            msg = f"claims to hold {frames} frames; the limit is {MAX_FRAMES}"
            raise PhotoError(msg)
        return frames


def _frames(picture: PIL.Image.Image) -> int:
    return int(getattr(picture, "n_frames", 1))


def _read(path: Path, max_megapixels: float, frame: int | None) -> Photo:
    with opened(path) as picture:
        check_size(path, picture.size, max_megapixels)
        refuse_raw(picture)
        notes = _turn_to(picture, frame)
        check_size(path, picture.size, max_megapixels)  # pages differ
        if _bits(picture, path) == 8 or (picture.format == "PNG" and frame):
            photo = from_picture(picture)
        else:
            photo = read_deep(path, max_megapixels, frame or 0)
            photo = with_kept(photo, kept_of(picture, exif_of(picture), grey=photo.grey))
        return replace(photo, path=path, notes=(*notes, *photo.notes))


def _turn_to(picture: PIL.Image.Image, frame: int | None) -> tuple[str, ...]:
    """Go to a frame; where none was asked for, say that there are more than one."""
    if frame is not None:
        if not 0 <= frame < _frames(picture):
            msg = f"holds {_frames(picture)} frames, no number {frame}"
            raise PhotoError(msg)
        picture.seek(frame)
        return ()
    try:
        frames = _frames(picture)
        picture.seek(0)
    except Exception:  # noqa: BLE001 - the first frame can be good where a later one is not
        return ("holds further frames that cannot be read; the first is restored",)
    return (f"holds {frames} frames; the first is restored, --all-frames restores all",) if frames > 1 else ()


def _bits(picture: PIL.Image.Image, path: Path) -> int:
    """Return 16 for PNG and TIFF with 16-bit integer samples; Pillow would cut colours down to 8."""
    if picture.format == "PNG":
        with path.open("rb") as file:
            head = file.read(26)
        return 16 if head[24] == 16 else 8
    if picture.format == "TIFF":
        tags: Any = getattr(picture, "tag_v2", {})
        depth, kind = tags.get(258, (8,)), tags.get(339, (1,))
        return 16 if depth[0] == 16 and kind[0] == 1 else 8
    return 8


def _is_exact(path: Path, head: bytes) -> bool:
    """Tell whether a WebP file was written without loss: by its chunk VP8L."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return False
    with path.open("rb") as file:
        file.seek(12)
        while len(chunk := file.read(8)) == 8:
            if chunk[:4] in (b"VP8L", b"VP8 "):
                return chunk[:4] == b"VP8L"
            size = int.from_bytes(chunk[4:], "little")
            file.seek(size + size % 2, os.SEEK_CUR)
    return False


def from_picture(picture: PIL.Image.Image) -> Photo:
    """Take over a Pillow picture, with its alpha, profile, EXIF, XMP and resolution."""
    exif = exif_of(picture)
    up = upright(picture)
    kept = kept_of(picture, exif, grey=is_grey(up))
    deep = up.mode in ("F", "I") or up.mode.startswith("I;16")
    photo = _deep(up, picture.format) if deep else _shallow(up, kept.icc)
    icc = None if up.mode in ("CMYK", "LAB") else kept.icc  # its colours are sRGB now
    return replace(photo, icc=icc, exif=kept.exif, xmp=kept.xmp, dpi=kept.dpi, tables=kept.tables, notes=(*kept.notes,))


def _deep(picture: PIL.Image.Image, kind: str | None) -> Photo:
    values = np.asarray(picture, dtype=np.float32)[..., None]
    stretched = kind in ("PPM", "JPEG2000") or picture.mode not in ("F", "I")
    return from_numbers(values, 65535.0 if stretched else None)


def _shallow(picture: PIL.Image.Image, icc: bytes | None) -> Photo:
    if picture.mode in ("CMYK", "LAB"):
        picture = _to_srgb(picture, icc)
    if picture.mode == "P" or "transparency" in picture.info:
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode in ("RGBa", "La"):  # colours that were multiplied with alpha
        picture = picture.convert(picture.mode.upper())
    alpha = "A" if picture.mode in ("RGBA", "LA", "PA") else ""
    return from_bands(_array(picture, ("L" if is_grey(picture) else "RGB") + alpha), 255, 8)


def _array(picture: PIL.Image.Image, mode: str) -> NDArray[np.uint8]:
    """Convert a picture to (H, W, 1 to 4), some rows at a time: copies of a large photo count."""
    width, height = picture.size
    array = np.empty((height, width, len(mode)), np.uint8)
    for top in range(0, height, BAND):
        rows = picture.crop((0, top, width, min(top + BAND, height))).convert(mode)
        array[top : top + BAND] = np.asarray(rows).reshape(rows.height, width, -1)
    return array


def _to_srgb(picture: PIL.Image.Image, icc: bytes | None) -> PIL.Image.Image:
    """Turn inks and Lab into colours, by the profile where there is one."""
    target = PIL.ImageCms.createProfile("sRGB")
    if icc is None and picture.mode == "CMYK":
        return picture.convert("RGB")
    profile = PIL.ImageCms.createProfile("LAB") if icc is None else PIL.ImageCms.ImageCmsProfile(io.BytesIO(icc))
    converted = PIL.ImageCms.profileToProfile(picture, profile, target, outputMode="RGB")
    if converted is None:
        msg = "its colour profile cannot be applied"
        raise PhotoError(msg)
    return converted


def read_rgb8(path: Path) -> NDArray[np.uint8]:
    """Read a photo as upright 8-bit RGB (H, W, 3), for training and benchmarks."""
    check_file(path)
    with said(path), opened(path) as picture:
        return _rgb8(picture)


def _rgb8(picture: PIL.Image.Image) -> NDArray[np.uint8]:
    return np.asarray(upright(picture).convert("RGB"))


def read_shard(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield name and pixels, as `read_rgb8` gives them, of each photo in a tar file (webdataset's shards)."""
    with said(path), tarfile.open(path) as shard:
        for member in shard:
            file = shard.extractfile(member) if Path(member.name).suffix.lower() in SUFFIXES else None
            if file is not None:
                with opened(file) as picture:
                    yield member.name, _rgb8(picture)


def list_photos(folder: Path, also: frozenset[str] = frozenset()) -> list[Path]:
    """Return every photo below a folder in the order of their paths; ``also`` names further suffixes."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES | also and path.is_file())


def photo_size(path: Path) -> tuple[int, int]:
    """Return height and width as the file's header says, upright."""
    with said(path), opened(path) as picture:
        width, height = picture.size
        return (width, height) if turned(picture) else (height, width)


def read_view(path: Path, side: int) -> Image:
    """Return a photo shrunken to no less than ``side`` px along its shorter side, for thumbnails.

    Of a JPEG only every eighth pixel is decoded, where that will do. Photos of 16 bits are read as they are.
    """
    with said(path), opened(path) as picture:
        if _bits(picture, path) == 8:
            picture.draft(None, (side, side))
            up = upright(picture)
            step = min(up.size) // side if up.mode in ("L", "RGB", "RGBA") else 1
            return from_picture(up.reduce(step) if step > 1 else up).pixels
    return read_photo(path, PILLOW_MEGAPIXELS).pixels


def photo_bits(path: Path) -> int:
    """Return how many bits a colour has, 8 or 16, as the file's header says."""
    with said(path), opened(path) as picture:
        deep = picture.mode in ("F", "I") or picture.mode.startswith("I;16")
        return 16 if deep else _bits(picture, path)


def decoded_size(path: Path) -> tuple[int, int]:
    """Decode a file that clareo has written, to its end, and return height and width; it need not fit the limit."""
    with said(path), contextlib.suppress(PIL.UnidentifiedImageError), opened(path) as picture:
        if _bits(picture, path) == 8:
            picture.load()
            return picture.height, picture.width
    return read_photo(path, PILLOW_MEGAPIXELS).size


def as_photo(source: Any, max_megapixels: float = MAX_MEGAPIXELS) -> Photo:  # noqa: ANN401 - what users have
    """Take whatever users have: a path, a Pillow picture, an (H, W[, 3 or 4]) array or a (3, H, W) tensor."""
    if isinstance(source, Photo):
        return source
    if isinstance(source, (str, os.PathLike)):
        return read_photo(Path(source), max_megapixels)
    if isinstance(source, PIL.Image.Image):
        with said("the picture"):
            return from_picture(source)
    if isinstance(source, torch.Tensor):
        return from_tensor(source)
    if isinstance(source, np.ndarray):
        return from_array(source)
    msg = f"a photo is a path, a Pillow image, a NumPy array or a tensor, not {type(source).__name__}"
    raise UsageError(msg)
