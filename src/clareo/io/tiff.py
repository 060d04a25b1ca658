"""EXIF into TIFF files: libvips has no place for it there, and libtiff takes no nested directories from Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import PIL.Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from PIL.TiffTags import TAGS_V2_GROUPS

STRIP_OFFSETS, STRIP_SIZES = 273, 279
INTEROP = 0xA005  # an offset into the file that the EXIF came from


def add_exif(path: Path, exif: PIL.Image.Exif) -> None:
    """Write a TIFF of strips once more, with EXIF in its directory and the directory in front."""
    whole = path.read_bytes()
    old: Any = ImageFileDirectory_v2(whole[:8])
    with io.BytesIO(whole) as file:
        file.seek(old.next)
        old.load(file)
    new: Any = ImageFileDirectory_v2(whole[:8])
    for tag in old:
        new[tag], new.tagtype[tag] = old[tag], old.tagtype[tag]
    for tag in set(exif) - set(old):
        inner = exif.get_ifd(tag) if tag in TAGS_V2_GROUPS else {}
        new[tag] = {name: inner[name] for name in inner if name != INTEROP} or exif[tag]
    starts, sizes = old[STRIP_OFFSETS], old[STRIP_SIZES]
    # counted from the end of the directory; Pillow adds where that is
    new[STRIP_OFFSETS] = tuple(sum(sizes[:number]) for number in range(len(sizes)))
    with path.open("wb") as file:
        new.save(file)
        for start, size in zip(starts, sizes, strict=True):
            file.write(whole[start : start + size])
