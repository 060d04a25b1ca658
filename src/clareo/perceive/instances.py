"""Instances of a photo: painted into a map that a network can learn, read back, and found under its tokens.

InstanceRSR denoises a photo and the map of its instances together. How masks become a picture is not said there;
colours drawn at random would give one photo many maps, so that the mean of them is all that can be learned. Here a
colour says where an instance lies and how large it is, and nothing else.

what                    says
hue                     angle of the instance's centroid about the middle of the photo, clockwise from the right
saturation              1
value                   rank of its area: 1 the largest, 0.4 the smallest; black is the background
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch.nn import functional as F

from clareo.errors import UsageError
from clareo.perceive.regions import Labels, as_masks, calmed, components, renumbered

DARKEST = 0.4  # value of the smallest instance: as far from black as from the largest, or so
MAJORITY = 0.5  # share of a token that its instance covers at least
LEAST, MOST = 0.5, 1.5  # targets of the instance-scale loss
NEAR = 0.17  # how far from the colour of its instance a painted pixel may be
FLAT = 0.2  # how far colours may be apart within 3 x 3 px of the inside of an instance
SPECK = 0.004  # share of the photo that an instance fills at least, where it is read back
CALM = 5  # px of the window in which the majority decides
ROUNDS = 4  # of moving a colour to the mean of the pixels near it
NOBODY = -1  # the id of the background

ScaleMode: TypeAlias = Literal["random", "fixed", "area"]


# --- masks -----------------------------------------------------------------------------------------------------------


def visible(masks: torch.Tensor) -> torch.Tensor:
    """(N, H, W) bool -> (H, W) int64: which instance is seen where; of several the smallest, -1 where there is none."""
    labels = torch.full(masks.shape[1:], NOBODY, dtype=torch.int64, device=masks.device)
    for number in _by_size(masks):
        labels[masks[number]] = number
    return labels


def _by_size(masks: torch.Tensor) -> list[int]:
    """Return the places of all masks that hold a pixel, from large to small.

    Equal sizes: from the top down, then from the left, so that the order of the masks decides nothing.
    """
    areas = masks.sum((1, 2)).tolist()
    centres = _centres(masks).tolist()
    return sorted((n for n in range(len(masks)) if areas[n]), key=lambda n: (-areas[n], *centres[n]))


def _centres(masks: torch.Tensor) -> torch.Tensor:
    """(N, H, W) -> rows and columns of the centroids, (N, 2), from the middle of the photo."""
    height, width = masks.shape[1:]
    rows, columns = (torch.arange(extent, device=masks.device) - (extent - 1) / 2 for extent in (height, width))
    areas = masks.sum((1, 2)).clamp_min(1)
    return torch.stack([(masks.sum(2) * rows).sum(1) / areas, (masks.sum(1) * columns).sum(1) / areas], 1)


def paint(masks: torch.Tensor) -> torch.Tensor:
    """(N, H, W) bool -> (3, H, W), [0, 1]: every instance in its colour, from large to small, on black.

    >>> paint(torch.tensor([[[False, False, True]]])).flatten().tolist()  # on the right: red
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    colours = torch.zeros(len(masks) + 1, 3, device=masks.device)  # the last one is the background's
    order, centres = _by_size(masks), _centres(masks).tolist()
    for rank, number in enumerate(order):
        row, column = centres[number]
        hue = math.atan2(row, column) / (2 * math.pi) % 1
        value = 1 - (1 - DARKEST) * rank / max(1, len(order) - 1)
        colours[number] = torch.tensor(_saturated(hue, value))
    return colours[visible(masks)].permute(2, 0, 1).contiguous()


def _saturated(hue: float, value: float) -> tuple[float, float, float]:
    """Return red, green and blue of a colour of saturation 1: HSV, where hue 1/3 is green and 2/3 is blue."""
    red, green, blue = (value * min(1.0, max(0.0, 2 - 6 * abs((hue - at + 0.5) % 1 - 0.5))) for at in (0, 1 / 3, 2 / 3))
    return red, green, blue


# --- tokens ----------------------------------------------------------------------------------------------------------


