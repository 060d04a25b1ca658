"""16-bit photos, through libvips: Pillow would cut them down to 8 bits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from clareo.errors import PhotoError
from clareo.io.formats import check_size
from clareo.io.metadata import Kept, clean_dpi, clean_xmp, space_of
from clareo.io.photo import Photo, from_bands, load_vips
from clareo.io.tiff import add_exif

USUAL_DPI = (72.0, 72.0)  # libvips always writes one; programs take this for "not known"
ICC, XMP, EXIF = "icc-profile-data", "xmp-data", "exif-data"  # fields of libvips
KEEP = {EXIF: 1, XMP: 2, ICC: 8}  # its flags


def read_deep(path: Path, max_megapixels: float, page: int = 0) -> Photo:
    """Read a PNG or TIFF of 16 bits or floats, upright."""
    vips = load_vips()
    options = {"page": page} if page else {}
    source = vips.Source.new_from_file(os.fsencode(path))  # bytes: old names are not always Unicode
    image = vips.Image.new_from_source(source, "", fail_on="truncated", **options)
    check_size(path, (image.width, image.height), max_megapixels)
    image = image.autorot()
    if image.interpretation == "cmyk":  # four inks would pass for three colours and alpha
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=16)
        image.remove(ICC)
    array = image.numpy().reshape(image.height, image.width, image.bands)  # pyvips drops what is 1
    notes: tuple[str, ...] = ()
    if array.shape[2] > 4:
        notes = (f"{array.shape[2] - 3} extra channels were left out",)
        array = array[..., :3]
    return replace(_from_samples(array), **_kept(image), notes=notes, path=path)


def _from_samples(array: NDArray[Any]) -> Photo:
    if array.dtype == np.uint16:
        return from_bands(array, 65535, 16)
    if array.dtype == np.uint8:  # a layout that Pillow does not know
        return from_bands(array, 255, 8)
    if array.dtype.kind == "f":
        return from_numbers(array.astype(np.float32))
    msg = f"holds samples of {array.dtype}, which no photo has"
    raise PhotoError(msg)


def from_numbers(values: NDArray[np.float32], top: float | None = None) -> Photo:
    """Accept (H, W, 1 to 4) numbers whose range is evident; a little more than white or less than black is cut."""
    if not np.isfinite(values).all():
        msg = "the picture holds values that are not finite"
        raise PhotoError(msg)
    low, high = float(values.min()), float(values.max())
    if top is None:
        tops = [each for each in (1.0, 255.0, 65535.0) if -0.1 * each <= low and high <= 1.1 * each]
        if not tops or (tops[0] > 1 and high < 0.05 * tops[0]):
            msg = f"the picture holds values from {low:g} to {high:g}, which is no evident range of a photo"
            raise PhotoError(msg)
        top = tops[0]
    return from_bands(values.clip(0, top), top, 8 if top == 255 else 16)


def _kept(image: Any) -> dict[str, Any]:  # noqa: ANN401 - an untyped library
    """Return what Pillow would have found, where it does not know the layout."""
    icc = bytes(image.get(ICC)) if image.get_typeof(ICC) else None
    if icc is not None and space_of(icc) != ("GRAY" if image.bands <= 2 else "RGB"):
        icc = None
    xmp, _ = clean_xmp(image.get(XMP) if image.get_typeof(XMP) else None)
    return {"icc": icc, "xmp": xmp, "dpi": clean_dpi((image.xres * 25.4, image.yres * 25.4))}


def with_kept(photo: Photo, kept: Kept) -> Photo:
    """Put what Pillow found in the place of what libvips found."""
    xmp = kept.xmp or photo.xmp  # which a PNG may have behind its pixels
    return replace(photo, icc=kept.icc, exif=kept.exif, xmp=xmp, dpi=kept.dpi, notes=(*kept.notes, *photo.notes))


def write_deep(array: NDArray[np.uint16], like: Photo, exif: PIL.Image.Exif | None, path: Path) -> None:
    """Write (H, W, 1 to 4) as a PNG or TIFF of 16 bits."""
    vips = load_vips()
    grey, png = array.shape[2] <= 2, path.suffix.lower() == ".png"
    image = vips.Image.new_from_array(array, interpretation="grey16" if grey else "rgb16")
    blobs = {ICC: like.icc, XMP: like.xmp, EXIF: exif.tobytes() if exif and png else None}
    for field, blob in blobs.items():
        if blob:
            image.set_type(vips.GValue.blob_type, field, blob)
    across, down = like.dpi or USUAL_DPI
    image = image.copy(xres=across / 25.4, yres=down / 25.4)
    options: dict[str, Any] = {"bitdepth": 16} if png else {"compression": "lzw"}
    options["keep"] = sum(KEEP[field] for field, blob in blobs.items() if blob)  # and nothing that it makes up
    image.write_to_file(os.fsencode(path), **options)
    if exif and not png:
        add_exif(path, exif)
