"""Masks of photos: by formula, from SAM, and from annotations in run lengths."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from skimage import data

from clareo.errors import CheckpointError, MissingExtraError, PhotoError, UnknownNameError, UsageError
from clareo.perceive.masks import FileMasks, SamSettings, find_masks, load_sam
from clareo.perceive.rle import decode, encode, read_rle
from clareo.perceive.segments import MOST, SMALLEST, find_segments

# --- by formula ------------------------------------------------------------------------------------------------------


def test_segments_tile_a_photo(shared_photos: torch.Tensor) -> None:
    for photo in shared_photos[::3]:
        masks = find_masks("segments")(photo)
        assert masks.dtype == torch.bool
        assert 2 <= len(masks) <= MOST
        assert (masks.sum(0) == 1).all()
        assert float(masks.float().mean((1, 2)).min()) > SMALLEST / 2
        assert torch.equal(masks, find_segments(photo))


def test_segments_follow_colour() -> None:
    """Three flat things on a flat ground, and a ramp, which is one thing."""
    photo = torch.full((3, 96, 128), 0.2)
    photo[:, :, 64:] += torch.linspace(0, 0.03, 64)
    truth = torch.zeros(96, 128, dtype=torch.int64)
    for number, (top, left, colour) in enumerate([(10, 10, (0.9, 0.2, 0.2)), (50, 20, (0.2, 0.7, 0.2)), (30, 80, 0.8)]):
        photo[:, top : top + 30, left : left + 34] = torch.tensor(colour).expand(3)[:, None, None]
        truth[top : top + 30, left : left + 34] = number + 1
    masks = find_segments(photo)
    assert len(masks) == 4
    for number in range(4):
        overlap = ((masks & (truth == number)).sum((1, 2)) / (masks | (truth == number)).sum((1, 2))).max()
        assert float(overlap) > 0.93


def test_nothing_is_one_segment_and_no_size_is_too_odd() -> None:
    assert find_segments(torch.full((3, 40, 40), 0.5)).shape == (1, 40, 40)
    rng = torch.Generator().manual_seed(0)
    for height, width in ((5, 9), (33, 61), (170, 65), (161, 333)):
        masks = find_segments(torch.rand(3, height, width, generator=rng))
        assert masks.shape[1:] == (height, width)
        assert (masks.sum(0) == 1).all()
        assert len(masks) <= MOST


def test_a_large_photo_is_segmented_like_a_small_one() -> None:
    large = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1).float() / 255
    small = torch.nn.functional.avg_pool2d(large, 4)
    coarse = torch.nn.functional.interpolate(find_segments(small)[None].float(), (512, 512))[0] > 0
    fine = find_segments(large)
    overlap = (fine[:, None] & coarse).sum((2, 3)) / (fine[:, None] | coarse).sum((2, 3))
    assert float((overlap.amax(1) * fine.float().mean((1, 2))).sum()) > 0.6


# --- run lengths -----------------------------------------------------------------------------------------------------


def test_run_lengths_by_hand() -> None:
    """Columns from left to right, beginning with what is outside."""
    mask = np.array([[0, 0, 1], [1, 1, 1]], dtype=bool)
    assert decode((2, 3), [1, 1, 1, 3]).tolist() == mask.tolist()
    assert encode(mask) == {"size": [2, 3], "counts": "1112"}  # the fourth is 3 - 1
    assert decode((2, 3), "1112").tolist() == mask.tolist()
    assert decode((2, 3), [0, 6]).all()
    assert encode(np.ones((2, 3), dtype=bool))["counts"] == "06"
    assert encode(np.zeros((2, 3), dtype=bool))["counts"] == "6"
    # 40 = 8 + 32: eight with "more follows", then one; 5 - 40 = -35 = -2 * 32 + 29 follows two runs later
    wide = np.zeros((1, 100), dtype=bool)
    wide[0, 5:45], wide[0, 50:55] = True, True
    assert encode(wide)["counts"] == "5X15mNX1"
    assert decode((1, 100), b"5X15mNX1").tolist() == wide.tolist()


def test_run_lengths_there_and_back() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.97):
        mask = rng.random((37, 53)) < share
        packed = encode(mask)
        assert (decode(**packed) == mask).all()
        flat = mask.T.ravel().astype(int).tolist()
        counts, inside, run = [], 0, 0
        for value in flat:
            if value != inside:
                counts.append(run)
                inside, run = value, 0
            run += 1
        assert (decode(mask.shape, [*counts, run]) == mask).all()


@pytest.mark.parametrize("counts", [[1, 2], [7, -1], "12", ""])
def test_runs_that_do_not_add_up_are_refused(counts: list[int] | str) -> None:
    with pytest.raises(UsageError, match="add up to"):
        decode((2, 3), counts)


# --- annotations -----------------------------------------------------------------------------------------------------


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    photo = data.astronaut()[:60, :80]
    PIL.Image.fromarray(photo).save(tmp_path / "sa_1.png")
    PIL.Image.fromarray(photo[:, ::-1]).save(tmp_path / "sa_2.png")
    PIL.Image.fromarray(photo).save(tmp_path / "other.png")
    for name, masks in (("sa_1", TRUE), ("sa_2", TRUE[:, :, ::-1])):
        first = {"id": 1, "area": 300, "segmentation": encode(masks[0])}
        runs = decode_to_counts(masks[1])
        second = {"id": 2, "segmentation": {"size": [60, 80], "counts": runs}}
        empty = {"id": 3, "segmentation": encode(np.zeros((60, 80), dtype=bool))}
        (tmp_path / f"{name}.json").write_text(json.dumps({"image": {}, "annotations": [first, second, empty]}))
    return tmp_path


TRUE = np.zeros((2, 60, 80), dtype=bool)
TRUE[0, 10:30, 5:20], TRUE[1, 40:, 50:] = True, True


def decode_to_counts(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.T.ravel(), [0]]).astype(int)
    turns = np.flatnonzero(np.diff(flat))
    return np.diff([0, *turns[turns < mask.size], mask.size]).tolist()


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(PIL.Image.open(path))).permute(2, 0, 1).float() / 255


def test_annotations_are_found_by_the_photo(annotated: Path) -> None:
    masks = find_masks(f"rle:{annotated}")
    assert masks(pixels(annotated / "sa_1.png")).tolist() == TRUE.tolist()
    assert masks(pixels(annotated / "sa_2.png")).tolist() == TRUE[:, :, ::-1].tolist()
    for stranger in (pixels(annotated / "sa_1.png")[:, :50], 1 - pixels(annotated / "sa_1.png")):
        with pytest.raises(UsageError, match="crops of photos are not known"):
            masks(stranger)


def test_a_box_cuts_masks_like_the_photo(annotated: Path) -> None:
    whole = read_rle(annotated / "sa_1.json")
    assert whole.dtype == torch.bool
    assert torch.equal(read_rle(annotated / "sa_1.json", (5, 0, 20, 30)), whole[:1, 5:25, :30])
    assert read_rle(annotated / "sa_1.json", (0, 0, 5, 6)).shape == (0, 5, 6)


def test_broken_annotations_are_named(annotated: Path, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"annotations": 3}', '{"annotations": [{}]}', '{"annotations": [{"segmentation": 1}]}'):
        (annotated / "sa_1.json").write_text(text)
        with pytest.raises(UsageError, match=r"sa_1\.json: cannot be read as masks of SA-1B"):
            read_rle(annotated / "sa_1.json")
    small = {"annotations": [{"segmentation": encode(np.ones((6, 8), dtype=bool))}]}
    (annotated / "sa_1.json").write_text(json.dumps(small))
    with pytest.raises(PhotoError, match="not as large as the photo"):
        find_masks(f"rle:{annotated}")(pixels(annotated / "sa_1.png"))
    small["annotations"].append({"segmentation": encode(TRUE[0])})
    (annotated / "sa_1.json").write_text(json.dumps(small))
    with pytest.raises(UsageError, match="several sizes"):
        read_rle(annotated / "sa_1.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no photo with a NAME\.json"):
        FileMasks(tmp_path / "empty")


# --- Segment Anything ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM in miniature, with random weights."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("tiny-sam")
    shape = {"hidden_size": 16, "image_size": 64, "patch_size": 16}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32}
    vision = {"output_channels": 16, "window_size": 2, "global_attn_indexes": [0], "num_pos_feats": 8}
    head = {"hidden_size": 16, "iou_head_depth": 2, "iou_head_hidden_dim": 16}
    config = transformers.SamConfig(
        vision_config={**shape, **heads, **vision},
        prompt_encoder_config={**shape, "mask_input_channels": 4},
        mask_decoder_config={**heads, **head},
    )
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        transformers.SamModel(config).save_pretrained(place)
    sides = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    masks = {"mask_size": {"longest_edge": 16}, "mask_pad_size": {"height": 16, "width": 16}}
    transformers.SamImageProcessor(**sides, **masks).save_pretrained(place)
    return place


def test_sam_is_asked_as_by_default(tiny_sam: Path, photo: torch.Tensor) -> None:
    sam = load_sam(str(tiny_sam))
    assert sam.settings == SamSettings(32, 64, 0.88, 0.95, 0.7)
    asked: dict[str, object] = {}

    def generate(picture: PIL.Image.Image, **options: object) -> dict[str, list[np.ndarray]]:
        asked.update(options, size=picture.size)
        return {"masks": [np.ones((128, 160), dtype=bool)]}

    masks = replace(sam, generate=generate)(photo[0])
    assert masks.shape == (1, 128, 160)
    assert masks.dtype == torch.bool
    assert asked == {
        "size": (160, 128),
        "points_per_crop": 32,
        "points_per_batch": 64,
        "pred_iou_thresh": 0.88,
        "stability_score_thresh": 0.95,
        "crops_nms_thresh": 0.7,
        "crops_n_layers": 0,
    }


def test_a_tiny_sam_masks_a_photo(tiny_sam: Path, photo: torch.Tensor) -> None:
    everything = SamSettings(points=4, quality=-9.0, stability=-1.0, same=1.0)
    masks = load_sam(str(tiny_sam), everything)(photo[0])
    assert len(masks) > 4
    assert masks.shape[1:] == (128, 160)
    assert masks.dtype == torch.bool
    again = load_sam(str(tiny_sam), everything)(photo[0])
    assert torch.equal(masks, again)
    few = load_sam(str(tiny_sam), replace(everything, same=0.7))(photo[0])
    assert 0 < len(few) < len(masks)
    assert find_masks(f"sam:{tiny_sam}")(photo[0]).shape == (0, 128, 160)  # a random one is sure of nothing


def test_names_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sam", "segments:x", "rle", "slic"):
        with pytest.raises(UnknownNameError, match="rle:PATH, sam:PATH, segments"):
            find_masks(name)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_sam(str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="transformers"):
        load_sam(str(tmp_path))
