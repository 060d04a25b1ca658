"""Metrics against scikit-image, and against cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import metrics

from clareo.quality.blind import gradient_energy
from clareo.quality.reference import psnr, ssim


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.2])
def test_psnr_and_ssim_agree_with_scikit_image(sigma: float, photo: torch.Tensor) -> None:
    noisy = (photo + sigma * torch.randn(photo.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    ours = torch.cat([noisy, photo * 0.9]), torch.cat([photo, photo])
    for k, (a, b) in enumerate([(noisy, photo), (photo * 0.9, photo)]):
        x, y = (image[0].permute(1, 2, 0).double().numpy() for image in (a, b))
        theirs = metrics.structural_similarity(
            x, y, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(psnr(*ours)[k]) == pytest.approx(metrics.peak_signal_noise_ratio(y, x, data_range=1), rel=1e-4)
        assert float(ssim(*ours)[k]) == pytest.approx(theirs, rel=1e-3)


def test_equal_images(photo: torch.Tensor) -> None:
    assert float(ssim(photo, photo)) == pytest.approx(1)
    assert float(psnr(photo, photo)) == float("inf")


def test_gradient_energy_of_a_ramp() -> None:
    ramp = torch.from_numpy(np.tile(np.arange(8, dtype=np.float32) * 0.1, (3, 8, 1)))[None]
    assert float(gradient_energy(ramp)) == pytest.approx(0.01)
