"""Label maps: which region every pixel belongs to, in the order of numbers; connected parts, masks, specks."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Labels: TypeAlias = NDArray[np.int64]  # (H, W)


def components(labels: Labels) -> Labels:
    """Number the connected parts (4 neighbours) of equal labels, 0 upwards in the order of their first pixel.

    Every part is named by its first pixel: neighbours hand the smaller name on, and names are followed to their ends,
    which takes a few rounds over whole arrays whatever the shapes.

    >>> components(np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0]]))
    array([[0, 0, 1],
           [2, 0, 1],
           [3, 1, 1]])
    """
    place = np.arange(labels.size).reshape(labels.shape)
    across, down = labels[:, 1:] == labels[:, :-1], labels[1:] == labels[:-1]
    one = np.concatenate([place[:, :-1][across], place[:-1][down]])
    other = np.concatenate([place[:, 1:][across], place[1:][down]])
    name = place.ravel().copy()
    while len(one):
        a, b = name[one], name[other]
        apart = a != b
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        name[np.maximum(a, b)] = np.minimum(a, b)  # of several, any: the others are still apart in the next round
        while (further := name[name]).tobytes() != name.tobytes():
            name = further
    return np.unique(name, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def as_masks(labels: Labels) -> torch.Tensor:
    """Return a mask for every label from 0 on, (N, H, W) bool; labels below 0 are nobody's."""
    count = int(labels.max(initial=-1)) + 1
    return torch.from_numpy(labels)[None] == torch.arange(count)[:, None, None]


def calmed(labels: torch.Tensor, side: int) -> torch.Tensor:
    """Let the majority of ``side`` x ``side`` px around each pixel decide, (H, W); of equals the smallest label.

    Votes are differences of running sums, whose price does not grow with the window.
    """
    most, winners = torch.zeros(labels.shape), torch.zeros_like(labels)
    for label in torch.unique(labels).tolist():
        padded = F.pad((labels == label).float(), (side // 2 + 1, side // 2) * 2)
        sums = padded.cumsum(0).cumsum(1)
        rows = sums[side:] - sums[:-side]
        votes = rows[:, side:] - rows[:, :-side]
        winners = torch.where(votes > most, label, winners)
        most = torch.maximum(votes, most)
    return winners


def renumbered(labels: Labels) -> Labels:
    """Close the gaps between the labels from 0 on."""
    kept = np.unique(labels[labels >= 0])
    table = np.full(int(labels.max(initial=-1)) + 2, -1)  # the last place is where -1 points to
    table[kept] = np.arange(len(kept))
    renamed: Labels = table[labels]
    return renamed
