"""Streamed photos: what comes out is what the whole photo gives, and memory holds neither copies nor surprises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import clareo
from clareo.batch import make_jobs, run
from clareo.batch.memory import Load
from clareo.colour import Bands, adain, keep, wavelet
from clareo.diffusion.process import Flow
from clareo.errors import NotFiniteError, UsageError
from clareo.planning import read_plan
from clareo.system import System
from clareo.trust import measure_trust, trust_score
from fakes import fake_system, write_photos

FAKES = Path(__file__).parent / "fakes.py"


@pytest.mark.parametrize("size", [(128, 160), (101, 147), (128, 40), (20, 30), (5, 160)])
@pytest.mark.parametrize("upscale", [1, 2])
def test_one_step_is_the_same_as_whole(
    size: tuple[int, int], upscale: int, unires: System, photo: torch.Tensor
) -> None:
    options = {"system": unires, "weights": {"denoise": 0.7, "sr": 0.3}, "tile": 128, "upscale": upscale}
    image = photo[..., : size[0], : size[1]]
    whole, streamed = (clareo.restore(image, **options, judged=False, streamed=way) for way in (False, True))
    assert streamed.plan.streamed
    assert streamed.tensor.dtype == torch.float16
    assert streamed.tensor.shape == whole.tensor.shape
    difference = (whole.tensor - streamed.tensor.float()).abs()
    assert float(difference.max()) < 1 / 255
    assert float(difference.mean()) < 0.2 / 255


def test_what_is_said_of_it_is_the_same(unires: System, photo: torch.Tensor) -> None:
    options = {"system": unires, "weights": {"denoise": 1.2, "sr": -0.2}, "tile": 128, "trust_map": True}
    whole, streamed = (clareo.restore(photo, **options, streamed=way) for way in (False, True))
    assert streamed.trust == pytest.approx(whole.trust, abs=0.01)
    assert streamed.after is not None
    assert whole.after is not None
    assert streamed.after.score == pytest.approx(whole.after.score, abs=0.02)
    assert streamed.before == whole.before
    assert streamed.kept is not None
    assert streamed.kept.shape == (1, 1, 128, 160)
    assert streamed.warnings == whole.warnings == ()


def test_the_blend_is_found_as_for_the_whole_photo(unires: System, photo: torch.Tensor) -> None:
    whole, streamed = (clareo.restore(photo, system=unires, judged=False, streamed=way) for way in (False, True))
    assert streamed.plan.weights == whole.plan.weights


def test_a_streamed_photo_that_is_left_alone(unires: System, photo: torch.Tensor) -> None:
    done = clareo.restore(photo, system=unires, weights={"keep": 1.0}, streamed=True, judged=False)
    assert torch.equal(done.tensor, photo)


def test_bands_of_colour() -> None:
    a, b = torch.rand(2, 1, 3, 70, 50, generator=torch.Generator().manual_seed(0))
    for match in (adain, keep):
        bands = Bands(match, a, b)
        assert torch.allclose(torch.cat([bands(slice(0, 33)), bands(slice(33, 70))], 2), match(a, b), atol=1e-5)
    with pytest.raises(UsageError, match="in bands"):
        Bands(wavelet, a, b)


def test_a_tile_that_fails_is_named_where_it_lies(photo: torch.Tensor) -> None:
    def fault(number: int, x: torch.Tensor) -> torch.Tensor:
        return x * float("nan") if number == 2 else x

    with pytest.raises(NotFiniteError, match="row 0, column 8 "):
        clareo.restore(photo, system=fake_system(fault), tile=128, streamed=True, judged=False)


def test_a_photo_is_streamed_where_memory_wants_it_says_so_and_is_repeated(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", "a", size=(900, 1200))
    jobs = make_jobs([tmp_path / "in"], tmp_path / "out", {"judged": False})
    tight = Load(1_080_000).streamed(512)
    assert tight < Load(1_080_000).peak(128)
    (outcome,) = run(jobs, fake_system(), memory=tight)
    assert outcome.restoration is not None
    assert outcome.restoration.plan.streamed
    assert outcome.restoration.plan.why.endswith("; streamed, for want of memory")
    sidecar = tmp_path / "out" / "a.clareo.json"
    assert json.loads(sidecar.read_text())["plan"]["streamed"] is True
    plan, _ = read_plan(sidecar)
    assert plan == outcome.restoration.plan
    jobs = make_jobs([tmp_path / "in"], tmp_path / "again", {"judged": False, "plan": plan})
    assert next(run(jobs, fake_system())).state == "done"
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "again" / "a.png").read_bytes()


def test_a_system_that_draws_noise_is_not_streamed(photo: torch.Tensor, tmp_path: Path) -> None:
    system = fake_system()
    noisy = replace(system, denoiser=replace(system.denoiser, process=Flow()))
    with pytest.raises(UsageError, match="draws noise for the whole photo"):
        clareo.restore(photo, system=noisy, streamed=True, judged=False)
    write_photos(tmp_path / "in", "a", size=(900, 1200))
    jobs = make_jobs([tmp_path / "in"], tmp_path / "out", {"judged": False})
    (outcome,) = run(jobs, noisy, memory=Load(1_080_000).streamed(512))
    assert "a.png: needs about 0.3 GiB of memory" in outcome.error


def test_trust_looks_at_pieces_of_wide_photos_and_says_the_same(
    photo: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = photo.repeat(1, 1, 3, 3)[..., :381, :477]
    made = (large + 0.05 * torch.randn(large.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    monkeypatch.setattr("clareo.trust.PIECE", (10_000, 10_000))
    whole = measure_trust(made, large)
    monkeypatch.setattr("clareo.trust.PIECE", (128, 160))
    pieces = measure_trust(made, large)
    assert pieces.score == pytest.approx(whole.score, abs=1e-5)
    assert torch.allclose(pieces.kept, whole.kept, atol=1e-4)
    assert trust_score(made, large) == pieces.score


@pytest.mark.slow
def test_a_large_photo_takes_no_more_than_was_estimated(tmp_path: Path) -> None:
    """Two, so that nothing of the first is held with the second; judged, and drawn for a report.

    CLAREO_MEGAPIXELS=100 makes one of that size, CLAREO_REAL=1 restores with the embedded model; told.json: the bytes.
    """
    pixels, log = 1e6 * float(os.environ.get("CLAREO_MEGAPIXELS", "8")), tmp_path / "told.json"
    height, width = int((0.75 * pixels) ** 0.5), int((pixels / 0.75) ** 0.5)
    square = np.random.default_rng(0).integers(60, 190, (256, 256, 3), np.uint8)
    (tmp_path / "in").mkdir()
    large = np.tile(square, (height // 256 + 1, width // 256 + 1, 1))[:height, :width]
    for name in "ab"[: 1 if pixels > 5e7 else 2]:
        PIL.Image.fromarray(large).save(tmp_path / "in" / f"{name}.jpg")
    subprocess.run([sys.executable, FAKES, "large", tmp_path / "in", tmp_path / "out", log], check=True)
    told = json.loads(log.read_text())
    assert set(told["errors"]) == {""}
    assert set(told["streamed"]) == {True}
    assert 0 < max(told["pictures"]) < 50_000  # what a report holds of it
    assert told["most"] < told["before"] + told["estimate"]
    assert pixels > 100e6 or told["most"] < 3 * 2**30


def test_outcomes_hold_no_pixels(tmp_path: Path) -> None:
    """They wait for their turn, and lie about until the next one comes."""
    write_photos(tmp_path / "in", "a", size=(64, 96))
    (outcome,) = run(make_jobs([tmp_path / "in"], tmp_path / "out", {"trust_map": True}), fake_system())
    done = outcome.restoration
    assert done is not None
    assert (done.kept, done.tensor.shape, done.tensor.untyped_storage().nbytes()) == (None, (1, 3, 64, 96), 4)
    assert bool(done.tensor.isnan().all())  # and no mistake
    with done.image as image, PIL.Image.open(tmp_path / "out" / "a.png") as written:
        assert image.tobytes() == written.tobytes()


def test_16_bits_are_not_held_in_half(photo: torch.Tensor) -> None:
    deep = (photo[0].permute(1, 2, 0).numpy() * 65535).astype("uint16")
    done = clareo.restore(deep, system=fake_system(), streamed=True, judged=False)
    assert done.tensor.dtype == torch.float32


def test_16_bits_are_planned_for(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 65535, (900, 1200), np.uint16)
    for name, array in (("a", (grey >> 8).astype(np.uint8)), ("b", grey)):
        (tmp_path / name).mkdir()
        PIL.Image.fromarray(array).save(tmp_path / name / "photo.png")
    tight = Load(1_080_000).streamed(128)
    jobs = [make_jobs([tmp_path / name], tmp_path / "out" / name, {"judged": False})[0] for name in "ab"]
    usual, deep = run(jobs, fake_system(), memory=tight)
    assert usual.state == "done"
    assert "needs about 0.2 GiB of memory" in deep.error
