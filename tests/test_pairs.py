"""Paired folders: every public layout is understood, and every gap is named before the first step."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from clareo.errors import PhotoError
from clareo.train.pairs import find_pairs

LAYOUTS = {
    "RealSR": [("Canon/Test/4/Canon_001_LR4.png", "Canon/Test/4/Canon_001_HR.png")],
    "DRealSR": [("Test_x4/test_LR/DSC_1_x1.png", "Test_x4/test_HR/DSC_1_x4.png")],
    "StableSR": [("RealSRVal_crop128/test_LR/Nikon_2.png", "RealSRVal_crop128/test_HR/Nikon_2.png")],
    "SeeSR": [("lr/0000001.png", "gt/0000001.png")],
    "GoPro": [("test/GOPR0384_11_00/blur/000001.png", "test/GOPR0384_11_00/sharp/000001.png")],
    "GoPro gamma": [("train/GOPR01/blur_gamma/000001.png", "train/GOPR01/sharp/000001.png")],
    "DPDD": [("test_c/source/1P0A0917.png", "test_c/target/1P0A0916.png")],
    "DPDD of Restormer": [("inputC/1.png", "target/1.png")],
    "SIDD": [("Data/0001_001_S6/0001_NOISY_SRGB_010.png", "Data/0001_001_S6/0001_GT_SRGB_010.png")],
    "FoundIR": [("01Blur/LQ/0001.png", "01Blur/GT/0001.png")],
}


def put(folder: Path, name: str, size: tuple[int, int] = (16, 12)) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size).save(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_public_layouts_are_understood(layout: str, tmp_path: Path) -> None:
    for degraded, reference in LAYOUTS[layout]:
        put(tmp_path, degraded)
        put(tmp_path, reference, (64, 48))
    (pair,) = find_pairs(tmp_path)
    assert (str(pair.degraded.relative_to(tmp_path)), str(pair.reference.relative_to(tmp_path))) == LAYOUTS[layout][0]
    assert pair.scale == 4


def test_enlarged_copies_are_passed_over(tmp_path: Path) -> None:
    for name in ("lr/1.png", "gt/1.png", "sr_bicubic/1.png"):
        put(tmp_path, name)
    assert len(find_pairs(tmp_path)) == 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "no photos"),
        (("lq/1.png", "gt/1.png", "lq/2.png"), "1 files have no partner: lq/2.png"),
        (("lq/1.png", "gt/1.png", "other.png"), "neither degraded nor reference.*other.png"),
        (("lq/1.png", "lq/1.jpg", "gt/1.png"), "one and the same"),
        (tuple(f"lq/{n}.png" for n in range(9)), "9 files have no partner.*and 4 more"),
    ],
)
def test_gaps_are_named(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for name in names:
        put(tmp_path, name)
    with pytest.raises(PhotoError, match=said):
        find_pairs(tmp_path)


def test_sizes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    put(tmp_path, "lq/1.png")
    put(tmp_path, "gt/1.png", (33, 24))
    with pytest.raises(PhotoError, match=r"16x12.*does not fit.*33x24"):
        find_pairs(tmp_path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    put(tmp_path, "gt/1.png")
    (tmp_path / "lq").mkdir()
    (tmp_path / "lq" / "1.png").write_bytes(b"no photo")
    with pytest.raises(PhotoError, match=r"1\.png"):
        find_pairs(tmp_path)
