"""What studies ask InstanceRSR: does it draw the instances of scenes, and what do its tokens know of them.

Scenes are drawn, damaged and shown enlarged, always the same ones. Probes are fitted to the tokens of some and judged
on each of the others (`quality.awareness`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clareo.backbones.dit import Grid
from clareo.backbones.dit_control import ControlledDiT
from clareo.backbones.dit_pixels import PixelDiT
from clareo.backbones.features import recorded
from clareo.degrade.recipes import degrade_tensor
from clareo.errors import UsageError
from clareo.latents import JointLatent, enlarge
from clareo.perceive.instances import instances_of, mean_iou, token_ids
from clareo.perceive.scenes import Scene, compose
from clareo.perceive.shapes import KINDS
from clareo.quality.awareness import Labelled, affinity, fit_probe, label_miou, neighbours, norm_variance
from clareo.quality.reference import psnr
from clareo.system import Exam, System
from clareo.types import Image, Percept

LEARNED, HELD = 60, 40  # scenes
SIDE = 128  # px
SEED = 77_000  # training counts its seeds from another end
DAMAGE = "realesrgan"
BACKGROUND = len(KINDS)  # a kind as well: whoever cannot tell things from it knows nothing of them
DRAWN, PICTURE, LIKE, NORMS = "map IoU", "scene PSNR", "affinity", "norms between"
KIND, BORDER = "kind mIoU {}", "border mIoU {}"  # at a layer


@dataclass(frozen=True)
class Sitting:
    """A scene as a system saw it."""

    scene: Scene
    picture: Image
    drawn: Image | None  # the map, where one is drawn
    tokens: Sequence[torch.Tensor]  # of every layer: (1, N, D)
    ids: torch.Tensor  # (1, N)
    kinds: torch.Tensor  # (1, N)


def take(system: System) -> Iterator[dict[str, float]]:
    """Yield what is measured of each scene that is held back."""
    sittings = [_sit(system, number) for number in range(LEARNED + HELD)]
    learned, held = sittings[:LEARNED], sittings[LEARNED:]
    grid = (SIDE // system.multiple, SIDE // system.multiple)
    layers = range(len(held[0].tokens))
    kinds = [fit_probe(*_kinds(learned, layer)) for layer in layers]
    borders = [fit_probe(*_borders(learned, layer, grid)) for layer in layers]
    for sitting in held:
        values = _seen(sitting)
        for layer in layers:
            tokens, true = _kinds([sitting], layer)
            values[KIND.format(layer + 1)] = label_miou(kinds[layer](tokens), true)
            pairs, different = _borders([sitting], layer, grid)
            values[BORDER.format(layer + 1)] = label_miou(borders[layer](pairs), different)
        yield values


@torch.no_grad()
def _sit(system: System, number: int) -> Sitting:
    """Restore a scene in one step, and hear what every layer says on the way."""
    scene = compose(np.random.default_rng(SEED + number), SIDE, SIDE)
    given = enlarge(degrade_tensor(scene.photo, DAMAGE, SEED + number).tensor, (SIDE, SIDE))[None]
    condition = system.condition(given, Percept())[system.experts[0]]
    network = _controlled(system)
    own = system.codec.encode(given)
    start = system.denoiser.process.start(own, torch.randn(own.shape, generator=torch.Generator().manual_seed(number)))
    with recorded(network, [network.layer(each + 1) for each in range(len(network.dit.blocks))]) as heard:
        latent = system.denoiser(start, torch.ones(1), condition)
    ids = token_ids(scene.masks, system.multiple).flatten()
    kinds = torch.tensor([*scene.kinds, BACKGROUND])[ids]  # -1 is the last
    drawn = system.codec.decode_map(latent) if isinstance(system.codec, JointLatent) else None
    return Sitting(scene, system.codec.decode(latent), drawn, [each.float() for each in heard], ids[None], kinds[None])


def _controlled(system: System) -> ControlledDiT:
    backbone = system.denoiser.backbone
    network = backbone.controlled if isinstance(backbone, PixelDiT) else backbone
    if not isinstance(network, ControlledDiT):
        msg = f"{system.name} has no tokens that could be asked"
        raise UsageError(msg)
    return network


def _seen(sitting: Sitting) -> dict[str, float]:
    """Return what is measured without a probe: of the picture, of the map, and of tokens where they are aligned."""
    tokens, ids = sitting.tokens[aligned_layer(len(sitting.tokens)) - 1], sitting.ids
    within, between = norm_variance(tokens, ids)
    values = {
        PICTURE: float(psnr(sitting.picture.clamp(0, 1), sitting.scene.photo[None])),
        LIKE: affinity(tokens, ids),
        NORMS: between / (within + between),
    }
    if sitting.drawn is not None:
        values[DRAWN] = mean_iou(instances_of(sitting.drawn[0]), sitting.scene.masks)
    return values


def aligned_layer(depth: int) -> int:
    """Return the layer of so many that stands where the paper's tenth of 28 does."""
    return max(1, round(10 / 28 * depth))


def _kinds(sittings: Sequence[Sitting], layer: int) -> Labelled:
    """Return the tokens of a layer (M, D), and what kind of thing each shows."""
    found = [(each.tokens[layer][0], each.kinds[0]) for each in sittings]
    tokens, kinds = zip(*found, strict=True)
    return torch.cat(tokens), torch.cat(kinds)


def _borders(sittings: Sequence[Sitting], layer: int, grid: Grid) -> Labelled:
    """Return how far neighbouring tokens of a layer are apart (M, D), and whether they show two instances."""
    tokens, ids = torch.cat([each.tokens[layer] for each in sittings]), torch.cat([each.ids for each in sittings])
    return neighbours(tokens, ids, grid)


HEARD = range(1, 9)  # layers of the nano preset; a deeper network has more that are asked
SCALES = {
    DRAWN: True,
    PICTURE: True,
    LIKE: True,
    NORMS: True,
    **{name.format(layer): True for name in (KIND, BORDER) for layer in HEARD},
}
EXAM = Exam(SCALES, take)
