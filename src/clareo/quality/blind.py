"""Metrics without a reference. RGB, [0, 1]; one value per image of the batch."""

from __future__ import annotations

import torch

from clareo.types import Image


def gradient_energy(image: Image) -> torch.Tensor:
    """Return the mean squared difference of neighbouring pixels: sharpness, and noise alike: (B,).

    >>> import torch
    >>> float(gradient_energy(torch.zeros(1, 3, 8, 8)))
    0.0
    """
    down = (image[..., 1:, :] - image[..., :-1, :]).square().mean((1, 2, 3))
    right = (image[..., :, 1:] - image[..., :, :-1]).square().mean((1, 2, 3))
    return down + right
