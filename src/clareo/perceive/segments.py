"""Segments of a photo without a network: small patches, merged with their neighbours while these are alike.

Patches are SLIC's superpixels (Achanta et al., 2012). They merge as in Ward's method, mutual nearest neighbours first:
what it costs grows with how far apart their colours and textures are, with the edge between them, and with their size.
Large photos are looked at in small; only the outlines of the patches are drawn at full size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from clareo.backbones.layers import pad_to
from clareo.colour import rgb_to_yiq
from clareo.perceive.regions import Labels, as_masks, calmed, renumbered

MOST = 12  # segments
SMALLEST = 0.01  # share of the photo
ALIKE = 0.04  # what a merge may cost where there are few enough segments
LARGE = 160  # px of the longer side; what is larger is looked at in small
PATCH = 8  # px along a superpixel of a small photo
ROUNDS = 4  # of k-means
SPREAD = 0.1  # of colour that counts as much as the width of a patch
CHROMA = 1.5  # weight of colour, next to brightness
TEXTURE = 1.5  # weight of how far brightness deviates around a pixel
EDGE = 1.0  # weight of the edge between two regions, next to how far they are apart

Real: TypeAlias = NDArray[np.float64]
Planes: TypeAlias = NDArray[np.float32]  # (C, H, W)


def find_segments(photo: torch.Tensor) -> torch.Tensor:
    """(3, H, W), [0, 1] -> masks (N, H, W) bool of up to 12 segments of at least about 1 %; every pixel is in one.

    >>> halves = torch.cat([torch.zeros(3, 64, 32), torch.ones(3, 64, 32)], 2)
    >>> find_segments(halves).sum((1, 2)).tolist()
    [2048, 2048]
    """
    height, width = photo.shape[1:]
    shrink = -(-max(height, width) // LARGE)
    small = _features(photo, shrink)
    patches, centres = _superpixels(small)
    owners = _merged(Regions.of(patches.numpy(), small.numpy()))
    if shrink > 1:
        patches = _assigned(_features(photo, 1, PATCH * shrink), centres)
    labels = torch.from_numpy(owners)[patches[:height, :width]]
    return as_masks(renumbered(_without_slivers(calmed(labels, 2 * shrink + 3)).numpy()))


def _without_slivers(labels: torch.Tensor) -> torch.Tensor:
    """Give what the votes left of a small segment to the neighbour that surrounds most of it."""
    found, counts = torch.unique(labels, return_counts=True)
    for label in found[counts < SMALLEST * labels.numel() / 2].tolist():
        mask = labels == label
        ring = (F.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0) & ~mask
        labels = torch.where(mask, labels[ring].mode().values, labels) if ring.any() else labels
    return labels


# --- superpixels -----------------------------------------------------------------------------------------------------


def _features(photo: torch.Tensor, shrink: int, multiple: int = PATCH) -> torch.Tensor:
    """Return brightness, colour and texture of a photo in small, (4, H', W'), padded to multiples of a patch."""
    small = F.avg_pool2d(pad_to(photo[None].float().cpu(), shrink), shrink)
    yiq = rgb_to_yiq(small) * torch.tensor([1, CHROMA, CHROMA])[:, None, None]
    y = yiq[:, :1]
    deviation = (_mean(y.square(), 7) - _mean(y, 7).square()).clamp_min(0).sqrt()
    texture = -F.max_pool2d(-deviation, 7, 1, 3)  # the least of all windows around: an edge is no texture
    return pad_to(torch.cat([_mean(yiq, 3), TEXTURE * texture], 1), multiple)[0]


def _mean(x: torch.Tensor, side: int) -> torch.Tensor:
    """Return the mean around every pixel, (..., H, W)."""
    for window in ((side, 1), (1, side)):
        x = F.avg_pool2d(x, window, 1, (window[0] // 2, window[1] // 2), count_include_pad=False)
    return x


def _superpixels(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, H, W) -> the superpixel of every pixel, (H, W), and the features and places of all, (C + 2, h, w)."""
    centres = F.avg_pool2d(_with_place(features, PATCH)[None], PATCH)[0]
    shape, points = centres.shape, _with_place(features, PATCH).flatten(1)
    for _ in range(ROUNDS):
        labels = _assigned(features, centres).flatten()
        counts = labels.bincount(minlength=shape[1] * shape[2])
        sums = torch.zeros(shape[0], len(counts)).index_add_(1, labels, points)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres.flatten(1)).view(shape)
    labels = _assigned(features, centres)
    centres.flatten(1)[:, labels.flatten().bincount(minlength=shape[1] * shape[2]) == 0] = torch.inf  # nobody's
    return labels, centres


def _with_place(features: torch.Tensor, patch: int) -> torch.Tensor:
    """Append row and column, in patches: (C + 2, H, W)."""
    rows, columns = ((torch.arange(extent) + 0.5) / patch for extent in features.shape[1:])
    return torch.cat([features, torch.stack(torch.meshgrid(rows, columns, indexing="ij"))])


