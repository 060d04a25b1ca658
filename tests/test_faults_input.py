"""Everything that goes wrong with the files in a folder: each fault is named, leaves nothing, and stops nobody else."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file

import clareo
from clareo.errors import PhotoError
from clareo.io import count_frames, formats, read_photo
from clareo.system import System
from photo_files import (
    XMP,
    camera,
    chunk,
    deep,
    encoded,
    half,
    heif,
    packed_bomb,
    png_with,
    put,
    scene,
    several,
    srgb,
    wide_gamut,
    ycck,
)

Run = Callable[..., object]
KEEP = ("--weights", "keep=1", "--json")  # no network is asked: reading and writing are what is tested


@pytest.fixture
def fast(unires: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the system once for all tests."""
    monkeypatch.setattr(clareo, "load_system", lambda *_: unires)


def floats(value: float) -> bytes:
    array = np.full((8, 8), 0.5, np.float32)
    array[3, 4] = value
    return encoded(PIL.Image.fromarray(array), "TIFF")


def lost_page() -> bytes:
    """A TIFF whose second page lies far behind its end."""
    content = bytearray(encoded(scene(), "TIFF"))
    directory = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[directory : directory + 2], "little")
    end = directory + 2 + 12 * entries
    content[end : end + 4] = (10_000_000).to_bytes(4, "little")
    return bytes(content)


