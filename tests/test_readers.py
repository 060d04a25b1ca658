"""What is read off a photo beside convolutions: the steps that a codec rounded to."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
import torch

from clareo.backbones.readers import SIDE, Ladder, block_cosines, coefficients, luma_steps
from clareo.colour import luma


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


def test_a_photo_that_was_never_coded_stands_on_no_rung(shared_photos: torch.Tensor) -> None:
    grain = 0.02 * torch.randn(shared_photos[6].shape, generator=torch.Generator().manual_seed(0))
    assert float(near((shared_photos[6] + grain).clamp(0, 1)).max()) < 0.1


def test_a_flat_photo_says_nothing() -> None:
    assert torch.isfinite(Ladder(8)(torch.full((2, 1, 64, 64), 0.5))).all()
    assert float(near(torch.full((3, 64, 64), 0.5)).abs().max()) == 0
