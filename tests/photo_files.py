"""Files of every kind, sound and broken, made on the spot for the tests of reading and writing."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pyvips
from numpy.typing import NDArray

Array = NDArray[np.uint8]
KEEP = ("--weights", "keep=1", "--json")  # no network is asked: reading and writing are what is tested
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="1" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="an attic"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def scene(height: int = 12, width: int = 16, seed: int = 0) -> Array:
    """A smooth picture (H, W, 3) with some noise: JPEG keeps it well."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = np.stack([x, y, 1 - x], -1) * 200 + rng.integers(0, 8, (height, width, 3))
    return planes.astype(np.uint8)


def encoded(array: Array | PIL.Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A picture file in memory."""
    picture = array if isinstance(array, PIL.Image.Image) else PIL.Image.fromarray(array)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def half(content: bytes) -> bytes:
    """What an interrupted copy leaves."""
    return content[: len(content) // 2]


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*extra: bytes, size: tuple[int, int] = (4, 4), rows: bytes | None = None) -> bytes:
    """An RGB PNG that claims a (width, height), with further chunks before its pixels."""
    head = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + b"\x80" * 3 * size[0] for _ in range(size[1])) if rows is None else rows
    parts = (chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def packed_bomb() -> bytes:
    """Two kilobytes that unpack to two megabytes."""
    return zlib.compress(b"\0" * 2_000_000, 9)


def deep(values: NDArray[np.generic], kind: str, interpretation: str = "rgb16") -> bytes:
    """A PNG or TIFF of 16 bits or floats, by libvips."""
    image = pyvips.Image.new_from_array(values, interpretation=interpretation)
    written: bytes = image.write_to_buffer(kind)
    return written


@functools.cache
def srgb() -> bytes:
    """A colour profile; it tells the second in which it was made."""
    return PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def wide_gamut() -> bytes:
    """A profile whose green lies far outside of sRGB."""
    profile = bytearray(srgb())
    entries = [struct.unpack(">4sII", profile[at : at + 12]) for at in range(132, 132 + 12 * profile[131], 12)]
    places = {name: place for name, place, _ in entries}
    for name, xyz in {b"rXYZ": (0.61, 0.31, 0.02), b"gXYZ": (0.21, 0.63, 0.07), b"bXYZ": (0.15, 0.06, 0.74)}.items():
        numbers = (round(value * 65536) for value in xyz)  # Adobe RGB's primaries
        profile[places[name] + 8 : places[name] + 20] = struct.pack(">3i", *numbers)
    return bytes(profile)


def grey_profile() -> bytes:
    """A profile for grey pictures: that of sRGB with one curve instead of three."""
    profile = bytearray(srgb().replace(b"rTRC", b"kTRC"))
    profile[16:20] = b"GRAY"
    return bytes(profile)


def camera(orientation: int = 1) -> PIL.Image.Exif:
    """EXIF as a camera writes it: maker, time of exposure, size, place."""
    exif = PIL.Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", orientation
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0xA002: 16, 0xA003: 12})
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def ycck(array: Array) -> bytes:
    """A JPEG with four inks, three of them as brightness and colour, as Photoshop writes it."""
    brightness = np.asarray(PIL.Image.fromarray(255 - array).convert("YCbCr"))  # of the inks
    inks = np.dstack([brightness, np.full(array.shape[:2], 255, np.uint8)])  # no black: Adobe stores inks inverted
    content = bytearray(encoded(PIL.Image.fromarray(255 - inks, "CMYK"), "JPEG", quality=100, subsampling=0))
    content[content.index(b"Adobe") + 11] = 2  # the transform: 2 is YCCK
    return bytes(content)


def heif(brand: bytes, *compatible: bytes) -> bytes:
    """The beginning of a HEIC, AVIF or film, and nothing more."""
    brands = b"".join(compatible)
    return struct.pack(">I", 16 + len(brands)) + b"ftyp" + brand + b"\0\0\0\0" + brands + b"\0\0\0\x10mdat" + b"x" * 64


def several(kind: str, frames: int = 3) -> bytes:
    """An animation or a document of pages."""
    pictures = [PIL.Image.fromarray(scene(seed=number) // (number + 1)) for number in range(frames)]
    return encoded(pictures[0], kind, save_all=True, append_images=pictures[1:])


def put(content: bytes, path: Path) -> Path:
    """Write a file, folders and all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