REFUSED: dict[str, tuple[str, bytes, str]] = {  # fault -> name, content, reason
    "zero bytes": ("photo.jpg", b"", "the file is empty"),
    "nothing but zeros": ("photo.jpg", b"\0" * 4096, "zeros only"),
    "truncated jpeg": ("photo.jpg", half(encoded(scene(64, 64), "JPEG")), "truncated"),
    "truncated png": ("photo.png", half(encoded(scene(64, 64))), "truncated"),
    "truncated deep png": ("photo.png", half(deep(scene(64, 64).astype("u2") * 250, ".png")), "cannot be read"),
    "truncated tiff": ("photo.tif", half(encoded(scene(64, 64), "TIFF", compression="tiff_lzw")), "cannot be read"),
    "truncated deep tiff": ("photo.tif", half(deep(scene(64, 64).astype("u2") * 250, ".tif")), "cannot be read"),
    "truncated webp": ("photo.webp", half(encoded(scene(64, 64), "WEBP")), "cannot be read"),
    "truncated gif": ("photo.gif", half(encoded(scene(64, 64), "GIF")), "truncated"),
    "truncated bmp": ("photo.bmp", half(encoded(scene(64, 64), "BMP")), "truncated"),
    "first bytes of a png": ("photo.png", encoded(scene())[:20], "Truncated File Read"),
    "text": ("photo.png", b"this is no photo at all", "not an image"),
    "a web page": ("photo.jpg", b"<!DOCTYPE html>\n<HTML><body>404</body>", "a web page"),
    "png bomb": ("photo.png", png_with(size=(60000, 60000), rows=b"\0"), "decompression bomb"),
    "over the limit": ("photo.png", png_with(size=(12000, 10000), rows=b"\0"), "--max-megapixels"),
    "huge zTXt": ("photo.png", png_with(chunk(b"zTXt", b"Comment\0\0" + packed_bomb())), "unpacks to more than"),
    "huge iCCP": ("photo.png", png_with(chunk(b"iCCP", b"profile\0\0" + packed_bomb())), "unpacks to more than"),
    "nan tiff": ("photo.tif", floats(np.nan), "not finite"),
    "infinite tiff": ("photo.tif", floats(np.inf), "not finite"),
    "float tiff of no range": ("photo.tif", floats(1e9), "no evident range"),
    "colour float tiff of no range": (
        "photo.tif",
        deep(np.full((8, 8, 3), 1e9, np.float32), ".tif", "rgb"),
        "no evident range",
    ),
    "svg": ("photo.png", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG is not a photo"),
    "eps": ("photo.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript is not a photo"),
    "binary eps": ("photo.jpg", b"\xc5\xd0\xd3\xc6" + b"\0" * 30, "PostScript is not a photo"),
    "pdf": ("photo.jpg", b"%PDF-1.7\n", "PDF is not a photo; export it as PNG first"),
    "photoshop": ("photo.png", b"8BPS\0\x01" + b"\0" * 30, "Photoshop"),
    "jpeg xl": ("photo.jpg", b"\xff\x0a" + b"\0" * 30, "JPEG XL"),
    "an archive": ("photo.jpg", b"PK\x03\x04" + b"\0" * 30, "an archive; unpack it first"),
    "a film": ("photo.jpg", heif(b"isom", b"mp42"), "a film"),
    "canon raw": ("photo.tif", b"II*\0\x10\0\0\0CR\x02\0", "raw file is not a photo; develop it first"),
    "raw in tiff": ("photo.tif", encoded(scene(), "TIFF", tiffinfo={50706: b"\1\4\0\0"}), "develop it first"),
    "a thumbnail in tiff": ("photo.tif", encoded(scene(), "TIFF", tiffinfo={254: 1}), "develop it first"),
}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("fault", REFUSED)
def test_refused(fault: str, tmp_path: Path, run_cli: Run) -> None:
    name, content, reason = REFUSED[fault]
    paths = [put(encoded(scene()), tmp_path / "a.png"), put(content, tmp_path / "in" / name)]
    paths.append(put(encoded(scene()), tmp_path / "z.png"))
    said = run_cli("restore", *paths, "-o", tmp_path / "out", *KEEP)
    assert said.status == 1
    accounts = [json.loads(line) for line in said.out.splitlines()]
    assert ["error" in account for account in accounts] == [False, True, False]
    error = accounts[1]["error"]
    assert error.startswith(f"{paths[1]}: ")
    assert reason in error
    assert error in said.err
    assert "Traceback" not in said.err
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["a.clareo.json", "a.png", "z.clareo.json", "z.png"]


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("content", "cure"),
    [
        (heif(b"heic", b"mif1"), "HEIC needs a codec that is not here; pip install 'clareo[heic]'"),
        (heif(b"avif", b"mif1"), "AVIF needs a codec that is not here; pip install --upgrade pillow"),
    ],
)
def test_codecs_that_are_missing(
    content: bytes, cure: str, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats.has_heic.cache_clear()
    monkeypatch.setattr(PIL.features, "check", lambda _: False)
    put(content, tmp_path / "in" / "IMG_1.HEIC")
    put(encoded(scene()), tmp_path / "in" / "z.png")
    said = run_cli("restore", tmp_path / "in", "-o", tmp_path / "out", *KEEP)
    assert said.status == 1
    assert f"IMG_1.HEIC: {cure}" in said.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["z.clareo.json", "z.png"]
    formats.has_heic.cache_clear()


# --- photos that look broken and are not -----------------------------------------------------------------------------


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


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = {
    "фото 写真.png": "фото 写真.png",
    "🐈‍⬛ emoji.png": "🐈‍⬛ emoji.png",
    "a" * 251 + ".png": "a" * 251 + ".png",
    "ä" * 125 + "b.png": "ä" * 125 + "b.png",
    "trailing.": "trailing..png",
    "dots...png": "dots...png",
    "holiday 5.May": "holiday 5.May.png",
    "IMG[1].png": "IMG[1].png",
    "-o.png": "-o.png",
    " space .png": " space .png",
    "new\nline.png": "new\nline.png",
    os.fsdecode(b"caf\xe9 of 1999.png"): os.fsdecode(b"caf\xe9 of 1999.png"),
}


@pytest.mark.usefixtures("fast")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid some of these names")
@pytest.mark.parametrize("depth", [8, 16])
def test_names(depth: int, tmp_path: Path, run_cli: Run) -> None:
    content = encoded(scene()) if depth == 8 else deep(scene().astype("u2") * 250, ".png")
    paths = [put(content, tmp_path / "in" / name) for name in NAMES]
    said = run_cli("restore", *paths, "-o", tmp_path / "out", *KEEP[:2])
    assert said.status == 0, said.err
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert set(NAMES.values()) <= there
    assert sum(name.endswith(".clareo.json") for name in there) == len(NAMES)
    again = run_cli("restore", *paths, "-o", tmp_path / "out", *KEEP, "--resume")
    assert all(json.loads(line)["skipped"] for line in again.out.splitlines())


@pytest.mark.usefixtures("fast")
def test_the_same_stem_with_several_extensions(tmp_path: Path, run_cli: Run) -> None:
    for name, kind in {"a.png": "PNG", "a.jpg": "JPEG", "a.gif": "GIF", "a.bmp": "BMP"}.items():
        put(encoded(scene(), kind), tmp_path / "in" / name)
    assert run_cli("restore", tmp_path / "in", "-o", tmp_path / "out", *KEEP).status == 0
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == {
        *("a.png", "a.jpg", "a.gif.png", "a.bmp.png"),
        *("a.png.clareo.json", "a.jpg.clareo.json", "a.gif.clareo.json", "a.bmp.clareo.json"),
    }


@pytest.mark.usefixtures("fast")
def test_formats_without_room_for_a_long_side_say_so(tmp_path: Path, run_cli: Run) -> None:
    path = put(encoded(scene(2, 16400)), tmp_path / "long.png")
    said = run_cli("restore", path, "-o", tmp_path / "out" / "long.webp", *KEEP)
    assert said.status == 1
    assert "WEBP has room for 16383 pixels a side, not 16400" in said.err
    assert not (tmp_path / "out").exists()


# --- beside the photos -----------------------------------------------------------------------------------------------


def test_a_reference_of_another_shape(tmp_path: Path, run_cli: Run) -> None:
    paths = [put(encoded(scene(96, 128, seed)), tmp_path / f"{seed}.png") for seed in range(2)]
    reference = put(encoded(scene(128, 96)), tmp_path / "reference.png")
    said = run_cli("compare", *paths, "--reference", reference)
    assert said.status == 2
    assert "other proportions: 128x96 and 96x128" in said.err


def test_checkpoints_with_wrong_keys_or_shapes(unires: System, tmp_path: Path, run_cli: Run) -> None:
    photo = put(encoded(scene()), tmp_path / "a.png")
    tensors = {name: tensor.clone().contiguous() for name, tensor in unires.network.state_dict().items()}
    settings = {"settings": json.dumps(clareo.checkpoints.load_packaged("unires-nano").settings())}
    first, second, *_ = tensors
    shape = tuple(tensors[second].shape)
    tensors["stranger"] = tensors.pop(first)
    tensors[second] = torch.zeros(1, 2, 3)
    save_file(tensors, tmp_path / "weights.safetensors", settings)
    said = run_cli("restore", photo, "-o", tmp_path / "out", "--preset", tmp_path / "weights.safetensors")
    assert said.status == 1
    for told in (f"missing: {first}", "unknown: stranger", f"of another shape: {second} (1, 2, 3) not {shape}"):
        assert told in said.err
    assert not (tmp_path / "out").exists()


class Evil:
    """Runs when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["weights.pth", "weights.PT", "weights.bin", "weights.safetensors"])
def test_a_malicious_pickle_is_not_run(name: str, tmp_path: Path, run_cli: Run) -> None:
    photo, trace = put(encoded(scene()), tmp_path / "a.png"), tmp_path / "ran"
    bait = pickle.dumps({"weight": Evil(trace)})
    pickle.loads(bait)
    trace.unlink()
    path = put(bait, tmp_path / name)
    said = run_cli("restore", photo, "-o", tmp_path / "out", "--preset", path)
    assert said.status == 1
    assert str(path) in said.err
    assert ("python -m clareo.convert" in said.err) == (not name.endswith("safetensors"))
    buffer = io.BytesIO()
    torch.save({"weight": Evil(trace)}, buffer)
    put(buffer.getvalue(), path)
    assert run_cli("restore", photo, "-o", tmp_path / "out", "--preset", path).status == 1
    assert not trace.exists()
    assert not (tmp_path / "out").exists()