def _assigned(features: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return the nearest of the nine centres around every pixel, (H, W)."""
    rows, columns = centres.shape[1:]
    patch = features.shape[1] // rows
    weights = torch.tensor([1 / SPREAD] * len(features) + [1.0, 1.0])[:, None, None]
    points = (_with_place(features, patch) * weights).view(-1, rows, patch, columns, patch)
    around = F.pad(centres * weights, (1, 1, 1, 1), value=torch.inf)[:, :, None, :, None]
    numbers = F.pad(torch.arange(rows * columns).view(rows, columns), (1, 1, 1, 1))[:, None, :, None]
    nearest, labels = torch.full(points.shape[1:], torch.inf), torch.zeros(points.shape[1:], dtype=torch.int64)
    for y, x in product(range(3), range(3)):
        window = np.s_[y : y + rows, :, x : x + columns]
        distance = (points - around[:, window[0], :, window[2]]).square_().sum(0)
        labels = torch.where(distance < nearest, numbers[window], labels)
        nearest = torch.minimum(distance, nearest)
    return labels.view(features.shape[1:])


# --- merging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Regions:
    """Regions that tile a photo, as far as merging asks."""

    owners: Labels  # (patches,): the region of each
    sizes: Real  # (N,), px
    sums: Real  # (N, C), of features
    borders: Real  # (N, N), px along which two touch
    edges: Real  # (N, N), how far the features on both sides of them are apart, summed up

    @staticmethod
    def of(patches: Labels, features: Planes) -> Regions:
        """Measure the patches of a photo."""
        used, numbers = np.unique(patches, return_inverse=True)
        numbers, count = numbers.reshape(patches.shape), len(used)
        owners = np.zeros(int(patches.max()) + 1, dtype=np.int64)
        owners[used] = np.arange(count)
        flat = numbers.ravel()
        sums: Real = np.stack([np.bincount(flat, plane.ravel(), count) for plane in features], 1).astype(np.float64)
        borders, edges = np.zeros((2, count, count))
        for one, other, steps in _pairs(numbers, features):
            places = one * count + other
            borders += np.bincount(places, minlength=count**2).reshape(count, count)
            edges += np.bincount(places, steps, count**2).reshape(count, count)
        sizes = np.bincount(flat, minlength=count).astype(np.float64)
        return Regions(owners, sizes, sums, borders + borders.T, edges + edges.T)

    def costs(self) -> Real:
        """Return what each merge costs, (N, N); infinite where regions do not touch."""
        means = self.sums / self.sizes[:, None]
        squares = np.square(means).sum(1)
        apart = np.sqrt(np.maximum(0, squares[:, None] + squares - 2 * means @ means.T))
        edge = self.edges / np.maximum(1, self.borders)
        smaller = 1 / (1 / self.sizes[:, None] + 1 / self.sizes) / self.sizes.sum()
        costs: Real = np.sqrt(smaller) * (apart + EDGE * edge)
        costs[(self.borders == 0) | np.eye(len(costs), dtype=bool)] = np.inf
        return costs

    def merged(self, pairs: list[tuple[int, int]]) -> Regions:
        """Merge pairs of regions, none of which is in two pairs."""
        table = np.arange(len(self.sizes))
        for one, other in pairs:
            table[other] = one
        table = np.unique(table, return_inverse=True)[1]
        belongs = (table == np.arange(table.max() + 1)[:, None]).astype(float)
        return Regions(
            table[self.owners],
            belongs @ self.sizes,
            belongs @ self.sums,
            belongs @ self.borders @ belongs.T,
            belongs @ self.edges @ belongs.T,
        )


def _pairs(numbers: Labels, features: Planes) -> list[tuple[Labels, Labels, Real]]:
    """Return the regions on both sides of every border between pixels, and how far features are apart across it.

    Two pixels are skipped: edges of photos are not as sharp as that.
    """
    found = []
    for turned, planes in ((numbers, features), (numbers.T, features.transpose(0, 2, 1))):
        wide = np.pad(planes, ((0, 0), (0, 0), (1, 1)), mode="edge")
        steps = np.sqrt(np.square(wide[:, :, 3:] - wide[:, :, :-3]).sum(0))
        border = turned[:, 1:] != turned[:, :-1]
        found.append((turned[:, :-1][border], turned[:, 1:][border], steps[border]))
    return found


def _merged(regions: Regions) -> Labels:
    """Merge while it is cheap, there are too many regions, or one of them is too small; return each patch's region."""
    while pairs := _next_pairs(regions):
        regions = regions.merged(pairs)
    return regions.owners


def _next_pairs(regions: Regions) -> list[tuple[int, int]]:
    costs = regions.costs()
    nearest, cheapest = costs.argmin(1), costs.min(1)
    numbers = np.arange(len(costs))
    mutual = (nearest[nearest] == numbers) & (numbers < nearest) & (cheapest < ALIKE)
    if mutual.any():
        return [(int(k), int(nearest[k])) for k in np.flatnonzero(mutual)]
    if len(costs) > MOST:
        one = int(cheapest.argmin())
    else:
        one = int(regions.sizes.argmin())
        if regions.sizes[one] >= SMALLEST * regions.sizes.sum() or len(costs) == 1:
            return []
    return [(one, int(nearest[one]))]
