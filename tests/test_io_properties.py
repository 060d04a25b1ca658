"""What holds of any photo, and whatever bytes the reader is given: it reads them, or says why not."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from clareo.errors import ClareoError, PhotoError
from clareo.io import Photo, as_photo, count_frames, photo_size, read_photo, read_rgb8, write_photo
from clareo.io.alpha import bleed
from clareo.io.photo import from_bands
from photo_files import (
    XMP,
    camera,
    deep,
    encoded,
    grey_profile,
    heif,
    png_with,
    put,
    scene,
    several,
    srgb,
    wide_gamut,
    ycck,
)

MUTATIONS, SLOWEST = 600, 5.0  # of files; seconds for one


@st.composite
def arrays_of(draw: st.DrawFn, bits: int, bands: int) -> np.ndarray:
    """Integers (H, W, bands): few of any value, or many of noise. Nothing is hidden below transparency."""
    dtype, top = (np.uint16 if bits == 16 else np.uint8), 2**bits - 1
    side = st.integers(1, 40)
    few = arrays(dtype, array_shapes(min_dims=2, max_dims=2, max_side=6).map(lambda size: (*size, bands)))
    noise = st.builds(
        lambda height, width, seed: np.random.default_rng(seed).integers(0, top + 1, (height, width, bands), dtype),
        side,
        side,
        st.integers(0, 2**32 - 1),
    )
    array = draw(few | noise)
    if bands in (2, 4):
        array[..., -1] = np.maximum(array[..., -1], 1)
    return array


@st.composite
def drawn(draw: st.DrawFn, bits: int, bands: int) -> tuple[Photo, np.ndarray]:
    """A photo of any size with any of what a photo may carry, and its integers (H, W, bands)."""
    array = draw(arrays_of(bits, bands))
    carried = {
        "icc": draw(st.sampled_from([None, grey_profile()] if bands <= 2 else [None, srgb(), wide_gamut()])),
        "exif": draw(st.sampled_from([None, camera().tobytes()])),
        "xmp": draw(st.sampled_from([None, XMP])),
        "dpi": draw(st.sampled_from([None, (300.0, 300.0), (96.0, 72.0)])),
    }
    return replace(from_bands(array, 2**bits - 1, 16 if bits == 16 else 8), **carried, exact=True), array


def integers(photo: Photo) -> np.ndarray:
    planes = photo.pixels[0, :1] if photo.grey else photo.pixels[0]
    planes = planes if photo.alpha is None else torch.cat([planes, photo.alpha[0]])
    return planes.permute(1, 2, 0).double().mul(2**photo.bits - 1).round().numpy()


LAYOUTS = [(suffix, bits, bands) for suffix in (".png", ".tif") for bits in (8, 16) for bands in (1, 2, 3, 4)]
LAYOUTS += [(".webp", 8, 3), (".webp", 8, 4)]  # it has neither 16 bits nor grey


@pytest.mark.parametrize(("suffix", "bits", "bands"), LAYOUTS)
@settings(max_examples=12)
@given(data=st.data())
def test_what_is_written_is_read(suffix: str, bits: int, bands: int, tmp_path: Path, data: st.DataObject) -> None:
    """Pixels to the last bit where the format can, and everything that goes with them."""
    photo, array = data.draw(drawn(bits, bands))
    again = read_photo(write_photo(photo.pixels, photo, tmp_path / f"photo{suffix}"))
    assert np.array_equal(integers(again), array)
    assert (again.bits, again.grey, again.icc, again.xmp) == (bits, bands <= 2, photo.icc, photo.xmp)
    assert (again.notes, again.exact) == ((), suffix == ".webp")
    unknown_to_pillow = suffix == ".tif" and (bits, bands) == (16, 2)
    if photo.exif is not None and not unknown_to_pillow:
        check_camera(again)
    if photo.dpi is not None and suffix != ".webp":
        assert again.dpi == pytest.approx(photo.dpi, abs=0.05)
    twice = read_photo(write_photo(again.pixels, again, tmp_path / f"twice{suffix}"))
    assert np.array_equal(integers(twice), array)


def check_camera(photo: Photo) -> None:
    """EXIF is there, inner directories and all, and tells the size that the photo has now."""
    assert photo.exif is not None
    exif = PIL.Image.Exif()
    exif.load(photo.exif)
    inner = exif.get_ifd(0x8769)
    assert exif[0x010F] == "a camera"
    assert float(inner[0x829A]) == pytest.approx(0.01)
    assert (inner[0xA003], inner[0xA002]) == photo.size
    assert exif.get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_strip_drops_what_tells_on_people_and_keeps_the_colours(suffix: str, bits: int, tmp_path: Path) -> None:
    photo = replace(as_photo(scene()), bits=bits, icc=wide_gamut(), exif=camera().tobytes(), xmp=XMP, dpi=(300, 300))
    written = write_photo(photo.pixels, photo.stripped(), tmp_path / f"photo{suffix}")
    content, again = written.read_bytes(), read_photo(written)
    assert b"a camera" not in content
    assert b"an attic" not in content
    assert (again.icc, again.xmp) == (wide_gamut(), None)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_metadata_goes_from_every_format_into_every_other(kind: str, tmp_path: Path) -> None:
    source = read_photo(put(encoded(scene(), kind, exif=camera().tobytes(), icc_profile=srgb()), tmp_path / "in"))
    for suffix in (".jpg", ".png", ".webp", ".tif", ".avif"):
        again = read_photo(write_photo(source.pixels, replace(source, xmp=XMP), tmp_path / f"photo{suffix}"))
        check_camera(again)
        assert (again.icc, again.xmp, again.notes) == (srgb(), XMP, ())


@pytest.mark.parametrize("quality", [30, 75, 92, 97, 99, 100])
@pytest.mark.parametrize("grey", [False, True])
def test_jpeg_is_never_written_coarser_than_it_came(quality: int, grey: bool, tmp_path: Path) -> None:
    array = scene(48, 64)[..., 0] if grey else scene(48, 64)
    source = read_photo(put(encoded(array, "JPEG", quality=quality), tmp_path / "in.jpg"))
    written = write_photo(source.pixels, source, tmp_path / "out.jpg")
    again = read_photo(written)
    assert source.tables is not None
    assert again.tables is not None
    ours = read_photo(put(encoded(array, "JPEG", quality=95), tmp_path / "ours.jpg")).tables
    assert ours is not None
    for number, table in enumerate(again.tables):
        assert all(a <= b for a, b in zip(table, source.tables[number], strict=True))
        assert all(a <= b for a, b in zip(table, ours[number], strict=True))
    with PIL.Image.open(written) as picture:
        assert PIL.JpegImagePlugin.get_sampling(picture) == (-1 if grey else 0)  # 4:4:4


SIDES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=60)
@given(size=SIDES, share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_bleeding_touches_nothing_that_can_be_seen_and_invents_no_colour(
    size: tuple[int, int], share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.random((1, 3, *size), dtype=np.float32))
    alpha = torch.from_numpy((rng.random((1, 1, *size)) < share).astype(np.float32))
    filled, seen = bleed(image, alpha), alpha.expand_as(image) > 0
    assert torch.equal(filled[seen], image[seen])
    if not bool(seen.any()):
        assert torch.equal(filled, image)  # a broken plane: the colours are all there is
        return
    for colour in range(3):
        shown = image[:, colour][seen[:, colour]]
        assert float(filled[:, colour].min()) >= float(shown.min()) - 1e-5
        assert float(filled[:, colour].max()) <= float(shown.max()) + 1e-5
    loud = torch.where(seen, image, torch.full_like(image, 7.0))
    assert torch.equal(bleed(loud, alpha), filled)  # whatever was hidden


# --- whatever bytes come ---------------------------------------------------------------------------------------------


def seeds() -> dict[str, bytes]:
    """One small sound file of every kind that is read."""
    colour, wide = scene(), PIL.Image.fromarray(scene())
    everything = {"exif": camera(6), "icc_profile": srgb(), "xmp": XMP}
    return {
        "a.jpg": encoded(colour, "JPEG", **everything),
        "b.jpg": ycck(colour),
        "c.jpg": several("MPO", 2),
        "a.png": encoded(colour, exif=camera(3), icc_profile=srgb()),
        "b.png": deep(colour.astype("u2") * 250, ".png"),
        "c.png": several("PNG"),
        "d.png": encoded(wide.quantize(8), transparency=3),
        "e.png": png_with(),
        "a.webp": encoded(colour, "WEBP", **everything),
        "b.webp": several("WEBP"),
        "c.webp": encoded(colour, "WEBP", lossless=True),
        "a.tif": encoded(colour, "TIFF", exif=camera(8), compression="tiff_lzw"),
        "b.tif": deep(colour.astype("u2") * 250, ".tif"),
        "c.tif": several("TIFF"),
        "d.tif": encoded(wide.convert("CMYK"), "TIFF"),
        "e.tif": encoded(wide.convert("F"), "TIFF"),
        "a.gif": several("GIF"),
        "a.bmp": encoded(colour, "BMP"),
        "a.avif": encoded(colour, "AVIF"),
        "a.heic": heif(b"heic", b"mif1"),
        "a.jp2": encoded(colour, "JPEG2000"),
        "a.ppm": encoded(colour, "PPM"),
        "a.pcx": encoded(colour, "PCX"),
        "a.tga": encoded(colour, "TGA"),
    }


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut out, repeat or overwrite some bytes."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        at, length = int(rng.integers(0, len(data) + 1)), int(rng.integers(1, 9))
        how = int(rng.integers(5))
        if how == 0:
            data[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        elif how == 1:
            del data[at : at + length]
        elif how == 2:
            data[at:at] = data[at : at + length * 4]
        elif how == 3:
            data[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"])
        else:
            del data[max(1, at) :]
        data = data or bytearray(b"\0")
    return bytes(data)


def test_whatever_bytes_come_the_reader_reads_them_or_says_why_not(tmp_path: Path) -> None:
    """Only `PhotoError`, always with the name, never for long; what is read has numbers for pixels."""
    kinds, read = seeds(), 0
    for number in range(MUTATIONS):
        rng = np.random.default_rng(number)
        name = sorted(kinds)[number % len(kinds)]
        path = put(mutated(kinds[name], rng), tmp_path / name)
        began = time.perf_counter()
        for use in (read_photo, read_rgb8, photo_size, count_frames):
            with contextlib.suppress(PhotoError), named(path):
                found = use(path)
                if isinstance(found, Photo):
                    read += 1
                    assert bool(torch.isfinite(found.pixels).all()), number
                    assert found.pixels.shape[:2] == (1, 3), number
        assert time.perf_counter() - began < SLOWEST, (number, name)
    assert MUTATIONS / 10 < read < MUTATIONS  # some survive, and some do not: both ways are tried


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except PhotoError as error:
        assert str(path) in str(error)  # noqa: PT017
        raise


def test_what_survives_can_be_written(tmp_path: Path) -> None:
    """Whatever metadata a broken file brings along, its photo is written, or it is said why not."""
    kinds = {name: content for name, content in seeds().items() if name in ("a.jpg", "a.png", "a.webp", "a.tif")}
    written = 0
    for number in range(200):
        name = sorted(kinds)[number % len(kinds)]
        path = put(mutated(kinds[name], np.random.default_rng(1000 + number)), tmp_path / name)
        try:
            photo = read_photo(path)
        except PhotoError:
            continue
        for suffix in (".jpg", ".png", ".tif"):
            write_photo(photo.pixels, photo, tmp_path / f"out{suffix}")
            written += 1
    assert written > 60


def test_pictures_that_pillow_cannot_unpack_are_refused_in_words() -> None:
    with pytest.raises(ClareoError, match="the picture: cannot be read"):
        as_photo(PIL.Image.open(io.BytesIO(encoded(scene(64, 64), "BMP")[:999])))
