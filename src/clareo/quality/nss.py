"""Natural scene statistics: how far a photo's local contrasts stray from those of good photos. Blind; luma only.

A good photo, minus its local mean and over its local deviation, is nearly Gaussian, whatever it shows; blur, noise and
compression each bend that shape in their own way. 36 numbers describe it: Mittal, Moorthy and Bovik, "No-reference
image quality assessment in the spatial domain", IEEE TIP 2012 (BRISQUE), and Mittal, Soundararajan and Bovik, "Making
a completely blind image quality analyzer", IEEE SPL 2013 (NIQE).

Differs from the paper: the good photos are ours, so `niqe_fit` is NIQE's method with other statistics, and its numbers
compare with no published NIQE. The statistics are made by `python -m clareo.quality.nss PHOTOS -o FILE`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import save
from torch.nn import functional as F

from clareo.checkpoints import load_checkpoint
from clareo.colour import luma
from clareo.errors import CheckpointError, PhotoError
from clareo.io import atomic, list_photos, read_rgb8
from clareo.quality.blind import checked
from clareo.types import Image

PATCH = 96  # px of a patch's side, and of the smallest photo
SHARP = 0.75  # a patch of a good photo counts when it is this sharp, as a share of the photo's sharpest
FILE = "niqe-fit.safetensors"
SHA256 = "0b6b6b1ae87dfd4ecb8928c5a1c487483ec9e946e4d751abd0b0814292a7318f"
SIGMA = 7 / 6  # px of the 7 x 7 Gaussian window for local mean and deviation
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # right, below, and both diagonals
TINY = 1e-10  # keeps the moments of flat patches defined


@dataclass(frozen=True)
class Pristine:
    """What patches of good photos have in common: a Gaussian over their features."""

    mean: torch.Tensor  # (36,), float64
    covariance: torch.Tensor  # (36, 36), float64
    patches: int
    photos: int


def niqe_fit(image: Image, pristine: Pristine | None = None) -> torch.Tensor:
    """Return the distance to the statistics of good photos, 0 or more; lower is better: (B,).

    Sides of 96 px or more. Not the official NIQE: see the head of this file.

    >>> import torch
    >>> tuple(niqe_fit(torch.rand(2, 3, 96, 200)).shape)
    (2,)
    """
    pristine = pristine or load_pristine()
    features = patch_features(image)[0].double()
    away = features.mean(1) - pristine.mean.to(features)
    pooled = (_covariance(features) + pristine.covariance.to(features)) / 2
    squared: torch.Tensor = (away * torch.linalg.solve(pooled, away)).sum(1)
    return squared.clamp_min(0).sqrt().to(image.dtype)


def brisque_features(image: Image) -> torch.Tensor:
    """Return BRISQUE's 36 features of whole photos: (B, 36). Sides of 96 px or more.

    Per scale (full, half): shape and variance of the contrasts, then shape, mean, left and right variance of the
    products of neighbours to the right, below and along both diagonals.
    """
    features: list[torch.Tensor] = []
    for grey in _scales(image):
        contrast = _contrast(grey)[0]
        features += [symmetric_fit(contrast.flatten(1)), contrast.square().mean((1, 2, 3))]
        for product in _products(contrast):
            shape, left, right = asymmetric_fit(product.flatten(1))
            features += [shape, _centre(shape, left, right), left.square(), right.square()]
    return torch.stack(features, 1)


def patch_features(image: Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Return NIQE's 36 features of every whole patch of 96 px, (B, N, 36), and how sharp each patch is, (B, N)."""
    height, width = (extent // PATCH * PATCH for extent in checked(image, PATCH, "niqe-fit").shape[-2:])
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    features: list[torch.Tensor] = []
    sharpness: list[torch.Tensor] = []
    for level, grey in enumerate(_scales(image[..., top : top + height, left : left + width])):
        contrast, deviation = _contrast(grey)
        sharpness.append(_patches(deviation, PATCH >> level).mean(-1))
        shape, left_side, right_side = asymmetric_fit(_patches(contrast, PATCH >> level))
        features += [shape, (left_side + right_side) / 2 * _spread(shape)]
        for product in _products(contrast):
            shape, left_side, right_side = asymmetric_fit(_patches(product, PATCH >> level))
            spread = _spread(shape)
            features += [shape, _centre(shape, left_side, right_side), left_side * spread, right_side * spread]
    return torch.stack(features, 2), sharpness[0]


def symmetric_fit(values: torch.Tensor) -> torch.Tensor:
    """Fit a generalised Gaussian by its moments: (..., n) -> shape (...); 1 is Laplace, 2 Gauss."""
    return _shape(values.abs().mean(-1).square() / (values.square().mean(-1) + TINY))


def asymmetric_fit(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit an asymmetric generalised Gaussian by its moments: (..., n) -> shape, left, right deviation, each (...)."""
    squares, below = values.square(), values < 0
    above = values > 0
    left, right = (((squares * side).sum(-1) / side.sum(-1).clamp_min(1) + TINY).sqrt() for side in (below, above))
    skew = left / right
    lean = (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    return _shape(values.abs().mean(-1).square() / (squares.mean(-1) + TINY) * lean), left, right


def fit_pristine(photos: Iterable[Image]) -> Pristine:
    """Fit the Gaussian over the sharp patches of good photos, each (1, 3, H, W)."""
    chosen: list[torch.Tensor] = []  # one entry a photo
    for photo in photos:
        features, sharpness = patch_features(photo)
        chosen.append(features[sharpness > SHARP * sharpness.max()].double())
    patches = torch.cat(chosen) if chosen else torch.empty(0, 36)
    if len(patches) <= patches.shape[1]:
        msg = f"{len(patches)} sharp patches of {PATCH} px are too few to fit {patches.shape[1]} features"
        raise PhotoError(msg)
    return Pristine(patches.mean(0), _covariance(patches[None])[0], len(patches), len(chosen))


@cache
def load_pristine() -> Pristine:
    """Load the packaged statistics, and see to it that they are the ones that were shipped."""
    path = Path(str(resources.files("clareo") / "weights" / FILE))
    return read_pristine(path, SHA256)


def read_pristine(path: Path, sha256: str | None = None) -> Pristine:
    """Read statistics of one's own, as the command writes them."""
    found = load_checkpoint(path, sha256)
    try:
        mean, covariance = found.tensors["mean"], found.tensors["covariance"]
        about = json.loads(found.metadata["about"])
        return Pristine(mean, covariance, int(about["patches"]), int(about["photos"]))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: not the statistics of good photos ({error})"
        raise CheckpointError(msg) from error


def write_pristine(pristine: Pristine, path: Path) -> None:
    """Write statistics; the same ones give the same bytes, so there is one entry of metadata (their order varies)."""
    about = {"method": "niqe-fit", "patches": pristine.patches, "photos": pristine.photos}
    tensors = {"mean": pristine.mean, "covariance": pristine.covariance}
    with atomic(path) as partial:
        partial.write_bytes(save(tensors, {"about": json.dumps(about)}))


def _scales(image: Image) -> Iterator[torch.Tensor]:
    """Yield luma in 0..255, as the published constants have it, then the same at half the size: (B, 1, h, w)."""
    grey = luma(checked(image, PATCH, "scene statistics")) * 255
    yield grey
    yield F.interpolate(grey, scale_factor=0.5, mode="bicubic", antialias=True)


def _contrast(grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (grey - local mean) / (local deviation + 1), and the local deviation."""
    mean = _local(grey)
    deviation = (_local(grey.square()) - mean.square()).abs().sqrt()
    return (grey - mean) / (deviation + 1), deviation


def _local(grey: torch.Tensor) -> torch.Tensor:
    bell = torch.exp(-((torch.arange(7, device=grey.device, dtype=grey.dtype) - 3) ** 2) / (2 * SIGMA**2))
    bell = (bell / bell.sum())[None, None, None]
    return F.conv2d(F.conv2d(F.pad(grey, (3, 3, 3, 3), mode="replicate"), bell), bell.mT)


def _products(contrast: torch.Tensor) -> Iterator[torch.Tensor]:
    for by in NEIGHBOURS:
        yield contrast * contrast.roll(by, (-2, -1))


def _patches(values: torch.Tensor, side: int) -> torch.Tensor:
    """(B, 1, h, w) -> (B, N, side^2)."""
    return F.pixel_unshuffle(values, side).flatten(2).mT


@cache
def _table() -> tuple[torch.Tensor, torch.Tensor]:
    """Return shapes, and the squared mean size over the mean square of a generalised Gaussian of that shape."""
    shape = torch.arange(0.2, 10.001, 0.001, dtype=torch.float64)
    return shape, (2 * torch.lgamma(2 / shape) - torch.lgamma(1 / shape) - torch.lgamma(3 / shape)).exp()


def _shape(ratio: torch.Tensor) -> torch.Tensor:
    shape, known = (each.to(ratio) for each in _table())
    place = torch.searchsorted(known, ratio.contiguous()).clamp(1, len(known) - 1)
    nearer = (ratio - known[place - 1]) < (known[place] - ratio)
    return shape[torch.where(nearer, place - 1, place)]


def _spread(shape: torch.Tensor) -> torch.Tensor:
    """Return the scale parameter of a generalised Gaussian over its deviation."""
    return ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()


def _centre(shape: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the mean of an asymmetric generalised Gaussian."""
    return (right - left) * _spread(shape) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()


def _covariance(features: torch.Tensor) -> torch.Tensor:
    """(B, N, 36) -> (B, 36, 36); zero for a single patch."""
    away = features - features.mean(1, keepdim=True)
    return away.mT @ away / max(features.shape[1] - 1, 1)


def _photos(paths: Sequence[Path]) -> Iterator[Image]:
    for path in paths:
        pixels = torch.from_numpy(read_rgb8(path).copy())
        if min(pixels.shape[:2]) >= PATCH:
            yield pixels.permute(2, 0, 1)[None].float() / 255


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the statistics of the photos in a folder and write them: ``python -m clareo.quality.nss PHOTOS -o FILE``."""
    parser = argparse.ArgumentParser(prog="python -m clareo.quality.nss", description=fit_pristine.__doc__)
    parser.add_argument("photos", type=Path, nargs="+", help="good photos, or folders of them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--limit", type=int, default=300, help="photos taken, evenly spread over their names")
    given = parser.parse_args(arguments)
    paths = [path for one in given.photos for path in (list_photos(one) if one.is_dir() else [one])]
    count = min(given.limit, len(paths))
    taken = [paths[place * len(paths) // count] for place in range(count)]
    pristine = fit_pristine(_photos(taken))
    write_pristine(pristine, given.output)
    print(f"{given.output}: {pristine.patches} patches of {pristine.photos} photos", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
