"""Files that look broken and are not, or only a little: what is read of them, and what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import clareo
from clareo.errors import PhotoError
from clareo.io import count_frames, read_photo
from clareo.system import System
from photo_files import (
    KEEP,
    XMP,
    camera,
    chunk,
    deep,
    encoded,
    png_with,
    put,
    scene,
    several,
    srgb,
    wide_gamut,
    ycck,
)

Run = Callable[..., object]


def lost_page() -> bytes:
    """A TIFF whose second page lies far behind its end."""
    content = bytearray(encoded(scene(), "TIFF"))
    directory = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[directory : directory + 2], "little")
    end = directory + 2 + 12 * entries
    content[end : end + 4] = (10_000_000).to_bytes(4, "little")
    return bytes(content)


def restored(content: bytes, name: str, tmp_path: Path, run_cli: Run, *options: str) -> tuple[Path, list[str]]:
    """Restore one file that must succeed; return the output, and what was said about it."""
    path = put(content, tmp_path / "in" / name)
    said = run_cli("restore", path, "-o", tmp_path / "out", *KEEP, *options)
    assert said.status == 0, said.err
    account = json.loads(said.out)
    for warning in account["warnings"]:
        assert f"clareo: {path}: {warning}" in said.err
    return Path(account["output"]), account["warnings"]


def look(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


palette = PIL.Image.fromarray(scene()).quantize(8)
grey = scene()[..., 0]
ACCEPTED: dict[str, tuple[str, bytes, str, np.ndarray, float]] = {  # -> name, content, mode, pixels, levels off
    "jpeg called png": ("photo.png", encoded(scene(), "JPEG", quality=100), "RGB", scene(), 16),
    "png called jpeg": ("photo.jpg", encoded(scene()), "RGB", scene(), 16),
    "1 x 1": ("photo.png", encoded(scene(1, 1)), "RGB", scene(1, 1), 0),
    "1 x 37": ("photo.png", encoded(scene(1, 37)), "RGB", scene(1, 37), 0),
    "37 x 1": ("photo.png", encoded(scene(37, 1)), "RGB", scene(37, 1), 0),
    "prime sides": ("photo.png", encoded(scene(13, 17)), "RGB", scene(13, 17), 0),
    "a side over 16,384": ("photo.png", encoded(scene(2, 16400)), "RGB", scene(2, 16400), 0),
    "1 bit": ("photo.png", encoded(PIL.Image.fromarray(grey > 90)), "L", (grey > 90) * 255, 0),
    "1 bit tiff": ("photo.tif", encoded(PIL.Image.fromarray(grey > 90), "TIFF"), "L", (grey > 90) * 255, 0),
    "grey": ("photo.png", encoded(grey), "L", grey, 0),
    "grey and alpha": (
        "photo.png",
        encoded(PIL.Image.fromarray(np.dstack([grey, np.full_like(grey, 99)]), "LA")),
        "LA",
        np.dstack([grey, np.full_like(grey, 99)]),
        0,
    ),
    "palette": ("photo.png", encoded(palette), "RGB", np.asarray(palette.convert("RGB")), 0),
    "palette tiff": ("photo.tif", encoded(palette, "TIFF"), "RGB", np.asarray(palette.convert("RGB")), 0),
    "cmyk tiff": ("photo.tif", encoded(PIL.Image.fromarray(scene()).convert("CMYK"), "TIFF"), "RGB", scene(), 1),
    "cmyk jpeg": ("photo.jpg", encoded(PIL.Image.fromarray(scene()).convert("CMYK"), "JPEG"), "RGB", scene(), 40),
    "ycck jpeg": ("photo.jpg", ycck(scene()), "RGB", scene(), 40),
    "float tiff": ("photo.tif", encoded(PIL.Image.fromarray(grey / np.float32(255)), "TIFF"), "I;16", grey * 257.0, 1),
    "grey jpeg": ("photo.jpg", encoded(grey, "JPEG", quality=98), "L", grey, 16),
    "all black": ("photo.png", encoded(np.zeros((9, 9, 3), np.uint8)), "RGB", np.zeros((9, 9, 3)), 0),
    "all white": ("photo.png", encoded(np.full((9, 9, 3), 255, np.uint8)), "RGB", np.full((9, 9, 3), 255), 0),
    "gif": ("photo.gif", encoded(palette, "GIF"), "RGB", np.asarray(palette.convert("RGB")), 0),
    "bmp": ("photo.bmp", encoded(scene(), "BMP"), "RGB", scene(), 0),
    "lossless webp": ("photo.webp", encoded(scene(), "WEBP", lossless=True), "RGB", scene(), 0),
    "jpeg with stray bytes behind it": (
        "photo.jpg",
        encoded(scene(), "JPEG", quality=98) + b"\0" * 999,
        "RGB",
        scene(),
        16,
    ),
}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str, tmp_path: Path, run_cli: Run) -> None:
    name, content, mode, pixels, off = ACCEPTED[case]
    written, warnings = restored(content, name, tmp_path, run_cli)
    assert warnings == []
    with PIL.Image.open(written) as picture:
        assert picture.mode == mode
        found = np.asarray(picture, dtype=float)
    assert found.shape == pixels.shape
    assert np.abs(found - pixels).max() <= off


def test_tiny_odd_and_even_coloured_photos_go_through_the_network(tmp_path: Path, run_cli: Run) -> None:
    sizes = [(1, 1), (1, 37), (37, 1), (13, 17)]
    for height, width in sizes:
        put(encoded(scene(height, width)), tmp_path / "in" / f"{height}x{width}.png")
    for level in (0, 128, 255):
        put(encoded(np.full((24, 24, 3), level, np.uint8)), tmp_path / "in" / f"level{level}.png")
    options = ("--weights", "denoise=1", "--steps", "1", "--upscale", "2")
    assert run_cli("restore", tmp_path / "in", "-o", tmp_path / "out", *options).status == 0
    for height, width in sizes:
        assert look(tmp_path / "out" / f"{height}x{width}.png").shape == (2 * height, 2 * width, 3)
    for level in (0, 128, 255):
        assert np.abs(look(tmp_path / "out" / f"level{level}.png").astype(int) - level).max() <= 3


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_dark_16_bit_photos_stay_dark(suffix: str, tmp_path: Path, run_cli: Run) -> None:
    values = np.random.default_rng(0).integers(0, 300, (12, 16, 3), dtype=np.uint16)
    written, _ = restored(deep(values, suffix), f"dark{suffix}", tmp_path, run_cli)
    photo = read_photo(written)
    assert photo.bits == 16
    assert np.array_equal(photo.pixels[0].permute(1, 2, 0).mul(65535).round().numpy(), values)


@pytest.mark.parametrize("name", ["dark.pgm", "dark.jp2"])
def test_dark_16_bit_photos_of_other_formats_stay_dark(name: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 200, (64, 64), dtype=np.uint16)
    PIL.Image.fromarray(values).save(tmp_path / name)
    photo = read_photo(tmp_path / name)
    assert (photo.bits, photo.grey) == (16, True)
    assert np.array_equal(photo.pixels[0, 0].mul(65535).round().numpy(), values)


def test_four_inks_of_16_bits_are_no_transparency(tmp_path: Path) -> None:
    inks = np.zeros((12, 16, 4), np.uint16)
    inks[..., 1] = inks[..., 2] = 65535  # magenta and yellow: red
    photo = read_photo(put(deep(inks, ".tif", "cmyk"), tmp_path / "photo.tif"))
    red, green, blue = photo.pixels[0].mean((1, 2)).tolist()
    assert (photo.alpha, photo.bits, photo.icc) == (None, 16, None)
    assert red > 0.7
    assert max(green, blue) < 0.3


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations(orientation: int, tmp_path: Path, run_cli: Run) -> None:
    turns = PIL.Image.Transpose
    back = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_90,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_270,
    }
    upright = PIL.Image.fromarray(scene())
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    xmp = XMP.replace(b'Orientation="1"', b'Orientation="%d"' % orientation)
    files = {
        "a.webp": encoded(stored, "WEBP", lossless=True, xmp=xmp, exif=camera(orientation).tobytes()),
        "b.webp": encoded(stored, "WEBP", lossless=True, xmp=xmp),  # said in XMP alone
        "c.tif": encoded(stored, "TIFF", exif=camera(orientation).tobytes()),
        "d.png": encoded(stored, exif=camera(orientation).tobytes()),
    }
    for name, content in files.items():
        written, _ = restored(content, name, tmp_path, run_cli)
        with PIL.Image.open(written) as picture:
            assert np.array_equal(np.asarray(picture), scene())
            assert picture.getexif().get(0x0112, 1) == 1
            assert b'tiff:Orientation="1"' in picture.info.get("xmp", XMP)


def test_an_orientation_is_not_used_up(tmp_path: Path) -> None:
    path = put(encoded(scene(), "JPEG", exif=camera(6)), tmp_path / "photo.jpg")
    with PIL.Image.open(path) as picture:
        sizes = [clareo.io.as_photo(picture).size for _ in range(2)]
    assert sizes == [(16, 12), (16, 12)]
    assert clareo.io.photo_size(path) == (16, 12)


BROKEN: dict[str, tuple[str, bytes, str]] = {  # -> name, content, warning
    "malformed exif": (
        "photo.jpg",
        encoded(scene(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken"),
        "its EXIF",
    ),
    "malformed exif of a png": ("photo.png", png_with(chunk(b"eXIf", b"no exif at all")), "its EXIF is broken"),
    "malformed xmp": ("photo.jpg", encoded(scene(), "JPEG", xmp=b"\xff\xfe\xfa\xfb"), "its XMP is broken"),
    "xmp without a tag": ("photo.webp", encoded(scene(), "WEBP", xmp=b"nothing"), "its XMP is broken"),
    "broken icc": ("photo.jpg", encoded(scene(), "JPEG", icc_profile=srgb()[:200]), "its colour profile is broken"),
    "nonsense icc": ("photo.png", encoded(scene(), icc_profile=b"no profile"), "its colour profile is broken"),
    "icc of another kind": (
        "photo.png",
        encoded(scene(), icc_profile=srgb()[:16] + b"CMYK" + srgb()[20:]),
        "its colour profile",
    ),
    "broken icc of cmyk": (
        "photo.tif",
        encoded(PIL.Image.fromarray(scene()).convert("CMYK"), "TIFF", icc_profile=b"no profile"),
        "its colour profile is broken",
    ),
    "animated gif": ("photo.gif", several("GIF"), "holds 3 frames; the first is restored, --all-frames restores all"),
    "animated png": ("photo.png", several("PNG"), "holds 3 frames"),
    "animated webp": ("photo.webp", several("WEBP"), "holds 3 frames"),
    "pages": ("photo.tif", several("TIFF"), "holds 3 frames"),
    "two views": ("photo.jpg", several("MPO", 2), "holds 2 frames"),
    "a second frame cut off": ("photo.gif", several("GIF")[:-200], "holds "),
    "a second page that is not there": ("photo.tif", lost_page(), "further frames that cannot be read"),
}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("case", BROKEN)
def test_restored_with_a_warning(case: str, tmp_path: Path, run_cli: Run) -> None:
    name, content, warning = BROKEN[case]
    written, warnings = restored(content, name, tmp_path, run_cli)
    assert [warning in each for each in warnings] == [True]
    with PIL.Image.open(written) as picture:
        assert "icc_profile" not in picture.info
        assert getattr(picture, "n_frames", 1) == 1


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("kind", "name"), [("GIF", "a.gif"), ("PNG", "a.png"), ("WEBP", "a.webp"), ("TIFF", "a.tif")])
def test_all_frames(kind: str, name: str, tmp_path: Path, run_cli: Run) -> None:
    path = put(several(kind), tmp_path / "in" / name)
    put(encoded(scene()), tmp_path / "in" / "still.png")
    put(b"", tmp_path / "in" / "zzz.gif")
    arguments = ("restore", tmp_path / "in", "-o", tmp_path / "out", *KEEP, "--all-frames")
    said = run_cli(*arguments)
    assert said.status == 1
    accounts = [json.loads(line) for line in said.out.splitlines()]
    assert [Path(account.get("output", "")).stem for account in accounts] == ["a-0001", "a-0002", "a-0003", "still", ""]
    assert all(account.get("warnings", []) == [] for account in accounts)
    with PIL.Image.open(path) as whole:
        for number in range(3):
            whole.seek(number)
            found = look(Path(accounts[number]["output"])).astype(int)
            assert np.abs(found - np.asarray(whole.convert("RGB"))).max() <= (24 if kind == "WEBP" else 0)
    again = run_cli(*arguments, "--resume")
    assert sum('"skipped": true' in line for line in again.out.splitlines()) == 4


@pytest.mark.usefixtures("fast")
def test_a_wide_gamut_profile_goes_with_its_pixels(tmp_path: Path, run_cli: Run) -> None:
    written, _ = restored(encoded(scene(), icc_profile=wide_gamut()), "photo.png", tmp_path, run_cli)
    with PIL.Image.open(written) as picture:
        assert picture.info["icc_profile"] == wide_gamut()
        assert np.array_equal(np.asarray(picture), scene())


@pytest.mark.usefixtures("fast")
def test_colours_that_cannot_be_seen_leak_nowhere(tmp_path: Path, run_cli: Run) -> None:
    """Magenta below full transparency must not tint the edge, not even of an enlarged photo."""
    array = np.dstack([np.full((16, 16, 3), 60, np.uint8), np.full((16, 16), 255, np.uint8)])
    array[:, 8:] = (255, 0, 255, 0)
    written, _ = restored(encoded(array), "photo.png", tmp_path, run_cli, "--upscale", "2")
    found = look(written).astype(int)
    assert found.shape == (32, 32, 4)
    assert np.abs(found[..., :3] - 60).max() <= 1
    assert (found[:, :14, 3].min(), found[:, 18:, 3].max()) == (255, 0)
    marked = PIL.Image.fromarray(scene()).quantize(8)
    written, _ = restored(encoded(marked, transparency=3), "palette.png", tmp_path, run_cli)
    assert np.array_equal(look(written)[..., 3] == 0, np.asarray(marked) == 3)


def test_a_photo_of_which_nothing_can_be_seen_keeps_its_colours(tmp_path: Path) -> None:
    array = np.dstack([scene(), np.zeros((12, 16), np.uint8)])
    photo = read_photo(put(encoded(array), tmp_path / "photo.png"))
    assert np.array_equal(photo.pixels[0].permute(1, 2, 0).mul(255).round().numpy(), scene())


@pytest.mark.usefixtures("fast")
def test_strip_on_the_command_line(tmp_path: Path, run_cli: Run) -> None:
    content = encoded(scene(), "JPEG", exif=camera(), xmp=XMP, icc_profile=srgb())
    written, _ = restored(content, "photo.jpg", tmp_path, run_cli)
    assert b"a camera" in written.read_bytes()
    again = ("restore", tmp_path / "in", "-o", tmp_path / "out", *KEEP, "--resume")
    assert '"skipped": true' in run_cli(*again).out
    said = run_cli(*again, "--strip")
    assert (said.status, "skipped" in said.out) == (0, False)
    content = written.read_bytes()
    assert b"a camera" not in content
    assert b"an attic" not in content
    assert read_photo(written).icc == srgb()


def test_a_restored_image_carries_its_profile_into_whatever_it_is_saved_as(unires: System, tmp_path: Path) -> None:
    path = put(encoded(scene(), icc_profile=wide_gamut()), tmp_path / "photo.png")
    out = clareo.restore(path, system=unires, weights={"keep": 1.0})
    out.image.save(tmp_path / "saved.png")
    assert read_photo(tmp_path / "saved.png").icc == wide_gamut()


def test_a_png_that_claims_endless_frames(tmp_path: Path) -> None:
    content = png_with(chunk(b"acTL", (2_000_000_000).to_bytes(4, "big") + b"\0\0\0\0"))
    with pytest.raises(PhotoError, match=r"photo\.png: claims to hold \d+ frames; the limit is 10000"):
        count_frames(put(content, tmp_path / "photo.png"))
