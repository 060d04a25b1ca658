"""What a photo keeps, and what a bad file is told."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import pyvips
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from clareo.errors import PhotoError, TooLargeError, UsageError
from clareo.io import as_photo, atomic, output_place, photo_bits, read_photo, read_view, write_photo

Array = NDArray[np.uint8]


def save(array: Array, path: Path, **options: object) -> Path:
    PIL.Image.fromarray(array).save(path, **options)
    return path


def test_the_header_tells_how_many_bits_there_are(tmp_path: Path) -> None:
    array = np.zeros((4, 5), np.uint16)
    save(array, tmp_path / "deep.png")
    save(array.astype(np.float32), tmp_path / "float.tif")
    save(array.astype(np.uint8), tmp_path / "usual.jpg")
    assert [photo_bits(tmp_path / name) for name in ("deep.png", "float.tif", "usual.jpg")] == [16, 16, 8]


@pytest.mark.parametrize(
    ("name", "orientation"), [("a.jpg", 1), ("a.jpg", 6), ("a.png", 6), ("a.tif", 3), ("a.webp", 1)]
)
def test_a_view_is_the_photo_in_small(name: str, orientation: int, astronaut: Array, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = save(np.asarray(PIL.Image.fromarray(astronaut).resize((640, 512))), tmp_path / name, exif=exif)
    whole, view = read_photo(path).pixels, read_view(path, 100)
    assert 100 <= min(view.shape[-2:]) < 200
    assert view.shape[-1] / view.shape[-2] == pytest.approx(whole.shape[-1] / whole.shape[-2], rel=0.02)
    small, same = (F.interpolate(image, (12, 12), mode="area") for image in (whole, view))
    assert float((small - same).abs().mean()) < 2 / 255


def test_a_view_of_16_bits_is_the_photo(tmp_path: Path) -> None:
    path = save(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100, tmp_path / "deep.png")
    assert torch.equal(read_view(path, 4), read_photo(path).pixels)


# --- what a photo keeps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_reset(orientation: int, astronaut: Array, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    path = save(astronaut, tmp_path / "photo.png", exif=exif)
    photo = read_photo(path)
    upright = PIL.ImageOps.exif_transpose(PIL.Image.open(path))
    assert torch.equal(photo.pixels, as_photo(np.asarray(upright)).pixels)
    written = write_photo(photo.pixels, photo, tmp_path / "out.png")
    with PIL.Image.open(written) as picture:
        assert picture.getexif().get(0x0112, 1) == 1
        assert picture.getexif()[0x010F] == "a camera"
        assert torch.equal(read_photo(written).pixels, photo.pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_profile_and_resolution_are_kept(suffix: str, astronaut: Array, tmp_path: Path) -> None:
    icc = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    path = save(astronaut, tmp_path / f"photo{suffix}", icc_profile=icc, dpi=(300, 300))
    photo = read_photo(path)
    with PIL.Image.open(write_photo(photo.pixels, photo, tmp_path / f"out{suffix}")) as picture:
        assert picture.info["icc_profile"] == icc
        if suffix != ".webp":  # has no resolution
            assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize(
    ("mode", "comes_back"),
    [("L", "L"), ("LA", "LA"), ("RGBA", "RGBA"), ("1", "L"), ("P", "RGB"), ("CMYK", "RGB"), ("RGB", "RGB")],
)
def test_modes(mode: str, comes_back: str, astronaut: Array, tmp_path: Path) -> None:
    picture = PIL.Image.fromarray(astronaut).convert(mode)
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    picture.save(path)
    photo = read_photo(path)
    with PIL.Image.open(write_photo(photo.pixels, photo, tmp_path / "out.png")) as written:
        assert written.mode == comes_back


def test_alpha_is_carried_through_and_enlarged(astronaut: Array, tmp_path: Path) -> None:
    alpha = np.zeros((128, 160), np.uint8)
    alpha[:, 80:] = 255
    photo = read_photo(save(np.dstack([astronaut, alpha]), tmp_path / "photo.png"))
    doubled = torch.nn.functional.interpolate(photo.pixels, scale_factor=2)
    written = np.asarray(PIL.Image.open(write_photo(doubled, photo, tmp_path / "out.png")))
    assert written.shape == (256, 320, 4)
    assert written[:, :150, 3].max() == 0
    assert written[:, 170:, 3].min() == 255


def test_palette_transparency_becomes_alpha(astronaut: Array, tmp_path: Path) -> None:
    picture = PIL.Image.fromarray(astronaut).quantize(16)
    picture.save(tmp_path / "photo.png", transparency=3)
    assert read_photo(tmp_path / "photo.png").alpha is not None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_sixteen_bits_in_sixteen_bits_out(suffix: str, bands: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4000, (40, 50, bands), dtype=np.uint16)  # dark, as raw photos are
    values[..., 1::2] += 1  # nothing is hidden
    kind = "grey16" if bands <= 2 else "rgb16"
    pyvips.Image.new_from_array(values, interpretation=kind).write_to_file(str(tmp_path / f"photo{suffix}"))
    photo = read_photo(tmp_path / f"photo{suffix}")
    assert (photo.bits, photo.grey, photo.alpha is not None) == (16, bands <= 2, bands in (2, 4))
    assert float(photo.pixels.max()) < 0.07
    written = write_photo(photo.pixels, photo, tmp_path / f"out{suffix}")
    again = pyvips.Image.new_from_file(str(written)).numpy().reshape(values.shape)
    assert again.dtype == np.uint16
    assert np.array_equal(again, values)


def test_jpeg_is_written_without_losing_colour_detail(astronaut: Array, tmp_path: Path) -> None:
    photo = read_photo(save(astronaut, tmp_path / "photo.jpg", quality=60))
    written = read_photo(write_photo(photo.pixels, photo, tmp_path / "out.jpg"))
    assert float((written.pixels - photo.pixels).abs().mean()) < 1.5 / 255


def test_suffixes_that_cannot_be_written_become_png() -> None:
    assert output_place(Path("x/a.gif")) == Path("x/a.png")
    assert output_place(Path("a.JPG")) == Path("a.JPG")
    assert output_place(Path("holiday 5.May")) == Path("holiday 5.May.png")


# --- what users hand over --------------------------------------------------------------------------------------------


def test_arrays_tensors_and_pictures_are_the_same_photo(astronaut: Array, photo: torch.Tensor) -> None:
    for source in (astronaut, PIL.Image.fromarray(astronaut), photo, photo[0], astronaut.astype(np.float64) / 255):
        assert torch.allclose(as_photo(source).pixels, photo, atol=1e-6)
    assert as_photo(astronaut[..., 0]).grey


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.full((4, 4, 3), 200.0),
        np.full((4, 4, 3), np.nan),
        torch.zeros(4, 4, 3),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.full((3, 4, 4), float("inf")),
        None,
        42,
    ],
)
def test_things_that_are_no_photos(source: object) -> None:
    with pytest.raises(UsageError):
        as_photo(source)


# --- bad files -------------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def jpeg_bytes(array: Array) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, "JPEG")
    return buffer.getvalue()


def test_bad_files_are_named_with_the_reason(astronaut: Array, tmp_path: Path) -> None:
    jpeg = jpeg_bytes(astronaut)
    cases = {
        "empty.jpg": (b"", "is empty"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "text.png": (b"this is no photo at all", "not an image"),
        "truncated.png": (png_header(64, 64), "cannot be read"),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        "paper.png": (b"%PDF-1.7 and so on", "PDF"),
        "bomb.png": (png_header(60000, 60000), "decompression bomb"),
        "large.png": (png_header(12000, 10000), "over the limit of 100"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PhotoError, match=reason) as caught:
            read_photo(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(PhotoError, match="no such file"):
        read_photo(tmp_path / "missing.jpg")
    with pytest.raises(PhotoError, match="directory"):
        read_photo(tmp_path)


def test_wrong_suffix_does_not_matter(astronaut: Array, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(jpeg_bytes(astronaut))
    assert read_photo(tmp_path / "photo.png").size == (128, 160)


def test_the_limit_can_be_moved(astronaut: Array, tmp_path: Path) -> None:
    path = save(astronaut, tmp_path / "photo.png")
    with pytest.raises(TooLargeError, match="--max-megapixels"):
        read_photo(path, max_megapixels=0.01)


@pytest.mark.parametrize("values", [[np.nan], [-3.0], [1e9]])
def test_float_pictures_without_an_evident_range_are_refused(values: list[float], tmp_path: Path) -> None:
    PIL.Image.fromarray(np.array([values * 8] * 8, np.float32)).save(tmp_path / "photo.tif")
    with pytest.raises(PhotoError, match="values"):
        read_photo(tmp_path / "photo.tif")


def test_malformed_exif_costs_the_exif_not_the_photo(astronaut: Array, tmp_path: Path) -> None:
    path = save(astronaut, tmp_path / "photo.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    assert read_photo(path).size == (128, 160)


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_nothing_and_spares_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    target.write_text("old")

    class Interrupted(Exception):  # noqa: N818
        pass

    def interrupted() -> None:
        with atomic(target) as partial:
            partial.write_text("half")
            raise Interrupted

    with pytest.raises(Interrupted):
        interrupted()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_values_that_are_not_finite_are_never_written(photo: torch.Tensor, tmp_path: Path) -> None:
    broken = photo.clone()
    broken[0, 0, 5, 5] = float("nan")
    with pytest.raises(PhotoError, match="not finite"):
        write_photo(broken, as_photo(photo), tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said(photo: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write to /dev/full fails with ENOSPC, as on a full disk."""
    real = PIL.Image.Image.save

    def save_to_full(self: PIL.Image.Image, _: Path, *rest: object, **options: object) -> None:
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            real(self, full, *rest, **options)  # type: ignore[arg-type]
            os.fsync(full.fileno())

    monkeypatch.setattr(PIL.Image.Image, "save", save_to_full)
    with pytest.raises(PhotoError, match="No space left"):
        write_photo(photo, as_photo(photo), tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_a_folder_is_said(photo: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PhotoError, match="cannot be written"):
        write_photo(photo, as_photo(photo), tmp_path / "file" / "out.png")
