"""Which files are photos at all: told by their first bytes, never by their name."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import PIL.features
import PIL.Image

from clareo.errors import ClareoError, PhotoError, TooLargeError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif"}
)
MAX_MEGAPIXELS = 100.0
PILLOW_MEGAPIXELS = 178.0  # Pillow refuses more as a decompression bomb
TIFF = (b"II*\0", b"MM\0*")

# What Pillow may try. Its other readers are for drawings, films and microscopes; one starts a PostScript interpreter.
READERS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "HEIF", "PPM", "JPEG2000", "TGA", "PCX")

EXPORT, DEVELOP = "export it as PNG first", "develop it first"
REFUSED = (  # how a file begins, what it is, what to do
    (b"%PDF", "PDF", EXPORT),
    (b"%!PS", "PostScript", EXPORT),
    (b"\xc5\xd0\xd3\xc6", "PostScript", EXPORT),
    (b"8BPS", "a Photoshop document", EXPORT),
    (b"\xff\x0a", "JPEG XL", EXPORT),
    (b"\0\0\0\x0cJXL ", "JPEG XL", EXPORT),
    (b"\x1f\x8b", "a compressed file", "unpack it first"),
    (b"PK\x03\x04", "an archive", "unpack it first"),
    (b"II*\0\x10\0\0\0CR", "a camera's raw file", DEVELOP),
    (b"FUJIFILM", "a camera's raw file", DEVELOP),
    (b"IIU\0", "a camera's raw file", DEVELOP),
    (b"IIRO", "a camera's raw file", DEVELOP),
    (b"IIRS", "a camera's raw file", DEVELOP),
)
MARKUP = ((b"<svg", "SVG", EXPORT), (b"<html", "a web page", "download the picture itself"))
HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
AVIF = frozenset({b"avif", b"avis"})


@contextlib.contextmanager
def said(path: object) -> Iterator[None]:
    """Turn whatever a decoder raises on a broken file into an error that names it."""
    try:
        yield
    except PhotoError as error:
        if str(path) in str(error):
            raise
        msg = f"{path}: {error}"
        raise type(error)(msg) from error
    except ClareoError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "MAX_TEXT" in reason:  # text or a profile that unpacks to far more than it takes up: a bomb in small
            reason = "a text or profile in it unpacks to more than any photo's would"
        msg = f"{path}: cannot be read as a photo ({reason})"
        raise PhotoError(msg) from error


def check_file(path: Path) -> bytes:
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
    except ValueError as error:  # a zero byte in the name
        msg = f"{str(path)!r}: {error}"
        raise PhotoError(msg) from error
    if not head:
        msg = f"{path}: the file is empty"
        raise PhotoError(msg)
    if not head.strip(b"\0"):
        msg = f"{path}: the file holds zeros only, as a broken copy or disk leaves behind"
        raise PhotoError(msg)
    _refuse(path, head)
    return head


def _refuse(path: Path, head: bytes) -> None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    found = [(name, cure) for magic, name, cure in REFUSED if text.startswith(magic)]
    if text.startswith(b"<"):
        found += [(name, cure) for magic, name, cure in MARKUP if magic in text.lower()]
    if head[4:8] == b"ftyp":
        found += _codec(head)
    for name, cure in found:
        msg = f"{path}: {name} is not a photo; {cure}" if cure in (EXPORT, DEVELOP) else f"{path}: {name}; {cure}"
        raise PhotoError(msg)


def _codec(head: bytes) -> list[tuple[str, str]]:
    """Say what a file of the MPEG family lacks: a codec on this machine, or a photo."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, end, 4))}
    if brands & AVIF:
        there = PIL.features.check("avif")
        return [] if there else [("AVIF needs a codec that is not here", "pip install --upgrade pillow")]
    if brands & HEIC:
        there = has_heic()
        return [] if there else [("HEIC needs a codec that is not here", "pip install 'clareo[heic]'")]
    return [("a camera's raw file", DEVELOP)] if b"crx " in brands else [("a film", "a photo is one picture")]


@functools.cache
def has_heic() -> bool:
    """Tell whether HEIC can be read, and teach Pillow how."""
    try:
        from pillow_heif import register_heif_opener  # noqa: PLC0415
    except ImportError:
        return False
    register_heif_opener()
    return True


def _readers() -> tuple[str, ...]:
    PIL.Image.init()  # does nothing the second time
    return tuple(name for name in READERS if name in PIL.Image.OPEN)


@contextlib.contextmanager
def opened(path: Path | IO[bytes]) -> Iterator[PIL.Image.Image]:
    """Open a picture with Pillow, whose warnings say nothing that a user could act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # `check_size` decides, with our limit
        warnings.filterwarnings("ignore", module="PIL")  # corrupt EXIF warns; the photo can still be restored
        try:
            picture = PIL.Image.open(path, formats=_readers())
        except PIL.Image.DecompressionBombError as error:
            msg = f"{path}: refused as a decompression bomb ({error})"
            raise TooLargeError(msg) from error
        with picture:
            yield picture


def check_size(path: Path, size: tuple[int, int], max_megapixels: float) -> None:
    """Refuse a photo, (width, height), before its pixels are unpacked."""
    limit = min(max_megapixels, PILLOW_MEGAPIXELS)
    megapixels = size[0] * size[1] / 1e6
    if megapixels > limit:
        hint = f"raise it with --max-megapixels, up to {PILLOW_MEGAPIXELS:g}" if limit < PILLOW_MEGAPIXELS else "final"
        msg = f"{path}: {megapixels:.1f} megapixels are over the limit of {limit:g} ({hint})"
        raise TooLargeError(msg)


def refuse_raw(picture: PIL.Image.Image) -> None:
    """Refuse raw files that pass as TIFF: the picture in front is a thumbnail."""
    tags = getattr(picture, "tag_v2", {})
    if 50706 in tags or (254 in tags and int(tags[254]) & 1):  # DNGVersion; NewSubfileType: reduced resolution
        msg = f"a camera's raw file is not a photo; {DEVELOP}"
        raise PhotoError(msg)
