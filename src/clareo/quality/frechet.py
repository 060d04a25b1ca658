"""How far restored photos are, as a crowd, from clean ones: FID (Heusel et al. 2017) with the judge as its eyes.

What the judge's last hidden layer says of pieces of both folders is taken for two bells, whose Frechet distance is

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))

Pieces of 128 px, so that a few dozen photos make some hundred; even so the distance of two halves of one crowd is not
nought. Compare crowds of one size.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from clareo.errors import PhotoError
from clareo.quality.judge import Judge, load_judge
from clareo.types import Image

PIECE = 128  # px
LEAST = 2  # pieces, of which a spread can be told


@torch.inference_mode()
def frechet_judge(restored: Iterable[Image], reference: Iterable[Image], network: Judge | None = None) -> float:
    """Return the distance between two crowds of photos (1, 3, H, W), in [0, 1]; they need not be pairs."""
    network = network or load_judge()
    first, second = (pieces_seen(network, photos) for photos in (restored, reference))
    return float(distance(first, second))


def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the Frechet distance between bells laid through points (N, D) and (M, D).

    >>> distance(torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [3.0]]))
    tensor(4., dtype=torch.float64)
    """
    (mean, spread), (other_mean, other_spread) = (_bell(points.double()) for points in (first, second))
    root = _root(spread)  # the trace of (C C')^(1/2) is that of (C^(1/2) C' C^(1/2))^(1/2), which is symmetric
    shared: torch.Tensor = torch.linalg.eigvalsh(root @ other_spread @ root).clamp_min(0).sqrt().sum()
    return (mean - other_mean).square().sum() + spread.trace() + other_spread.trace() - 2 * shared


def _bell(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if len(points) < LEAST:
        msg = f"{len(points)} pieces of {PIECE} px are no crowd; two at least are needed"
        raise PhotoError(msg)
    mean = points.mean(0)
    apart = points - mean
    return mean, apart.T @ apart / (len(points) - 1)


def _root(matrix: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: torch.Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


@torch.inference_mode()
def pieces_seen(network: Judge, photos: Iterable[Image]) -> torch.Tensor:
    """Return what the judge sees of every whole piece of every photo, (pieces, D)."""
    found = [network.see(piece) for photo in photos for piece in _pieces(photo)]
    return torch.cat(found) if found else torch.zeros(0, network.settings.width)


def _pieces(photo: Image) -> list[Image]:
    height, width = (extent // PIECE * PIECE for extent in photo.shape[-2:])
    return [
        photo[..., top : top + PIECE, left : left + PIECE]
        for top in range(0, height, PIECE)
        for left in range(0, width, PIECE)
    ]
