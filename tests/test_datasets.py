"""Benchmark folders: every layout is understood, nothing is paired by chance, and built sets are what the lists say."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from clareo.bench.arguments import load_named, only_folder
from clareo.bench.build import build, build_crops, picture_names, pictures
from clareo.bench.datasets import FOUNDIR, LAYOUTS, Dataset, Item, dataset_names, load_datasets
from clareo.degrade import Record
from clareo.errors import PhotoError, UnknownNameError, UsageError
from clareo.io import photo_size, read_rgb8

SMALL, LARGE = (16, 12), (64, 48)


def put(folder: Path, name: str, size: tuple[int, int] = SMALL) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size).save(path)


def load(name: str, folder: Path) -> Dataset:
    (dataset,) = load_datasets(name, folder)
    return dataset


PAIRED = {
    "RealSR of StableSR": ("realsr", "test_LR/Canon_043.png", "test_HR/Canon_043.png"),
    "RealSR in its release": (
        "realsr",
        "RealSRVal_crop128/test_LR/Nikon_2.png",
        "RealSRVal_crop128/test_HR/Nikon_2.png",
    ),
    "RealSR with suffixes": ("realsr", "LR/Canon_001_LR4.PNG", "HR/Canon_001_HR.jpg"),
    "RealSR in one folder": ("realsr", "Canon_001_LR4.png", "Canon_001_HR.png"),
    "DRealSR": ("drealsr", "DrealSRVal_crop128/test_LR/DSC_1425_x1.png", "DrealSRVal_crop128/test_HR/DSC_1425_x4.png"),
    "DRealSR with one name": ("drealsr", "lq/DSC_1425_x1.png", "gt/DSC_1425_x1.png"),
    "DIV2K of StableSR": ("div2k-val", "DIV2K_V2_val/lq/0801_pch_00001.png", "DIV2K_V2_val/gt/0801_pch_00001.png"),
    "DIV2K with the factor in the name": ("div2k-val", "lq/0801x4.png", "gt/0801.png"),
    "LSDIR rebuilt": ("lsdir-val", "lq/0000001.png", "gt/0000001.png"),
    "any pairs": ("PAIRED", "input/a b.webp", "target/a b.tif"),
}


@pytest.mark.parametrize("layout", PAIRED)
def test_paired_layouts_are_understood(layout: str, tmp_path: Path) -> None:
    name, degraded, reference = PAIRED[layout]
    put(tmp_path, degraded)
    put(tmp_path, reference, LARGE)
    dataset = load(name, tmp_path)
    (item,) = dataset.items
    assert (item.degraded, item.reference, item.upscale) == (tmp_path / degraded, tmp_path / reference, 4)
    assert dataset.has_references


FLAT = {"reallr200": 4, "reallq250": 4, "realset80": 4, "real60": 1, "RealPhoto60": 1, "flat": 1}


@pytest.mark.parametrize("name", FLAT)
def test_flat_layouts_take_every_photo_and_no_hidden_file(name: str, tmp_path: Path) -> None:
    for photo in ("b.jpeg", "a.JPG", "c.png", "._c.png", ".thumbnails/a.png"):
        put(tmp_path, photo)
    (tmp_path / ".DS_Store").write_bytes(b"junk")
    (tmp_path / "readme.txt").write_text("about")
    dataset = load(name, tmp_path)
    assert [item.image for item in dataset.items] == ["a.JPG", "b.jpeg", "c.png"]
    assert {(item.upscale, item.reference) for item in dataset.items} == {(FLAT[name], None)}
    assert not dataset.has_references


def test_hidden_files_do_not_disturb_pairs(tmp_path: Path) -> None:
    for name in ("lq/1.png", "gt/1.png", "lq/._1.png", "gt/.2.png", "lq/.cache/3.png"):
        put(tmp_path, name)
    assert len(load("paired", tmp_path).items) == 1


GAPS = {
    "equal numbers, other stems": (("lq/a.png", "gt/b.png"), r"2 files have no partner: gt/b.png, lq/a.png"),
    "one too many": (("lq/1.png", "gt/1.png", "gt/2.png"), r"1 files have no partner: gt/2.png"),
    "neither side": (("lq/1.png", "gt/1.png", "3.png"), r"neither degraded nor reference.*: 3.png"),
    "twice": (("lq/1x4.png", "lq/1.png", "gt/1.png"), r"one and the same photo"),
    "nothing": ((), r"no photos"),
}


@pytest.mark.parametrize("case", GAPS)
def test_nothing_is_paired_by_its_place_and_gaps_are_named(case: str, tmp_path: Path) -> None:
    names, said = GAPS[case]
    for name in names:
        put(tmp_path, name)
    with pytest.raises(PhotoError, match=said):
        load("paired", tmp_path)


def test_sizes_are_checked(tmp_path: Path) -> None:
    put(tmp_path, "lq/1.png")
    put(tmp_path, "gt/1.png")
    with pytest.raises(PhotoError, match=r"lq/1.png: its reference is x1 as large; RealSR \(crop\) is x4"):
        load("realsr", tmp_path)
    put(tmp_path, "gt/1.png", (16 * 5, 12 * 5))
    with pytest.raises(PhotoError, match="x5 as large"):
        load("paired", tmp_path)


def test_wrong_names_and_folders_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    with pytest.raises(UnknownNameError, match="did you mean 'realsr'"):
        load_datasets("realsrr", tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        load_datasets("flat", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="--upscale is for flat folders"):
        load_datasets("real60", tmp_path, upscale=4)
    with pytest.raises(UsageError, match="given twice: flat"):
        load_named([f"flat={tmp_path}", f"FLAT={tmp_path}"])
    with pytest.raises(UsageError, match="at least 1"):
        load_named([f"flat={tmp_path}"], limit=0)
    with pytest.raises(UsageError, match="several folders need names"):
        only_folder([f"flat={tmp_path}", str(tmp_path)])
    assert only_folder([str(tmp_path)]) == tmp_path
    assert only_folder([f"flat={tmp_path}"]) is None
    assert load_named([f"flat={tmp_path}"], upscale=3)[0].items[0].upscale == 3


def test_seeds_hang_on_the_stem_alone() -> None:
    seeds = [Item("", Path(place), None, 1).seed for place in ("a/photo.png", "b/photo.jpg", "a/other.png")]
    assert seeds[0] == seeds[1] != seeds[2]
    assert seeds[0] == 0x2AE32687  # moves every number if it moves


def test_every_published_set_has_its_size() -> None:
    sizes = {name: layout.full for name, layout in LAYOUTS.items() if layout.full}
    assert (sizes["realsr"], sizes["drealsr"], sizes["div2k-val"], sizes["realset80"]) == (100, 93, 3000, 80)
    assert {"foundir", "diversephotos", "lsdir-val", "flat", "paired"} <= set(dataset_names())


# --- FoundIR ---------------------------------------------------------------------------------------------------------


def test_foundir_has_1500_photos_of_20_kinds_in_a_row() -> None:
    ranges = list(FOUNDIR.values())
    assert len(ranges) == 20
    assert ranges[0][0] == 1
    assert all(after[0] == before[1] + 1 for before, after in pairwise(ranges))
    assert sum(last - first + 1 for first, last in ranges) == 1500
    assert [kind[:2] for kind in FOUNDIR] == [f"{number:02}" for number in range(1, 21)]


def test_foundir_is_read_kind_by_kind(tmp_path: Path) -> None:
    for kind, number in (("01Blur", "0131"), ("14Lowlight", "1143"), ("20Lowlight_Noise_JPEG", "1500")):
        put(tmp_path, f"{kind}/LQ/{number}.JPG")
        put(tmp_path, f"{kind}/GT/{number}.png")
    found = load_datasets("foundir", tmp_path)
    assert [dataset.name for dataset in found] == [
        "foundir/01Blur",
        "foundir/14Lowlight",
        "foundir/20Lowlight_Noise_JPEG",
    ]
    assert [dataset.full for dataset in found] == [150, 50, 50]
    assert load("foundir", tmp_path / "14Lowlight").name == "foundir/14Lowlight"
    put(tmp_path, "01Blur/LQ/0151.png")
    put(tmp_path, "01Blur/GT/0151.png")
    with pytest.raises(PhotoError, match=r"0151.png: not one of the photos 0001 to 0150 of 01Blur"):
        load_datasets("foundir", tmp_path)
    with pytest.raises(PhotoError, match="none of FoundIR's kinds"):
        load_datasets("foundir", tmp_path / "01Blur" / "LQ")


# --- DiversePhotos ---------------------------------------------------------------------------------------------------


def test_the_list_has_the_counts_of_the_paper() -> None:
    counts = Counter((picture.source, picture.dominant) for picture in pictures())
    kinds = ("low_resolution", "motion_blur", "defocus_blur", "noise")
    assert [counts["spaq", kind] for kind in kinds] == [20, 17, 6, 21]
    assert [counts["koniq", kind] for kind in kinds] == [14, 4, 14, 8]
    assert [counts["live", kind] for kind in kinds] == [6, 19, 20, 11]
    assert len(set(picture_names())) == 160


def sources(folder: Path) -> Path:
    """The three sets with flat photos of their sizes, one photo of noise in each, and files that must not be taken."""
    sizes = {"spaq": (640, 520), "koniq": (1024, 768), "live": (500, 500)}
    places = {"spaq": "SPAQ/TestImage", "koniq": "koniq10k/1024x768", "live": "LIVE_Wild/Images"}
    folder.mkdir()
    for source, (width, height) in sizes.items():
        plain, drawn = folder / f"{source}.jpg", folder / f"{source}.png"
        PIL.Image.new("RGB", (width, height), (90, 120, 60)).save(plain)
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(drawn)
        numbers = [picture.number for picture in pictures() if picture.source == source]
        (folder / places[source]).mkdir(parents=True)
        for number in numbers[1:]:
            shutil.copy(plain, folder / places[source] / f"{number}.{'JPG' if source == 'live' else 'jpg'}")
        shutil.copy(drawn, folder / places[source] / f"{numbers[0]}.png")
    shutil.copy(folder / "live.jpg", folder / places["live"] / "15.bmp")
    return folder


def test_diversephotos_is_built_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = sources(tmp_path / "in")
    koniq = given / "koniq10k" / "1024x768"
    (koniq / "26393826.jpg").rename(koniq / "1996393826.jpg")
    out = tmp_path / "out"
    assert "160 photos" in build("DiversePhotos", given, out)
    assert "koniq-26393826: no such stem; ending in 6393826" in capsys.readouterr().err
    x1, x4 = load("diversephotos", out), load("diversephotos-x4", out)
    assert [len(x1.items), len(x4.items), x1.items[0].upscale, x4.items[0].upscale] == [160, 160, 1, 4]
    assert (out / "records.csv").read_text().count("\n") == 161
    whole, small = read_rgb8(out / "x1/spaq-00019.png"), read_rgb8(out / "x4/spaq-00019.png")
    original = read_rgb8(given / "SPAQ/TestImage/00019.png")
    assert np.array_equal(whole, original[4:516, 64:576])
    assert np.array_equal(small, whole[192:320, 192:320])
    assert photo_size(out / "x1/live-110.png") == (512, 512)
    (out / "x1" / "live-5.png").unlink()
    with pytest.raises(PhotoError, match="1 of 160 pictures are missing: live-5; make them with"):
        load("diversephotos", out)


def test_what_cannot_be_built_is_named(tmp_path: Path) -> None:
    given = sources(tmp_path / "in")
    (given / "LIVE_Wild/Images/5.JPG").unlink()
    with pytest.raises(PhotoError, match=r"1 of 160 photos are missing: live-5$"):
        build("diversephotos", given, tmp_path / "out")
    (given / "LIVE_Wild/Images/5.bmp").write_bytes((given / "live.png").read_bytes())
    (given / "SPAQ/copy").mkdir()
    shutil.copy(given / "SPAQ/TestImage/00075.jpg", given / "SPAQ/copy/00075.png")
    with pytest.raises(PhotoError, match="spaq-00075: several files"):
        build("diversephotos", given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="for spaq: none"):
        build("diversephotos", tmp_path, tmp_path / "out")
    with pytest.raises(UnknownNameError, match="did you mean 'lsdir-val'"):
        build("lsdir", tmp_path, tmp_path / "out")


# --- crops -----------------------------------------------------------------------------------------------------------


def test_crops_are_drawn_again_the_same(tmp_path: Path) -> None:
    given = tmp_path / "in"
    given.mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (40, 36, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).resize((144, 160)).save(given / f"{number}.png")
    for out in ("a", "b"):
        build_crops(given, tmp_path / out, total=4, side=128)
    dataset = load("lsdir-val", tmp_path / "a")
    assert [item.image for item in dataset.items] == [f"lq/000000{number}.png" for number in range(1, 5)]
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "a" / "records.jsonl").read_text().splitlines()]
    assert [line["photo"] for line in lines] == ["0.png", "0.png", "1.png", "1.png"]
    last = lines[-1]
    clean = read_rgb8(given / "1.png")[last["top"] : last["top"] + 128, last["left"] : last["left"] + 128]
    assert np.array_equal(clean, read_rgb8(tmp_path / "a/gt/0000004.png"))
    made = Record.from_json(json.dumps(last["record"])).apply(torch.from_numpy(clean.copy()).permute(2, 0, 1) / 255)
    written = read_rgb8(tmp_path / "a/lq/0000004.png")
    assert np.array_equal((made * 255).round().byte().permute(1, 2, 0).numpy(), written)
    with pytest.raises(UsageError, match="2 photos cannot give 3 crops in equal shares"):
        build_crops(given, tmp_path / "c", total=3)
