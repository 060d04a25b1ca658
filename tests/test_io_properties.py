"""What holds of any photo, drawn from a seed; and whatever bytes the reader is given, it reads them or says why not."""

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

from clareo import planning
from clareo.errors import ClareoError, PhotoError
from clareo.io import Photo, as_photo, count_frames, photo_size, read_photo, read_rgb8, write_photo
from clareo.io.alpha import bleed
from clareo.io.photo import from_bands
from clareo.system import System
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


def draws(count: int) -> Iterator[np.random.Generator]:
    for seed in range(count):
        yield np.random.default_rng(seed)


def drawn(rng: np.random.Generator, bits: int, bands: int) -> tuple[Photo, np.ndarray]:
    """A photo of any size with any of what a photo may carry, and its integers (H, W, bands)."""
    height, width = rng.integers(1, 40, 2)
    top = 2**bits - 1
    array = rng.integers(0, top + 1, (height, width, bands), dtype=np.uint16 if bits == 16 else np.uint8)
    if bands in (2, 4):
        array[..., -1] = np.maximum(array[..., -1], 1)  # nothing is hidden
    photo = from_bands(array, top, 16 if bits == 16 else 8)
    carried = {
        "icc": (None, *((grey_profile(),) * 2 if bands <= 2 else (srgb(), wide_gamut())))[rng.integers(3)],
        "exif": (None, camera().tobytes())[rng.integers(2)],
        "xmp": (None, XMP)[rng.integers(2)],
        "dpi": (None, (300.0, 300.0), (96.0, 72.0))[rng.integers(3)],
    }
    return replace(photo, **carried), array


def integers(photo: Photo) -> np.ndarray:
    planes = photo.pixels[0, :1] if photo.grey else photo.pixels[0]
    planes = planes if photo.alpha is None else torch.cat([planes, photo.alpha[0]])
    return planes.permute(1, 2, 0).double().mul(2**photo.bits - 1).round().numpy()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_written_is_read(suffix: str, bands: int, bits: int, tmp_path: Path) -> None:
    """Pixels to the last bit where the format can, and everything that goes with them."""
    if suffix == ".webp" and (bits == 16 or bands <= 2):
        pytest.skip("WebP has neither 16 bits nor grey")
    for rng in draws(8):
        photo, array = drawn(rng, bits, bands)
        photo = replace(photo, exact=True)
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


def test_bleeding_touches_nothing_that_can_be_seen_and_invents_no_colour() -> None:
    for rng in draws(40):
        height, width = (int(side) for side in rng.integers(1, 40, 2))
        image = torch.from_numpy(rng.random((1, 3, height, width), dtype=np.float32))
        alpha = torch.from_numpy((rng.random((1, 1, height, width)) > rng.random()).astype(np.float32))
        filled = bleed(image, alpha)
        seen = alpha.expand_as(image) > 0
        assert torch.equal(filled[seen], image[seen])
        if bool(seen.any()):
            for colour in range(3):
                shown = image[:, colour][seen[:, colour]]
                assert float(filled[:, colour].min()) >= float(shown.min()) - 1e-5
                assert float(filled[:, colour].max()) <= float(shown.max()) + 1e-5
        loud = torch.where(seen, image, torch.full_like(image, 7.0))
        assert not bool(seen.any()) or torch.equal(bleed(loud, alpha), filled)  # whatever was hidden


def test_any_plan_comes_back_from_its_sidecar(unires: System, tmp_path: Path) -> None:
    for rng in draws(60):
        raw = rng.normal(size=len(unires.experts))
        weights = dict(zip(unires.experts, (raw / raw.sum()).round(3).tolist(), strict=True))
        weights[unires.experts[0]] = 1 - sum(list(weights.values())[1:])
        plan = planning.complete(
            unires,
            weights=weights,
            steps=int(rng.integers(1, 20)),
            seed=int(rng.integers(0, 2**31)),
            upscale=int(rng.integers(1, 5)),
            tile=int(rng.integers(2, 16)) * 64,
            precision="fp32",
        )
        path = tmp_path / "plan.json"
        path.write_text(__import__("json").dumps({"plan": plan.to_json()}))
        assert planning.check(planning.read_plan(path)[0], unires) == plan


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
