"""The reader of degradations at nano scale: what it sees, how it learns, and how it is examined."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional as F

from clareo.bench.prompts import ask as bench_ask
from clareo.bench.prompts import confusion as bench_confusion
from clareo.checkpoints import load_checkpoint
from clareo.errors import CheckpointError, PhotoError, RecipeError, UsageError
from clareo.latents import enlarge, fit
from clareo.perceive.prompts import KINDS, levels_of
from clareo.perceive.reader import NanoReader, ReaderSettings, build_reader, load_reader, load_reader_nano, repeated
from clareo.perceive.scale import own_scale
from clareo.perceive.sources import find_vision
from clareo.perceive.vision import SMALLEST, EncoderSettings
from clareo.train import irpad
from clareo.train.irpad import Examination, PromptMix, agreement, draw_example
from clareo.train.loop import train
from clareo.train.recipe import Recipe, parse_recipe
from fakes import write_astronauts

Run = Callable[..., Any]  # what the fixture `run_cli` is
NETWORK = {"encoder": {"channels": [8, 8, 8, 16]}, "spectral": [4, 4], "words": 8, "width": 16, "heads": 2}
SECOND = PromptMix({"realesrgan": 1.0})
TINY = ReaderSettings.from_json(NETWORK)


pytestmark = pytest.mark.usefixtures("same_start")


@pytest.fixture(scope="module")
def large() -> torch.Tensor:
    """A free photo (1, 3, 512, 512)."""
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_astronauts(tmp_path / "photos", 2, 100, (300, 320))


def recipe(**changes: object) -> Recipe:
    plain = {
        "system": "irpad",
        "stages": [{"steps": 3, "crop": 256, "batch": 2}],
        "options": {"network": NETWORK},
        "optimiser": {"warmup": 1},
        "workers": 0,
        "shrink_share": 0.0,
        "precision": "fp32",
    }
    return parse_recipe({**plain, **changes})


# --- the network -----------------------------------------------------------------------------------------------------


def test_size_and_shape() -> None:
    network = NanoReader(ReaderSettings())
    assert sum(parameter.numel() for parameter in network.parameters()) <= 1_500_000
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d) for layer in network.modules())
    for height, width in ((64, 64), (65, 113), (90, 300)):
        assert network(torch.rand(2, 3, height, width)).shape == (2, len(KINDS), 4)


def test_settings_survive_json() -> None:
    assert ReaderSettings.from_json(TINY.to_json()) == TINY
    assert ReaderSettings.from_json({}) == ReaderSettings()
    assert TINY.encoder == EncoderSettings((8, 8, 8, 16))
    with pytest.raises(UsageError, match="windows of at most 64 px"):
        ReaderSettings(spectra=(128,))


def test_what_is_too_small_is_told() -> None:
    with pytest.raises(PhotoError, match="80x63 px is too small"):
        NanoReader(TINY).read(torch.rand(1, 3, 63, 80))


def test_a_large_photo_is_the_mean_of_its_windows(large: torch.Tensor) -> None:
    network, photo = NanoReader(TINY), large[..., :128, :256]
    with torch.no_grad():
        halves = [network(photo[..., left : left + 128]) for left in (0, 64, 128)]
        assert torch.allclose(network(photo), torch.stack(halves).mean(0), atol=1e-4)
        assert not torch.allclose(halves[0], halves[2], atol=1e-3)


def test_every_photo_of_a_batch_is_read_by_itself(large: torch.Tensor) -> None:
    network, photos = NanoReader(TINY), torch.cat([large[..., :256, :256], enlarge(large[..., :64, :64], (256, 256))])
    alone = [network.read(photo[None])[0] for photo in photos]
    assert network.read(photos) == alone
    assert all(len(levels_of(prompt)) == len(KINDS) for prompt in alone)


# --- an enlargement undone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("loud", [0.0, 0.1])
def test_what_clareo_enlarged_is_found_again(factor: int, loud: float, large: torch.Tensor) -> None:
    small = large[..., 40:120, 180:280]
    small = (small + loud * torch.randn(small.shape)).clamp(0, 1)
    canvas = enlarge(small, (80 * factor, 100 * factor))
    found = own_scale(canvas)
    assert found.shape == small.shape
    assert float((found - small).abs().mean()) < 1e-3
    saved = (canvas * 255).round() / 255
    assert float((own_scale(saved) - small).abs().mean()) < 2e-3
    padded = own_scale(fit(small, factor, 64))
    assert torch.allclose(padded[..., :78, :98], small[..., :78, :98], atol=0.02)


@pytest.mark.parametrize(("top", "left"), [(1, 0), (2, 3), (5, 11)])
def test_a_cut_of_an_enlargement_is_brought_back_too(top: int, left: int, large: torch.Tensor) -> None:
    small = large[..., 40:130, 180:290]
    cut = enlarge(small, (360, 440))[..., top : top + 320, left : left + 320]
    found = own_scale(cut)
    rows, columns = top // 4, left // 4
    inside = small[..., rows + 2 : rows + 77, columns + 2 : columns + 77]
    assert torch.allclose(found[..., 2:77, 2:77], inside, atol=0.02)


def test_photos_at_their_own_scale_stay_as_they_are(large: torch.Tensor) -> None:
    for photo in (large, large[..., 100:356, 100:400], torch.rand(1, 3, 256, 256)):
        assert own_scale(photo) is photo
    assert own_scale(enlarge(large[..., :40, :40], (120, 120))).shape[-1] == 120  # 40 px would be too small to be read


def test_a_canvas_is_read_like_the_photo(large: torch.Tensor) -> None:
    network, small = NanoReader(TINY), large[..., 40:120, 180:280]
    assert torch.allclose(network.ask(enlarge(small, (320, 400))), network.ask(small), atol=0.02)


# --- learning --------------------------------------------------------------------------------------------------------


def test_examples_are_a_function_of_their_seed(large: torch.Tensor) -> None:
    clean = large[0, :, :288, :288]
    first, again, other = (draw_example(clean, np.random.default_rng(seed), PromptMix()) for seed in (4, 4, 5))
    assert torch.equal(first.degraded, again.degraded)
    assert all(torch.equal(first.truth[name], again.truth[name]) for name in first.truth)
    assert not torch.equal(first.truth["seen"], other.truth["seen"])
    assert levels_of(first.prompt) == tuple(first.truth["levels"].tolist())
    assert first.truth["seen"].shape == first.truth["clean"].shape == (3, SMALLEST, SMALLEST)


def test_what_is_seen_is_a_cut_of_the_canvas_before_it_was_enlarged(large: torch.Tensor) -> None:
    clean = large[0, :, :288, :288]
    made = draw_example(clean, np.random.default_rng(0), PromptMix({"realesrgan": 1.0}))
    whole, seen = own_scale(made.degraded[None])[0], made.truth["seen"]
    apart = [
        float((whole[:, top : top + SMALLEST, left : left + SMALLEST] - seen).abs().mean())
        for top in range(9)
        for left in range(9)
    ]
    assert min(apart) < 1e-3


def test_clean_photos_have_nothing_to_undo(large: torch.Tensor) -> None:
    for seed in range(3):
        made = draw_example(large[0, :, :288, :288], np.random.default_rng(seed), PromptMix({"clean": 1.0}))
        assert made.truth["levels"].tolist()[:2] == [0, 0]
        assert made.truth["levels"][2] <= 1  # a camera's own coding can be seen by who looks for it
        assert float((made.truth["seen"] - made.truth["clean"]).abs().mean()) < 0.05


def test_crops_that_leave_too_little_are_told(large: torch.Tensor) -> None:
    with pytest.raises(RecipeError, match="crops of 200 px make photos of 50 px"):
        draw_example(large[0, :, :200, :200], np.random.default_rng(0), PromptMix({"realesrgan": 1.0}))
    with pytest.raises(RecipeError, match="nobody knows"):
        irpad.lessons({}).paired("denoise")


def test_the_trained_reader_loads_back(folder: Path, tmp_path: Path, run_cli: Run) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(
        'system = "irpad"\nworkers = 0\nshrink_share = 0.0\nprecision = "fp32"\n[[stages]]\nsteps = 3\ncrop = 256\n'
        "batch = 2\n[options.network]\nspectral = [4, 4]\nwords = 8\nwidth = 16\nheads = 2\n"
        "[options.network.encoder]\nchannels = [8, 8, 8, 16]\n"
    )
    said = run_cli("train", path, "--data", folder, "-o", tmp_path / "run")
    assert said.status == 0
    rows = (tmp_path / "run" / "validation.csv").read_text().splitlines()
    assert rows[0] == "step,blur,noise,jpeg,blur within one,noise within one,jpeg within one,cosine"
    weights = load_checkpoint(tmp_path / "run" / "weights.safetensors")
    first, second = build_reader(weights), load_reader(str(tmp_path / "run"))
    photo = torch.rand(1, 3, 70, 80)
    assert first.settings == TINY
    assert torch.equal(first(photo), second(photo))
    untrained = irpad.training({"network": NETWORK}).trained
    assert not torch.equal(untrained(photo), first(photo))


def test_alignment_is_one_key_and_one_term(folder: Path, tmp_path: Path) -> None:
    options = {"network": NETWORK, "alignment": 0.5}
    path = train(recipe(options=options, log_every=1), folder, tmp_path / "run")
    header, *rows = (tmp_path / "run" / "loss.csv").read_text().splitlines()
    assert header.startswith("step,retrieval,alignment")
    assert all(float(row.split(",")[2]) > 0 for row in rows)
    assert not [name for name in load_checkpoint(path).tensors if "frozen" in name]  # the copy is not shipped
    plain = irpad.training({"network": NETWORK})
    assert plain.trained.state_dict().keys() == load_checkpoint(path).tensors.keys()
    taught = irpad.training({**options, "teacher": str(path)}).network.get_submodule("frozen").state_dict()
    assert all(torch.equal(taught[n], load_checkpoint(path).tensors[f"encoder.{n}"].float()) for n in taught)


def test_gradients_reach_every_parameter(large: torch.Tensor) -> None:
    training = irpad.training({"network": NETWORK})
    made = [draw_example(large[0, :, :288, :288], np.random.default_rng(k), PromptMix()) for k in range(2)]
    seen, levels = (torch.stack([example.truth[name] for example in made]) for name in ("seen", "levels"))
    irpad.retrieval_loss(training.trained(seen), levels).backward()  # type: ignore[no-untyped-call]
    silent = [name for name, p in training.trained.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []


def test_the_embedded_one_tells_noise_from_none(shared_photos: torch.Tensor) -> None:
    reader = load_reader()
    assert reader is load_reader()
    photo = F.interpolate(shared_photos[:1], scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    said = [levels_of(reader.read((photo + sigma / 255 * noise).clamp(0, 1))[0])[1] for sigma in (0, 12, 30)]
    assert said == sorted(said)
    assert said[0] <= 1
    assert said[-1] == 3


def test_a_package_without_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clareo.perceive.reader.packaged", dict)
    load_reader_nano.cache_clear()
    with pytest.raises(CheckpointError, match="none is shipped"):
        load_reader()


# --- examinations ----------------------------------------------------------------------------------------------------


class Answering(NanoReader):
    """A reader that says what it was told to say, photo by photo."""

    def __init__(self, levels: torch.Tensor) -> None:
        super().__init__(TINY)
        self.levels, self.place = levels, 0

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        chosen = self.levels[self.place : self.place + len(photo)]
        self.place += len(photo)
        return nn.functional.one_hot(chosen, 4).float()


def test_the_examination_counts_what_is_right() -> None:
    photos = [data.astronaut()[:300, :300], data.astronaut()[100:400, 150:450]]
    reader = Answering(torch.zeros(0, 3, dtype=torch.long))
    examination = Examination(reader, SECOND, photos, crop=256, seed=0)
    true = examination.levels
    assert true.shape == (2 * Examination.TIMES, 3)
    reader.levels = true
    right = examination()
    assert all(right[name] == 1.0 for kind in KINDS for name in (kind, f"{kind} within one"))
    reader.levels, reader.place = torch.zeros_like(true), 0
    zero = examination()
    for place, kind in enumerate(KINDS):
        assert zero[kind] == pytest.approx(float((true[:, place] == 0).float().mean()))
        assert zero[f"{kind} within one"] == pytest.approx(float((true[:, place] <= 1).float().mean()))
    assert -1 <= zero["cosine"] == right["cosine"] < 1
    again = Examination(reader, SECOND, photos, crop=256, seed=0)
    assert torch.equal(again.seen, examination.seen)


def test_agreement() -> None:
    rows = agreement(torch.tensor([[0, 1, 2], [3, 1, 0]]), torch.tensor([[0, 2, 0], [0, 1, 1]]))
    assert [rows[kind] for kind in KINDS] == [0.5, 0.5, 0.0]
    assert [rows[f"{kind} within one"] for kind in KINDS] == [0.5, 1.0, 0.5]


def test_rows_of_a_confusion_add_up() -> None:
    true, said = (torch.randint(4, (200, 3), generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    counts = bench_confusion(true, said)
    for place, matrix in enumerate(counts):
        assert matrix.sum(1).tolist() == true[:, place].bincount(minlength=4).tolist()
        assert matrix.sum(0).tolist() == said[:, place].bincount(minlength=4).tolist()
        assert int(matrix.trace()) == int((true[:, place] == said[:, place]).sum())
    assert counts[1, 2, 3] == int(((true[:, 1] == 2) & (said[:, 1] == 3)).sum())


def test_the_bench_writes_what_it_measured(folder: Path, tmp_path: Path, run_cli: Run) -> None:
    run = train(recipe(), folder, tmp_path / "run").parent
    out = tmp_path / "out"
    said = run_cli("bench", "--data", folder, "--prompts", "--limit", "4", "--preset", run, "-o", out)
    assert said.status == 0
    assert said.out.strip() == (out / "prompts.md").read_text().strip()
    with (out / "prompts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["photo"], row["enlarged"]) for row in rows] == [
        ("0.png", "0"),
        ("1.png", "1"),
        ("0.png", "1"),
        ("1.png", "0"),
    ]
    for kind in KINDS:
        share = np.mean([row[f"true {kind}"] == row[f"said {kind}"] for row in rows])
        assert f"| {kind} | {share:.3f} |" in said.out
        assert f"| {kind}: true, said |" in said.out
    assert run_cli("bench", "--data", folder, "--prompts", "--limit", "4", "--preset", run, "-o", out).out == said.out


def test_the_bench_says_what_it_cannot_measure(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    PIL.Image.fromarray(data.astronaut()[:200, :200]).save(small / "0.png")
    with pytest.raises(PhotoError, match="no photo of 256 px"):
        next(bench_ask(NanoReader(TINY), small, 1))


# --- as eyes of others -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extents", [(64, 64), (96, 200), (256, 320)])
def test_eyes_see_the_middle_at_its_own_scale(extents: tuple[int, int]) -> None:
    """Larger photos are cut and smaller ones repeated, both on the grid of a codec; enlargements are undone first."""
    photo = torch.rand(1, 3, *extents, generator=torch.Generator().manual_seed(0))
    seen = repeated(photo, 128)
    assert seen.shape == (1, 3, 128, 128)
    assert extents != (64, 64) or torch.equal(seen, photo.repeat(1, 1, 2, 2))
    if min(extents) > 128:
        top, left = ((extent - 128) // 2 // 8 * 8 for extent in extents)
        assert torch.equal(seen, photo[..., top : top + 128, left : left + 128])


def test_eyes_tell_a_noisy_photo_from_a_clean_one(shared_photos: torch.Tensor) -> None:
    eyes = find_vision("irpad")
    assert len(eyes.sha256) == 64
    clean = shared_photos[:6]
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    with torch.no_grad():
        still, loud = (eyes.tokens(eyes.squared(photos)) for photos in (clean, noisy))
    assert still.shape == (6, 80, eyes.width)
    assert bool((loud.std((1, 2)) > still.std((1, 2))).all())
    assert not any(parameter.requires_grad for parameter in eyes.parameters())


def test_eyes_stay_where_the_system_is_and_the_reader_where_it_was() -> None:
    eyes = find_vision("irpad").double()
    assert next(eyes.parameters()).dtype == torch.float64
    assert next(load_reader_nano().parameters()).dtype == torch.float32


# --- a reader that reads more ----------------------------------------------------------------------------------------


def test_a_wider_reader_knows_what_the_first_one_knows() -> None:
    known = load_reader("irpad-nano-1")
    with_ladder = replace(known.settings, ladder=True)
    wide = irpad.training({"network": with_ladder.to_json(), "widen": "irpad-nano-1"}).trained
    assert isinstance(wide, NanoReader)
    assert wide.settings.ladder
    for name, value in known.state_dict().items():
        assert torch.equal(wide.state_dict()[name], value), name
    with pytest.raises(RecipeError, match="same shape"):
        irpad.training({"network": replace(with_ladder, signs=2).to_json(), "widen": "irpad-nano-1"})


@pytest.mark.parametrize("size", [(64, 64), (65, 113)])
def test_the_ladder_is_read_at_any_size(size: tuple[int, int]) -> None:
    reader = NanoReader(replace(ReaderSettings(), ladder=True))
    photos = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    irpad.retrieval_loss(reader(photos), torch.zeros(2, 3).long()).backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is not None and value.grad.any() for value in reader.signs[-1].parameters())
    with torch.no_grad():
        assert torch.allclose(reader(photos)[1:], reader(photos[1:]), atol=1e-4)
