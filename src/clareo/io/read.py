"""Photo file -> photo. 16-bit files are read by libvips, all others by Pillow."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import torch
from numpy.typing import NDArray

from clareo.errors import ClareoError, PhotoError, TooLargeError, UsageError
from clareo.io.photo import Photo, from_array, from_tensor, load_vips, to_image, to_plane

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"})
MAX_MEGAPIXELS = 100.0
PILLOW_MEGAPIXELS = 178.0  # Pillow refuses more as a decompression bomb
ORIENTATION = 0x0112  # EXIF tag
TIFF = (b"II*\0", b"MM\0*")
REFUSED = {b"%PDF": "PDF", b"%!PS": "PostScript", b"<svg": "SVG"}


def read_photo(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> Photo:
    """Read a photo, upright. Whatever is wrong with the file ends as a `PhotoError` that names it."""
    path = Path(path)
    head = _check_file(path)
    with _said(path):
        try:
            return _read(path, max_megapixels)
        except PIL.UnidentifiedImageError as error:
            if head[:4] in TIFF:  # some layouts of 16-bit TIFF are unknown to Pillow
                return _read_16(path, max_megapixels)
            msg = f"{path}: not an image, or a format that is not supported"
            raise PhotoError(msg) from error


def _read(path: Path, max_megapixels: float) -> Photo:
    with opened(path) as picture:
        _check_size(path, picture.size, max_megapixels)
        if _bits(picture, path) == 8:
            picture.load()
            return replace(from_picture(picture), path=path)
        photo = _read_16(path, max_megapixels)
        return replace(photo, icc=picture.info.get("icc_profile"), dpi=picture.info.get("dpi"), exif=_exif(picture))


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on a broken file into an error that names it."""
    try:
        yield
    except ClareoError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path}: cannot be read as a photo ({reason})"
        raise PhotoError(msg) from error


def _check_file(path: Path) -> bytes:
    """Return the first bytes of a file that can be opened, has any, and does not say that it is no photo."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        msg = f"{path}: no such file"
        raise PhotoError(msg) from None
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise PhotoError(msg) from error
    if not head:
        msg = f"{path}: the file is empty"
        raise PhotoError(msg)
    for magic, name in REFUSED.items():
        if magic in head.lstrip()[:256]:
            msg = f"{path}: {name} is not a photo; export it as PNG first"
            raise PhotoError(msg)
    return head


@contextlib.contextmanager
def opened(path: Path | IO[bytes]) -> Iterator[PIL.Image.Image]:
    """Open a picture with Pillow, whose warnings say nothing that a user could act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # `_check_size` decides, with our limit
        warnings.filterwarnings("ignore", module="PIL")  # corrupt EXIF warns; the photo can still be restored
        try:
            picture = PIL.Image.open(path)
        except PIL.Image.DecompressionBombError as error:
            msg = f"{path}: refused as a decompression bomb ({error})"
            raise TooLargeError(msg) from error
        with picture:
            yield picture


def _check_size(path: Path, size: tuple[int, int], max_megapixels: float) -> None:
    limit = min(max_megapixels, PILLOW_MEGAPIXELS)
    megapixels = size[0] * size[1] / 1e6
    if megapixels > limit:
        hint = f"raise it with --max-megapixels, up to {PILLOW_MEGAPIXELS:g}" if limit < PILLOW_MEGAPIXELS else "final"
        msg = f"{path}: {megapixels:.1f} megapixels are over the limit of {limit:g} ({hint})"
        raise TooLargeError(msg)


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


def from_picture(picture: PIL.Image.Image) -> Photo:
    """Take over a Pillow picture, with its alpha, profile, EXIF and resolution."""
    upright = _upright(picture)  # before `_exif`, which resets the orientation
    exif, icc, dpi = _exif(picture), picture.info.get("icc_profile"), picture.info.get("dpi")
    if upright.mode in ("F", "I"):
        return _from_numbers(upright)
    if upright.mode == "CMYK":
        upright, icc = _from_cmyk(upright, icc), None
    if upright.mode == "P" or "transparency" in upright.info:
        upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
    grey = upright.mode in ("1", "L", "LA", "I;16")
    alpha = None
    if upright.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        alpha = to_plane(upright.convert("RGBA").getchannel("A"))
    rgb = np.asarray(upright.convert("RGB"))
    return Photo(to_image(rgb, 255), alpha, 8, grey, icc, exif, dpi)


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return PIL.ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - malformed EXIF says nothing about orientation; the pixels are good
        return picture.copy()