def token_ids(masks: torch.Tensor, side: int) -> torch.Tensor:
    """(N, H, W) bool -> (H / side, W / side) int64: the instance that most of a token's ``side`` x ``side`` px show.

    -1 where that is the background, or less than half of the token. What is left over at the right and at the bottom
    makes no token.
    """
    if side < 1 or side > min(masks.shape[1:]):
        msg = f"a token of {side} px does not fit a photo of {masks.shape[2]}x{masks.shape[1]} px"
        raise UsageError(msg)
    if not len(masks):
        return torch.full([extent // side for extent in masks.shape[1:]], NOBODY)
    shown = visible(masks)[None] == torch.arange(len(masks), device=masks.device)[:, None, None]
    cover, ids = F.avg_pool2d(shown.float(), side).max(0)
    return torch.where(cover >= MAJORITY, ids, NOBODY)


def scales(ids: torch.Tensor, mode: str, image_id: int, rng: torch.Generator) -> torch.Tensor:
    """(h, w) instance ids -> (h, w), [0.5, 1.5]: s_i of every token's instance; NaN where there is none.

    Args:
        ids: as `token_ids` makes them.
        mode: where s_i comes from. "random": drawn anew for every sample, as the paper has it; no network can predict
            that, and the best answer is 1 for all. "fixed": the same for an instance whenever it is seen. "area": the
            rank of its area, which is what "the scale of each instance" says.
        image_id: a number of the photo, for "fixed".
        rng: for "random".
    """
    count = int(ids.max()) + 1 if ids.numel() else 0
    if mode == "random":
        shares = torch.rand(count, generator=rng)
    elif mode == "fixed":
        shares = torch.tensor([_fixed_share(image_id, number) for number in range(count)])
    elif mode == "area":
        shares = _area_ranks(torch.bincount(ids[ids >= 0].flatten(), minlength=count))
    else:
        msg = f"targets of instances are {', '.join(get_args(ScaleMode))}, not {mode!r}"
        raise UsageError(msg)
    wanted = torch.cat([LEAST + (MOST - LEAST) * shares.float(), torch.tensor([torch.nan])])  # -1 is the last
    return wanted.to(ids.device)[ids]


def _fixed_share(image_id: int, number: int) -> float:
    """Return a number in [0, 1) that is the same in every process, which Python's own hash is not."""
    digest = hashlib.blake2b(f"{image_id}:{number}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def _area_ranks(areas: torch.Tensor) -> torch.Tensor:
    """Return for each area (N,) which share of the others that are there it exceeds: in (0, 1); equal areas tie."""
    others = areas[areas > 0]
    below = (others < areas[:, None]).sum(1) + 0.5 * (others == areas[:, None]).sum(1)
    return below / max(1, len(others))


# --- read back -------------------------------------------------------------------------------------------------------


def instances_of(painted: torch.Tensor) -> torch.Tensor:
    """(3, H, W), about [0, 1], as a network painted it -> masks (N, H, W) bool that do not overlap, large ones first.

    Parts of one colour that do not touch are separate. Soft edges run through darker colours that are nobody's: half of
    the brightness is taken out, and what is as dark as the background belongs to that.
    """
    picture = _median(painted.detach().float().cpu().clamp(0, 1))
    value = picture.amax(0)
    lit = value > DARKEST / 2
    even = (picture + picture / value.clamp_min(DARKEST / 2)) / 2 * lit
    pixels = even.permute(1, 2, 0).reshape(-1, 3)
    labels = _nearest(pixels, _colours(_flat_parts(even), len(pixels))).view(lit.shape)
    labels[~lit] = NOBODY
    return as_masks(_large_parts(calmed(labels, CALM).numpy()))


def _median(picture: torch.Tensor) -> torch.Tensor:
    """Return the median of every 3 x 3 px."""
    padded = F.pad(picture[None], (1, 1, 1, 1), mode="replicate")[0]
    height, width = picture.shape[1:]
    shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.stack(shifted).median(0).values


def _flat_parts(picture: torch.Tensor) -> torch.Tensor:
    """Return the pixels (M, 3), brighter than the background, around which colours hardly change: no edges."""
    highest, lowest = (sign * F.max_pool2d(sign * picture[None], 3, 1, 1)[0] for sign in (1, -1))
    return picture[:, ((highest - lowest).amax(0) < FLAT) & (picture.amax(0) > DARKEST / 2)].T


def _colours(left: torch.Tensor, of: int) -> torch.Tensor:
    """Return black, and the colours that gather pixels (M, 3) around them, of so many in all: (K, 3)."""
    found = [torch.zeros(3)]
    while len(left) >= SPECK * of:
        colour = _fullest(left)
        for _ in range(ROUNDS):
            near = (left - colour).norm(dim=1) < NEAR
            colour = left[near].mean(0)
        near = (left - colour).norm(dim=1) < NEAR
        if near.sum() >= SPECK * of:
            found.append(colour)
        left = left[~near]
    return torch.stack(found)


def _fullest(pixels: torch.Tensor) -> torch.Tensor:
    """Return the mean of the pixels in the fullest cell of a grid of 12 x 12 x 12 colours."""
    cells = (pixels * 11.999).long() @ torch.tensor([144, 12, 1])
    return pixels[cells == cells.bincount().argmax()].mean(0)


def _nearest(pixels: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Return which colour is the nearest to each pixel, less one: -1 is black."""
    return torch.cdist(pixels, colours).argmin(1) - 1


def _large_parts(labels: Labels) -> Labels:
    parts = components(labels)
    sizes = np.bincount(parts.ravel())
    parts[(labels < 0) | (sizes[parts] < SPECK * labels.size)] = -1
    closed = renumbered(parts)
    order = np.argsort(-np.bincount(closed[closed >= 0], minlength=1), kind="stable")
    place = np.append(np.argsort(order), -1)  # the last one is where -1 points to
    ordered: Labels = place[closed]
    return ordered


def mean_iou(found: torch.Tensor, true: torch.Tensor) -> float:
    """Return the mean over the true masks (N, H, W) of their overlap with the found ones (M, H, W), matched one to one.

    The best pair is matched first, then the best of the rest. A true mask that is left over counts 0, an empty one not
    at all; NaN where there is none.

    >>> halves = torch.tensor([[[True, False]], [[False, True]]])
    >>> mean_iou(halves[1:], halves)
    0.5
    """
    true = true[true.flatten(1).any(1)]
    if not len(true):
        return float("nan")
    if not len(found):
        return 0.0
    one, other = (masks.flatten(1).float() for masks in (true, found))
    shared = one @ other.T
    overlap = shared / (one.sum(1)[:, None] + other.sum(1) - shared)
    total = 0.0
    for _ in range(min(overlap.shape)):
        best = int(overlap.argmax())
        row, column = divmod(best, overlap.shape[1])
        total += float(overlap[row, column])
        overlap[row], overlap[:, column] = -1, -1
    return total / len(true)
