"""Photo file <-> image, and everything about a photo that is not pixels.

A photo keeps its orientation (applied once, tag reset), ICC profile, EXIF, resolution, alpha, bit depth and greyness.
Pixels stay in the photo's own colour space, and its profile goes with them.
"""

from clareo.io.photo import Photo
from clareo.io.read import (
    MAX_MEGAPIXELS,
    SUFFIXES,
    as_photo,
    from_picture,
    list_photos,
    photo_size,
    read_photo,
    read_rgb8,
    read_shard,
)
from clareo.io.write import WRITTEN, atomic, output_suffix, to_picture, write_photo

__all__ = [
    "MAX_MEGAPIXELS",
    "SUFFIXES",
    "WRITTEN",
    "Photo",
    "as_photo",
    "atomic",
    "from_picture",
    "list_photos",
    "output_suffix",
    "photo_size",
    "read_photo",
    "read_rgb8",
    "read_shard",
    "to_picture",
    "write_photo",
]