def _exif(picture: PIL.Image.Image) -> bytes | None:
    """Return the EXIF block with its orientation reset; a malformed block is dropped, not fatal."""
    try:
        exif = picture.getexif()
        if not exif:
            return None
        if ORIENTATION in exif:
            exif[ORIENTATION] = 1
        return exif.tobytes()
    except Exception:  # noqa: BLE001
        return None


def _from_cmyk(picture: PIL.Image.Image, icc: bytes | None) -> PIL.Image.Image:
    if not icc:
        return picture.convert("RGB")
    try:
        source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(icc))
        target = PIL.ImageCms.createProfile("sRGB")
        converted = PIL.ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    except PIL.ImageCms.PyCMSError:
        converted = None
    return converted if converted is not None else picture.convert("RGB")


def _from_numbers(picture: PIL.Image.Image) -> Photo:
    """Accept float and 32-bit grey pictures whose values have an evident range."""
    values = np.asarray(picture, dtype=np.float32)
    if not np.isfinite(values).all():
        msg = "the picture holds values that are not finite"
        raise PhotoError(msg)
    top = 1.0 if values.max(initial=0) <= 1 else 255.0 if values.max() <= 255 else 65535.0
    if values.min(initial=0) < 0 or values.max(initial=0) > top:
        msg = f"the picture holds values from {values.min():g} to {values.max():g}, which is no range of a photo"
        raise PhotoError(msg)
    return Photo(to_image(np.stack([values] * 3, -1), top), bits=16 if top != 255 else 8, grey=True)


def _read_16(path: Path, max_megapixels: float) -> Photo:
    image = load_vips().Image.new_from_file(str(path), fail_on="truncated").autorot()
    _check_size(path, (image.width, image.height), max_megapixels)
    array: NDArray[np.uint16] = image.numpy()
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint16:
        msg = f"expected 16-bit samples, found {array.dtype}"
        raise PhotoError(msg)
    bands = array.shape[2]
    grey = bands <= 2
    alpha = to_plane(array[..., -1], 65535) if bands in (2, 4) else None
    rgb = np.repeat(array[..., :1], 3, axis=2) if grey else array[..., :3]
    return Photo(to_image(rgb, 65535), alpha, 16, grey, path=path)


def read_rgb8(path: Path) -> NDArray[np.uint8]:
    """Read a photo as upright 8-bit RGB (H, W, 3), for training and benchmarks."""
    _check_file(path)
    try:
        with opened(path) as picture:
            return _rgb8(picture)
    except (OSError, ValueError) as error:
        msg = f"{path}: {error}"
        raise PhotoError(msg) from error


def _rgb8(picture: PIL.Image.Image) -> NDArray[np.uint8]:
    return np.asarray(_upright(picture).convert("RGB"))


def read_shard(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield name and pixels, as `read_rgb8` gives them, of each photo in a tar file (webdataset's shards)."""
    with _said(path), tarfile.open(path) as shard:
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
    with _said(path), opened(path) as picture:
        width, height = picture.size
        turned = picture.getexif().get(0x0112, 1) >= 5
    return (width, height) if turned else (height, width)


def decoded_size(path: Path) -> tuple[int, int]:
    """Decode a file that clareo has written, to its end, and return height and width; it need not fit the limit."""
    with _said(path), contextlib.suppress(PIL.UnidentifiedImageError), opened(path) as picture:
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
        return from_picture(source)
    if isinstance(source, torch.Tensor):
        return from_tensor(source)
    if isinstance(source, np.ndarray):
        return from_array(source)
    msg = f"a photo is a path, a Pillow image, a NumPy array or a tensor, not {type(source).__name__}"
    raise UsageError(msg)
