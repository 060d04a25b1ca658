"""Photo file <-> image, and everything about a photo that is not pixels.

A photo keeps its orientation (applied once, tag reset), ICC profile, EXIF, XMP, resolution, alpha, bit depth and
greyness. Pixels stay in the photo's own colour space, and its profile goes with them.
"""

from clareo.io.formats import MAX_MEGAPIXELS, SUFFIXES
from clareo.io.photo import Photo
from clareo.io.read import (
    as_photo,
    count_frames,
    from_picture,
    list_photos,
    photo_bits,
    photo_size,
    read_frames,
    read_photo,
    read_rgb8,
    read_shard,
    read_view,
)
from clareo.io.write import WRITTEN, atomic, check_target, output_place, to_picture, write_photo

__all__ = [
    "MAX_MEGAPIXELS",
    "SUFFIXES",
    "WRITTEN",
    "Photo",
    "as_photo",
    "atomic",
    "check_target",
    "count_frames",
    "from_picture",
    "list_photos",
    "output_place",
    "photo_bits",
    "photo_size",
    "read_frames",
    "read_photo",
    "read_rgb8",
    "read_shard",
    "read_view",
    "to_picture",
    "write_photo",
]
