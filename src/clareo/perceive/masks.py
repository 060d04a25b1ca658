"""Masks of a photo, by name: from a formula, from SAM, or from the annotations of SA-1B.

InstanceRSR runs Segment Anything (arXiv 2304.02643) over its training photos, or takes the masks that come with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import torch

from clareo.checkpoints import find
from clareo.degrade.ops import to_pil
from clareo.devices import choose_device
from clareo.errors import CheckpointError, MissingExtraError, PhotoError, UsageError
from clareo.io import list_photos, photo_size, read_rgb8
from clareo.perceive.answers import image_hash
from clareo.perceive.published import load_network, transformers
from clareo.perceive.rle import read_rle
from clareo.perceive.segments import find_segments
from clareo.perceive.sources import Source, named

Segmenter: TypeAlias = Callable[[torch.Tensor], torch.Tensor]  # (3, H, W), [0, 1] -> masks (N, H, W) bool


def find_masks(name: str) -> Segmenter:
    """Find who masks a photo, as `SEGMENTERS` lists them."""
    return named(name, "segmenter", SEGMENTERS)


# --- Segment Anything ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamSettings:
    """How SAM is asked for everything in a photo; its own defaults."""

    points: int = 32  # along a side of the photo; each is asked for three masks
    at_once: int = 64  # points
    quality: float = 0.88  # overlap with the truth that SAM expects of a mask, at least
    stability: float = 0.95  # overlap of a mask with itself, cut a little higher and a little lower
    same: float = 0.7  # overlap of boxes from which on two masks are one


@dataclass(frozen=True)
class SamSegmenter:
    """SAM, asked at a grid of points over the whole photo, without crops."""

    generate: Callable[..., Any]  # transformers' mask generation
    settings: SamSettings = field(default_factory=SamSettings)

    def __call__(self, photo: torch.Tensor) -> torch.Tensor:
        """(3, H, W), [0, 1] -> masks (N, H, W) bool; they may overlap."""
        asked = self.settings
        found = self.generate(
            to_pil(photo.cpu()),
            points_per_crop=asked.points,
            points_per_batch=asked.at_once,
            pred_iou_thresh=asked.quality,
            stability_score_thresh=asked.stability,
            crops_nms_thresh=asked.same,
            crops_n_layers=0,
        )["masks"]
        masks = [torch.as_tensor(mask, dtype=torch.bool).cpu() for mask in found]
        return torch.stack(masks) if masks else torch.zeros(0, *photo.shape[1:], dtype=torch.bool)


def load_sam(name: str, settings: SamSettings | None = None) -> SamSegmenter:
    """Load SAM from a folder in transformers' layout, or from the hub."""
    library, folder = transformers(), find(name)
    network = load_network(library.SamModel, folder).to(choose_device())
    try:
        processor = library.SamImageProcessor.from_pretrained(folder, local_files_only=True)
        generate = library.pipeline("mask-generation", model=network, image_processor=processor)
    except ImportError as error:
        package = "torchvision"
        raise MissingExtraError.of(package, "paper") from error
    except (OSError, ValueError) as error:
        msg = f"{folder}: has no processor that can be loaded ({error})"
        raise CheckpointError(msg) from error
    return SamSegmenter(generate, settings or SamSettings())


# --- annotations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileMasks:
    """Annotations of SA-1B: NAME.json beside each photo of a folder.

    A photo is known by its pixels, and has to be whole, at its own size and without loss. A crop is not found: whoever
    cuts one has the path at hand, and gives it and the box to `rle.read_rle`.
    """

    folder: Path
    _paths: tuple[Path, ...] = field(init=False, repr=False, compare=False)
    _known: dict[tuple[int, int], dict[str, Path]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        paths = tuple(path for path in list_photos(self.folder) if path.with_suffix(".json").is_file())
        if not paths:
            msg = f"{self.folder}: has no photo with a NAME.json beside it"
            raise UsageError(msg)
        object.__setattr__(self, "_paths", paths)

    def __call__(self, photo: torch.Tensor) -> torch.Tensor:
        """(3, H, W) -> masks (N, H, W) bool."""
        height, width = photo.shape[1:]
        path = self._of_size((height, width)).get(image_hash(photo[None]))
        if path is None:
            msg = f"{self.folder}: has no masks of this photo of {width}x{height} px; crops of photos are not known"
            raise UsageError(msg)
        masks = read_rle(path.with_suffix(".json"))
        if len(masks) and tuple(masks.shape[1:]) != (height, width):
            msg = f"{path.with_suffix('.json')}: its masks are not as large as the photo"
            raise PhotoError(msg)
        return masks

    def _of_size(self, size: tuple[int, int]) -> dict[str, Path]:
        """Return the photos of one size by their hash; only these are read, and once."""
        if size not in self._known:
            alike = [path for path in self._paths if photo_size(path) == size]
            self._known[size] = {image_hash(_as_tensor(path)): path for path in alike}
        return self._known[size]


def _as_tensor(path: Path) -> torch.Tensor:
    return torch.from_numpy(read_rgb8(path).copy()).permute(2, 0, 1)[None].float() / 255


@cache
def _sam(place: str) -> Segmenter:
    return load_sam(place)


SEGMENTERS: Mapping[str, Source[Segmenter]] = {
    "segments": Source(lambda _: find_segments, ("",)),
    "sam": Source(_sam),
    "rle": Source(lambda place: FileMasks(Path(place).expanduser())),
}
