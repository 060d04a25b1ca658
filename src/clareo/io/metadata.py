"""What a photo carries beside its pixels: EXIF, XMP, colour profile, resolution; and what of it can be trusted."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from typing import Any

import PIL.Image
import PIL.ImageCms
import PIL.ImageOps

from clareo.io.photo import Tables

ORIENTATION, EXIF_IFD, WIDTH, HEIGHT, XMP = 0x0112, 0x8769, 0xA002, 0xA003, 700  # tags of EXIF and TIFF
TIFF_LAYOUT = frozenset(  # how a TIFF file lays out its own pixels: false of any other file
    {254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 284, 317, 318, 319, 320, 322, 323, 324, 325}
    | {330, 332, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, XMP, 34675}
)


@dataclass(frozen=True)
class Kept:
    """What goes from a photo file to the restored one, and what could not."""

    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    tables: Tables | None = None
    exact: bool = False
    notes: tuple[str, ...] = ()


def kept_of(picture: PIL.Image.Image, found: tuple[bytes | None, str], *, grey: bool) -> Kept:
    """Collect it from a picture that Pillow has opened, after `exif_of`; a PNG may say more behind its pixels."""
    exif, of_exif = found
    xmp, of_xmp = clean_xmp(picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp"))
    icc, of_icc = _icc(picture, grey=grey)
    notes = tuple(note for note in (of_exif, of_xmp, of_icc) if note)
    return Kept(exif, xmp, icc, clean_dpi(picture.info.get("dpi")), _tables(picture), notes=notes)


def turned(picture: PIL.Image.Image) -> bool:
    """Tell whether upright is sideways in the file; broken EXIF says nothing about it."""
    try:
        return picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # noqa: BLE001
        return False


def upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Apply the orientation."""
    picture.load()  # a broken picture fails here, and not as if its EXIF was to blame
    try:
        if picture.getexif().get(ORIENTATION, 1) == 1:
            return picture  # a large one is not copied
        return PIL.ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - malformed EXIF says nothing about orientation; the pixels are good
        return picture.copy()


def exif_of(picture: PIL.Image.Image) -> tuple[bytes | None, str]:
    """Return the EXIF block with its orientation reset, which is applied to the pixels; and what is wrong with it.

    To be asked before the pixels are: Pillow closes a TIFF behind them.
    """
    try:
        exif = PIL.Image.Exif()  # a copy: the picture may be the user's
        exif.load(picture.getexif().tobytes())
        for tag in TIFF_LAYOUT & set(exif):
            del exif[tag]
        if ORIENTATION in exif:
            exif[ORIENTATION] = 1
        if exif:
            return exif.tobytes(), ""
    except Exception:  # noqa: BLE001 - costs the EXIF, not the photo
        return None, "its EXIF is broken and was left out"
    return None, "its EXIF is broken and was left out" if picture.info.get("exif") else ""


def for_size(exif: bytes, size: tuple[int, int]) -> PIL.Image.Exif:
    """Return an EXIF block for a photo of another (height, width), where it says any."""
    block = PIL.Image.Exif()
    block.load(exif)
    inner = block.get_ifd(EXIF_IFD)
    for tag, extent in ((HEIGHT, size[0]), (WIDTH, size[1])):
        if tag in inner:
            inner[tag] = extent
    return block


def clean_xmp(found: Any) -> tuple[bytes | None, str]:  # noqa: ANN401 - whatever a decoder found
    """Return XMP with its orientation reset, unless it is no text."""
    if not found:
        return None, ""
    try:
        text = found if isinstance(found, str) else bytes(found).rstrip(b"\0").decode("utf-8")
    except (TypeError, UnicodeDecodeError):
        return None, "its XMP is broken and was left out"
    if "<" not in text:
        return None, "its XMP is broken and was left out"
    return re.sub(r'(tiff:Orientation(?:="|>))[2-8]', r"\g<1>1", text).encode(), ""


def _icc(picture: PIL.Image.Image, *, grey: bool) -> tuple[bytes | None, str]:
    """Return the colour profile, if it is one and for pictures such as this."""
    icc = picture.info.get("icc_profile")
    if not icc:
        return None, ""
    space = space_of(icc)
    if space == ("GRAY" if grey else {"CMYK": "CMYK", "LAB": "Lab"}.get(picture.mode, "RGB")):
        return icc, ""
    what = f"is for {space} pictures" if space else "is broken"
    return None, f"its colour profile {what} and was left out"


def is_grey(picture: PIL.Image.Image) -> bool:
    """Tell whether a picture has brightness only."""
    return picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")


def space_of(icc: bytes) -> str:
    """Return the kind of colours that a profile is about: RGB, GRAY, CMYK, ...; nothing if it is broken."""
    try:
        return str(PIL.ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space).strip()
    except (OSError, PIL.ImageCms.PyCMSError):
        return ""


def clean_dpi(dpi: Any) -> tuple[float, float] | None:  # noqa: ANN401 - whatever a decoder found
    """Return a resolution that a printer could have; files hold zeros, fractions of zero and worse."""
    try:
        across, down = (float(each) for each in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if all(math.isfinite(each) and 1 <= each <= 30000 for each in (across, down)) else None


def _tables(picture: PIL.Image.Image) -> Tables | None:
    found: dict[int, list[int]] = getattr(picture, "quantization", {})
    return tuple(tuple(found[number]) for number in sorted(found)) or None
