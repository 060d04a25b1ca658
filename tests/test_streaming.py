"""Streamed photos: what comes out is what the whole photo gives, and memory holds neither copies nor surprises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

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
from fakes import fake_system, write_photos


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


def test_16_bits_are_not_held_in_half(photo: torch.Tensor) -> None:
    deep = (photo[0].permute(1, 2, 0).numpy() * 65535).astype("uint16")
    done = clareo.restore(deep, system=fake_system(), streamed=True, judged=False)
    assert done.tensor.dtype == torch.float32
