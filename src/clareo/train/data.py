"""A folder of clean photos as an endless, replayable stream of degraded pairs.

Item i of the stream is a pure function of (seed, i): the same whatever the number of workers, and after a restart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from clareo.errors import PhotoError
from clareo.io import list_photos, read_rgb8, read_shard
from clareo.latents import enlarge
from clareo.system import Batch, Example, PairExample
from clareo.train.drawings import draw
from clareo.train.learners import learner
from clareo.train.pairs import Pair, find_pairs
from clareo.train.recipe import Recipe, Stage

Pixels = NDArray[np.uint8]


def load_photos(folder: Path, at_least: int) -> list[Pixels]:
    """Read every photo of a folder, or of tar shards in it, whose sides reach ``at_least``, as uint8 (H, W, 3).

    In the order of their names.
    """
    found = [photo for path in list_photos(folder, also=frozenset({".tar"})) for photo in _photos_in(path)]
    photos = [photo for photo in found if min(photo.shape[:2]) >= at_least]
    if not photos:
        msg = f"no photo of at least {at_least} px a side in {folder} ({len(found)} photos looked at)"
        raise PhotoError(msg)
    return photos


def _photos_in(path: Path) -> list[Pixels]:
    return [photo for _, photo in read_shard(path)] if path.suffix.lower() == ".tar" else [read_rgb8(path)]


def split(photos: list[Pixels], held_out: int) -> tuple[list[Pixels], list[Pixels]]:
    """Set every n-th photo aside for validation; a folder of few photos validates on its first."""
    aside = photos[::held_out]
    rest = [photo for place, photo in enumerate(photos) if place % held_out]
    return (rest or photos), aside


@dataclass(frozen=True)
class RealPairs:
    """Pairs of photographs on disk, and how a system makes examples of them."""

    pairs: Sequence[Pair]
    example: PairExample
    share: float

    def draw(self, rng: np.random.Generator, crop: int) -> Example:
        """Cut the same place out of both photos, mirrored and turned alike; the degraded one is enlarged to size."""
        pair = self.pairs[int(rng.integers(len(self.pairs)))]
        small, side = read_rgb8(pair.degraded), -(-crop // pair.scale)
        if min(small.shape[:2]) < side:
            msg = f"{pair.degraded}: smaller than the crops of {side} px"
            raise PhotoError(msg)
        top, left = (int(rng.integers(extent - side + 1)) for extent in small.shape[:2])
        turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
        degraded, reference = (
            _turned(photo[top * by : (top + side) * by, left * by : (left + side) * by], turns, mirrored=mirrored)
            for photo, by in ((small, 1), (read_rgb8(pair.reference), pair.scale))
        )
        large = enlarge(degraded, (side * pair.scale, side * pair.scale))
        return self.example(reference[:, :crop, :crop].clone(), large[:, :crop, :crop].clone(), rng)


def _turned(patch: Pixels, turns: int, *, mirrored: bool) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, H, W), turned by quarters and maybe mirrored."""
    patch = np.rot90(patch, turns)
    patch = patch[:, ::-1] if mirrored else patch
    return torch.from_numpy(patch.copy()).permute(2, 0, 1).float() / 255


def centre(photo: Pixels, crop: int) -> torch.Tensor:
    """Cut (3, crop, crop) out of the middle of a photo."""
    top, left = ((extent - crop) // 2 for extent in photo.shape[:2])
    return _turned(photo[top : top + crop, left : left + crop], 0, mirrored=False)


@dataclass(frozen=True)
class Stream(Dataset[Example]):
    """Examples by index."""

    photos: list[Pixels]
    example: Callable[[torch.Tensor, np.random.Generator], Example]
    crop: int
    margin: int
    shrink_share: float
    seed: int
    real: tuple[RealPairs, ...] = ()
    drawn_share: float = 0.0

    def __getitem__(self, index: int) -> Example:
        """Return example ``index``."""
        rng = np.random.default_rng((self.seed, index))
        if self.real:
            chance = rng.random()
            for source in self.real:
                if chance < source.share:
                    return source.draw(rng, self.crop)
                chance -= source.share
        clean = self._crop(rng)
        made = self.example(clean, rng)
        top, left = rng.integers(self.margin // 2, self.margin + self.margin // 2 + 1, 2)
        window = np.s_[:, top : top + self.crop, left : left + self.crop]
        return Example(made.reference[window].clone(), made.degraded[window].clone(), made.prompt, made.truth)

    def _crop(self, rng: np.random.Generator) -> torch.Tensor:
        """Cut (3, s, s) with a margin out of a photo, mirrored and turned, now and then shrunk."""
        photo = self.photos[int(rng.integers(len(self.photos)))]
        side = self.crop + 2 * self.margin
        shrink = float(rng.uniform(1, 2)) if rng.random() < self.shrink_share else 1.0
        taken = min(round(side * shrink), *photo.shape[:2])
        top, left = (int(rng.integers(extent - taken + 1)) for extent in photo.shape[:2])
        turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
        patch = photo[top : top + taken, left : left + taken]
        if self.drawn_share and rng.random() < self.drawn_share:
            patch = draw(patch, rng)
        clean = _turned(patch, turns, mirrored=mirrored)
        if taken == side:
            return clean
        return F.interpolate(clean[None], (side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)


def batches(photos: list[Pixels], recipe: Recipe, start: int, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """Yield the batches of the run from step ``start`` on, stage after stage; ``share`` is (which, of how many)."""
    module = learner(recipe.system)
    begin = 0
    folders = [(source, find_pairs(Path(source.folder))) for source in recipe.pairs]
    for number, stage in enumerate(recipe.stages):
        end = begin + stage.steps
        if start < end:
            lessons = module.lessons({**recipe.options, **stage.options})
            real = tuple(RealPairs(pairs, lessons.paired(source.task), source.share) for source, pairs in folders)
            stream = Stream(
                photos,
                lessons.example,
                stage.crop,
                recipe.margin,
                recipe.shrink_share,
                recipe.seed * 1000 + number,
                real,
                recipe.drawn_share,
            )
            yield from _stage(stream, recipe, stage, max(start, begin) - begin, share)
        begin = end


def _stage(stream: Stream, recipe: Recipe, stage: Stage, done: int, share: tuple[int, int]) -> Iterator[Batch]:
    rank, size = share
    firsts = ((step * size + rank) * stage.batch for step in range(done, stage.steps))
    yield from DataLoader(
        stream,
        sampler=[first + k for first in firsts for k in range(stage.batch)],
        batch_size=stage.batch,
        num_workers=recipe.workers,
        collate_fn=partial(collate, stage=stage),
        prefetch_factor=8 if recipe.workers else None,
        multiprocessing_context="fork" if recipe.workers and sys.platform == "linux" else None,  # photos are not copied
        generator=torch.Generator().manual_seed(stream.seed),
    )


def collate(examples: list[Example], stage: Stage) -> Batch:
    """Put examples side by side."""
    reference = torch.stack([e.reference for e in examples])
    degraded = torch.stack([e.degraded for e in examples])
    truth = {name: torch.stack([e.truth[name] for e in examples]) for name in examples[0].truth}
    prompts = [e.prompt for e in examples]
    return Batch(reference, degraded, prompts, stage.far_share, stage.own_share, stage.part, truth)


def placed(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to where the network is, laid out as convolutions like it."""
    images = (batch.reference, batch.degraded)
    reference, degraded = (image.to(device).contiguous(memory_format=torch.channels_last) for image in images)
    truth = {name: value.to(device) for name, value in batch.truth.items()}
    return replace(batch, reference=reference, degraded=degraded, truth=truth)
