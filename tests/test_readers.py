"""What is read off a photo beside convolutions: the steps that a codec rounded to."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
import torch

from clareo.backbones.readers import SIDE, Ladder, block_cosines, coefficients, luma_steps
from clareo.colour import luma
from clareo.quality.judge import Judge, JudgeSettings


def coded(photo: torch.Tensor, quality: int) -> torch.Tensor:
    """Code (3, H, W) as JPEG, and decode it."""
    file = io.BytesIO()
    pixels = (photo.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(PIL.Image.open(file)).copy()).permute(2, 0, 1).float() / 255


def near(photo: torch.Tensor) -> torch.Tensor:
    """Return how near a photo lies to the steps of every rung."""
    ladder, y = Ladder(8), luma(photo[None])
    return ladder.nearness(coefficients(y[0], ladder.low, ladder.phase(y[0])))[: len(Ladder.RUNGS)]


def test_tables_are_pillows() -> None:
    zigzag = sorted(range(SIDE**2), key=lambda k: (k // 8 + k % 8, k // 8 if (k // 8 + k % 8) % 2 else k % 8))
    for quality in (5, 25, 50, 75, 96):
        file = io.BytesIO()
        PIL.Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        pillows = torch.tensor(PIL.Image.open(file).quantization[0]).float()
        assert torch.equal(luma_steps(quality), pillows) or torch.equal(luma_steps(quality)[zigzag], pillows)


def test_waves_are_a_basis() -> None:
    waves = block_cosines().flatten(1)
    assert torch.allclose(waves @ waves.T, torch.eye(SIDE**2), atol=1e-6)


@pytest.mark.parametrize("quality", [30, 50, 70, 85])
def test_the_quality_is_read(quality: int, shared_photos: torch.Tensor) -> None:
    said = [Ladder.RUNGS[int(near(coded(photo, quality)).argmax())] for photo in shared_photos[:12]]
    assert abs(float(np.median(said)) - quality) <= 5


@pytest.mark.parametrize("cut", [(0, 0), (3, 5), (7, 1)])
def test_the_grid_is_found_where_a_photo_was_cut(cut: tuple[int, int], shared_photos: torch.Tensor) -> None:
    ladder, (top, left) = Ladder(8), cut
    for photo in shared_photos:
        for quality in (60, 85):
            y = luma(coded(photo, quality)[None, :, top:, left:])
            assert ladder.phase(y[0]) == (-top % SIDE, -left % SIDE)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_photos_that_were_turned_stand_on_the_same_rung(turns: int, shared_photos: torch.Tensor) -> None:
    photo = coded(shared_photos[6], 60)
    turned = near(photo.rot90(turns, (1, 2)))
    assert turned.argmax() == near(photo).argmax()
    assert float(turned.max()) == pytest.approx(float(near(photo).max()), abs=0.1)


def test_the_middle_of_a_large_photo_tells_where_the_grid_is(shared_photos: torch.Tensor) -> None:
    large = coded(shared_photos[6].repeat(1, 3, 4), 70)
    for top, left in ((0, 0), (5, 2)):
        assert Ladder(8).phase(luma(large[None, :, top:, left:])[0]) == (-top % SIDE, -left % SIDE)


def test_half_precision_does_not_blunt_what_is_read(shared_photos: torch.Tensor) -> None:
    """An einsum under autocast would round brightness to seven bits."""
    heard: list[torch.Tensor] = []
    network = Judge(JudgeSettings(channels=(8, 8, 8), blocks=(1, 1, 1), ladder_width=4)).eval()
    network.others[0].register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    for form in (torch.float32, torch.bfloat16):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=form == torch.bfloat16):
            network(shared_photos[:1])
    assert torch.equal(*heard)


def test_a_photo_that_was_never_coded_stands_on_no_rung(shared_photos: torch.Tensor) -> None:
    grain = 0.02 * torch.randn(shared_photos[6].shape, generator=torch.Generator().manual_seed(0))
    assert float(near((shared_photos[6] + grain).clamp(0, 1)).max()) < 0.1


def test_a_flat_photo_says_nothing() -> None:
    assert torch.isfinite(Ladder(8)(torch.full((2, 1, 64, 64), 0.5))).all()
    assert float(near(torch.full((3, 64, 64), 0.5)).abs().max()) == 0
