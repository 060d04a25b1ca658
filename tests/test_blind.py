"""Metrics without a reference against damage of known size, and against independent implementations."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from skimage import data, measure

from clareo.checkpoints import load_checkpoint
from clareo.colour import luma
from clareo.degrade import ops
from clareo.errors import CheckpointError, PhotoError, UsageError
from clareo.quality import nss
from clareo.quality.blind import (
    blockiness,
    gradient_energy,
    grid_strength,
    noise_level,
    seam_strength,
    sharpness,
)

RNG = torch.Generator()
Metric = Callable[[torch.Tensor], torch.Tensor]
METRICS: dict[str, Metric] = {
    "gradient_energy": gradient_energy,
    "sharpness": sharpness,
    "noise_level": noise_level,
    "blockiness": blockiness,
    "grid_strength": lambda image: grid_strength(image, 8),
    "seam_strength": seam_strength,
    "niqe_fit": nss.niqe_fit,
    "brisque_features": nss.brisque_features,
}


def as_batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    """Two free photos as (2, 3, 288, 384)."""
    return torch.cat([as_batch(whole[:288, 30:414]) for whole in (data.coffee(), data.chelsea())])


def noisy(photos: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    return photos + torch.randn(photos.shape, generator=torch.Generator().manual_seed(seed)) * sigma / 255


@pytest.mark.parametrize("name", METRICS)
def test_batches_measure_as_single_photos(name: str, photos: torch.Tensor) -> None:
    together = METRICS[name](photos)
    alone = torch.cat([METRICS[name](photo[None]) for photo in photos])
    assert together.shape[0] == 2
    assert together.isfinite().all()
    torch.testing.assert_close(together, alone, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_photos_are_measured(name: str, value: float) -> None:
    assert METRICS[name](torch.full((1, 3, 96, 128), value)).isfinite().all()


@pytest.mark.parametrize("name", METRICS)
def test_what_cannot_be_measured_is_said(name: str) -> None:
    holed = torch.zeros(1, 3, 128, 128)
    holed[0, 1, 5, 5] = torch.nan
    with pytest.raises(PhotoError, match="NaN"):
        METRICS[name](holed)
    with pytest.raises(PhotoError, match=r"at least \d+ px a side, not 1x300"):
        METRICS[name](torch.zeros(1, 3, 300, 1))
    with pytest.raises(UsageError, match="floating-point RGB"):
        METRICS[name](torch.zeros(1, 1, 128, 128))


def test_sharpness_agrees_with_scikit_image_and_falls_with_blur(photos: torch.Tensor) -> None:
    blurred = [ops.bell_blur(photos, RNG, 41, sigma, sigma) for sigma in (0.7, 1.0, 2.0, 4.0)]
    values = [sharpness(each) for each in (photos, *blurred)]
    for image, value in zip((photos, *blurred), values, strict=True):
        theirs = [1 - measure.blur_effect(grey.double().numpy()) for grey in luma(image)[:, 0]]
        assert value.tolist() == pytest.approx(theirs, abs=0.01)
    assert all(bool((sharp > soft).all()) for sharp, soft in pairwise(values))


@pytest.mark.parametrize("sigma", [2, 5, 10, 25, 50])
def test_noise_is_estimated_over_texture(sigma: float, photos: torch.Tensor) -> None:
    assert noise_level(noisy(photos, sigma)).tolist() == pytest.approx([sigma, sigma], rel=0.1, abs=0.5)


def test_noise_of_a_small_photo_and_of_none(photo: torch.Tensor) -> None:
    assert float(noise_level(noisy(photo[..., :64, :64], 15))) == pytest.approx(15, rel=0.15)
    assert float(noise_level(ops.bell_blur(photo, RNG, 21, 2, 2))) < 0.1
    assert float(noise_level(torch.full((1, 3, 64, 64), 0.5))) == pytest.approx(0, abs=1e-3)


def test_blockiness_falls_with_the_quality_of_a_jpeg(photos: torch.Tensor) -> None:
    values = [blockiness(photos), *(blockiness(ops.jpeg(photos, RNG, quality)) for quality in (80, 60, 40, 20, 10, 5))]
    assert all(bool((worse > better).all()) for better, worse in pairwise(values))


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 5), (7, 2)])
def test_blocks_are_found_wherever_they_begin(top: int, left: int, photos: torch.Tensor) -> None:
    coded = ops.jpeg(photos, RNG, 20)
    assert blockiness(coded[..., top:, left:]).tolist() == pytest.approx(blockiness(coded).tolist(), rel=0.05)
    assert (blockiness(coded) > 3 * blockiness(coded, 7)).all()


@pytest.mark.parametrize("period", [8, 16, 32])
def test_a_faint_grid_is_found_at_its_period_only(period: int, photos: torch.Tensor) -> None:
    drawn = photos.clone()
    drawn[..., 3::period] += 3 / 255
    drawn[..., 5::period, :] += 3 / 255
    drawn = ops.quantise(drawn, RNG)
    assert (grid_strength(photos, period) < 2.5).all()
    assert (grid_strength(drawn, period) > 3).all()
    assert (grid_strength(drawn, period - 1) < 2.5).all()


def test_a_checkerboard_is_a_grid_as_well(photos: torch.Tensor) -> None:
    board = (torch.arange(288)[:, None] + torch.arange(384)) % 2
    assert (grid_strength(photos + board * 2 / 255, 2) > 4 * grid_strength(photos, 2)).all()


def test_a_grid_needs_four_periods() -> None:
    assert grid_strength(torch.zeros(1, 3, 128, 128), 32).shape == (1,)
    with pytest.raises(PhotoError, match="at least 132 px"):
        grid_strength(torch.zeros(1, 3, 128, 200), 33)


def test_a_faint_step_is_found_where_it_is(photos: torch.Tensor) -> None:
    stepped = photos.clone()
    stepped[..., 200:] += 4 / 255
    found, before = (seam_strength(each, column=200) for each in (stepped, photos))
    assert (found > 3).all()
    assert (before < 2).all()
    assert (seam_strength(stepped, column=190) < 2).all()
    assert (seam_strength(stepped) >= found).all()
    torch.testing.assert_close(seam_strength(stepped.mT, row=200), found)


def test_a_seam_outside_the_photo_is_refused() -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)
    for wrong in ({"column": 1}, {"row": 63}, {"column": 30, "row": 30}):
        with pytest.raises(UsageError):
            seam_strength(grey, **wrong)


@pytest.mark.parametrize(("shape", "draw"), [(1.0, "laplace"), (2.0, "normal")])
def test_shapes_are_recovered_from_samples(shape: float, draw: str) -> None:
    rng = np.random.default_rng(1)
    values = torch.from_numpy(getattr(rng, draw)(size=200_000))
    assert float(nss.symmetric_fit(values)) == pytest.approx(shape, rel=0.02)
    to_the_right = torch.from_numpy(rng.random(200_000) < 0.75)  # three times as wide, so three times as many
    fitted, left, right = nss.asymmetric_fit(torch.where(to_the_right, 3 * values.abs(), -values.abs()))
    assert float(fitted) == pytest.approx(shape, rel=0.03)
    assert float(right / left) == pytest.approx(3, rel=0.02)


def test_niqe_fit_rises_with_blur_noise_and_compression(photos: torch.Tensor) -> None:
    families = {
        "blur": [ops.bell_blur(photos, RNG, 41, sigma, sigma) for sigma in (1.0, 2.0, 4.0)],
        "noise": [noisy(photos, sigma).clamp(0, 1) for sigma in (10, 25, 50)],
        "jpeg": [ops.jpeg(photos, RNG, quality) for quality in (50, 20, 10)],
    }
    for name, damaged in families.items():
        values = torch.stack([nss.niqe_fit(each) for each in (photos, *damaged)])
        assert bool((values.diff(dim=0) > 0).all()), f"{name}: {values}"


def test_features_have_the_published_layout(photos: torch.Tensor) -> None:
    features, sharpness_of = nss.patch_features(photos)
    assert features.shape == (2, 3 * 4, 36)
    assert sharpness_of.shape == (2, 12)
    whole = nss.brisque_features(photos)
    assert whole.shape == (2, 36)
    assert bool(((whole[:, 0] > 1) & (whole[:, 0] < 4)).all())  # contrasts of a photo are nearly Gaussian
    assert bool((whole[:, [1, 4, 5, 19]] > 0).all())  # variances
    for photo, variance in zip(photos, whole[:, 1], strict=True):
        grey = 255 * luma(photo[None])[0, 0].double().numpy()
        mean, square = (gaussian_filter(each, 7 / 6, radius=3, mode="nearest") for each in (grey, grey**2))
        contrast = (grey - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
        assert float(variance) == pytest.approx((contrast**2).mean(), rel=1e-3)


def test_the_packaged_statistics_are_the_ones_that_the_page_describes() -> None:
    page = (Path(__file__).parent.parent / "docs" / "models" / "niqe-fit.md").read_text()
    path = Path(nss.__file__).parent.parent / "weights" / nss.FILE
    assert load_checkpoint(path, nss.SHA256).sha256 in page
    pristine = nss.load_pristine()
    assert f"{pristine.patches:,} patches of {pristine.photos} photos" in page
    assert bool((torch.linalg.eigvalsh(pristine.covariance) > 0).all())


def test_statistics_of_own_photos_can_be_made_and_used(
    tmp_path: Path, photos: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, whole in enumerate((data.astronaut(), data.coffee(), data.chelsea(), data.rocket())):
        tiled = np.tile(whole, (2, 1, 1))  # enough patches: each in two places
        PIL.Image.fromarray(np.concatenate([tiled, tiled[:, ::-1]])).save(tmp_path / f"{number}.bmp")
    for name in ("a", "b"):
        nss.main(
            [str(tmp_path), str(tmp_path / "0.bmp"), "-o", str(tmp_path / name / "own.safetensors"), "--limit", "4"]
        )
    assert "patches of 4 photos" in capsys.readouterr().err
    assert (tmp_path / "a/own.safetensors").read_bytes() == (tmp_path / "b/own.safetensors").read_bytes()
    own = nss.read_pristine(tmp_path / "a" / "own.safetensors")
    assert own.photos == 4
    assert not torch.allclose(nss.niqe_fit(photos, own), nss.niqe_fit(photos))


def test_too_few_patches_and_foreign_files_are_refused(tmp_path: Path, photo: torch.Tensor) -> None:
    with pytest.raises(PhotoError, match="too few"):
        nss.fit_pristine([photo])
    save_file({"mean": torch.zeros(36)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not the statistics"):
        nss.read_pristine(tmp_path / "other.safetensors")
