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
from clareo.io import formats
from clareo.system import System
from photo_files import (
    KEEP,
    chunk,
    deep,
    encoded,
    half,
    heif,
    packed_bomb,
    png_with,
    put,
    scene,
)

Run = Callable[..., object]


def floats(value: float) -> bytes:
    array = np.full((8, 8), 0.5, np.float32)
    array[3, 4] = value
    return encoded(PIL.Image.fromarray(array), "TIFF")


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
    "over 179 megapixels": ("photo.png", png_with(size=(14000, 13000), rows=b"\0"), "decompression bomb"),
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


@pytest.mark.usefixtures("fast")
def test_a_limit_is_raised_by_its_flag_alone(tmp_path: Path, run_cli: Run) -> None:
    path = put(png_with(size=(12000, 10000), rows=b"\0"), tmp_path / "photo.png")
    for limit, reason in ((None, "120.0 megapixels are over the limit of 100"), ("130", "cannot be read")):
        options = () if limit is None else ("--max-megapixels", limit)
        said = run_cli("restore", path, "-o", tmp_path / "out", *KEEP, *options)
        assert (said.status, reason in said.err) == (1, True), said.err
        assert not (tmp_path / "out").exists()


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
