"""The nouns that the parts pass to one another.

Tensors are float32 unless said otherwise. ``t`` is a time in [0, 1]: 0 is clean and 1 is the far end, everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

if TYPE_CHECKING:
    import PIL.Image

Image: TypeAlias = torch.Tensor  # (B, 3, H, W), RGB, [0, 1]
Latent: TypeAlias = torch.Tensor  # (B, C, h, w), whatever the codec makes of an image
KEEP = "keep"  # the branch of every system that returns the photo as it came
LUMA = (0.299, 0.587, 0.114)  # brightness of red, green and blue, BT.601
View: TypeAlias = Callable[[Latent], Latent]  # what a branch gets to see of the current latent
Denoise: TypeAlias = Callable[[Latent, torch.Tensor], Latent]  # (x, t (B,)) -> clean estimate


SPATIAL = ("concat", "control", "pixels", "known")  # doors with a place in the photo


@dataclass(frozen=True)
class Window:
    """A rectangle of a latent, and the size of the latent that it was cut from."""

    top: int
    left: int
    height: int
    width: int
    full: tuple[int, int]  # (h, w) of the whole latent


@dataclass(frozen=True)
class Condition:
    """What one branch tells the backbone: one optional tensor per door, and its view of the current latent.

    ``view`` is not a door but a pair of glasses: a branch with a view looks at ``view(x)`` in place of ``x``
    (the `detail` expert of the nano preset looks at a shrunken photo).
    """

    concat: torch.Tensor | None = None  # (B, C, h, w), joined to the latent along channels
    control: torch.Tensor | None = None  # (B, C, h, w), the input of a control branch
    text: torch.Tensor | None = None  # (B, L, D), encoded words
    image: torch.Tensor | None = None  # (B, N, D), image embedding tokens
    pixels: torch.Tensor | None = None  # (B, 3, H, W), the photo itself
    known: torch.Tensor | None = None  # (B, C, h, w), the estimate itself: no backbone is asked
    view: View | None = None

    def doors(self) -> dict[str, torch.Tensor]:
        """Return the doors that are open, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "view"}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def crop(self, window: Window) -> Condition:
        """Cut the spatial doors down to a window; words and embeddings hold for every part of the photo."""
        spatial = {name: door for name, door in self.doors().items() if name in SPATIAL}
        return _with(self, {name: _cut(door, window) for name, door in spatial.items()})

    def expand(self, batch: int) -> Condition:
        """Repeat a condition of one photo along the batch."""
        return _with(self, {name: door.expand(batch, *door.shape[1:]) for name, door in self.doors().items()})

    def only(self, chosen: torch.Tensor) -> Condition:
        """Keep some samples of a batch, chosen by a mask (B,)."""
        return _with(self, {name: door[chosen] for name, door in self.doors().items()})

    @staticmethod
    def stack(conditions: Sequence[Condition]) -> Condition:
        """Join branches along the batch, so that one forward serves them all."""
        doors = [condition.doors() for condition in conditions]
        for names in doors:
            if names.keys() != doors[0].keys():
                msg = f"branches disagree about which doors are open: {sorted(names)} and {sorted(doors[0])}"
                raise ValueError(msg)
        joined = {name: torch.cat([each[name] for each in doors]) for name in doors[0]}
        views = [condition.view for condition in conditions]

        def view(x: Latent) -> Latent:
            parts = x.chunk(len(views))
            return torch.cat([part if look is None else look(part) for part, look in zip(parts, views, strict=True)])

        return _with(Condition(view=view if any(views) else None), joined)


def _with(condition: Condition, doors: Mapping[str, Any]) -> Condition:
    return replace(condition, **doors)


def _cut(tensor: torch.Tensor, window: Window) -> torch.Tensor:
    """Crop a door whose grid is an integer multiple of the latent's."""
    ratio = tensor.shape[-2] // window.full[0]
    top, left = window.top * ratio, window.left * ratio
    return tensor[..., top : top + window.height * ratio, left : left + window.width * ratio]


@dataclass(frozen=True)
class Percept:
    """What a system understood of the photo before it touched it: printable, editable, passed back by the user."""

    tags: tuple[str, ...] = ()
    caption: str = ""
    prompt: str = ""  # the degradations in words

    def to_json(self) -> dict[str, object]:
        """Return plain values for a sidecar or ``--json``."""
        return {"tags": list(self.tags), "caption": self.caption, "prompt": self.prompt}


@dataclass(frozen=True)
class Plan:
    """Everything that decides the outcome, given a photo and a checkpoint."""

    weights: Mapping[str, float]
    steps: int
    seed: int
    upscale: int
    tile: int = 512  # photo pixels along a tile; larger photos go through in parts
    precision: str = "fp32"  # of convolutions and matrix products: fp32 or bf16
    streamed: bool = field(default=False, repr=False)  # every tile is walked on its own, to save memory
    why: str = ""  # how the weights came about, in words; decides nothing

    def to_json(self) -> dict[str, object]:
        """Return plain values for a sidecar or ``--json``."""
        return {**asdict(self), "weights": dict(self.weights)}


@dataclass(frozen=True)
class Assessment:
    """How good a photo is and what is wrong with it."""

    score: float  # 1 (bad) to 5 (excellent)
    degradations: Mapping[str, float] = field(default_factory=dict)  # name -> degree in [0, 1]
    text: str = ""
    doubt: float = 0.0  # the error of the score that the judge expects

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a sidecar or ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """Which of two photos is better."""

    winner: str  # "A", "B" or "tie"
    margin: float  # points by which A is ahead
    confidence: float  # probability that the margin has the right sign, 0.5 to 1
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class Restoration:
    """A restored photo and the account of how it came about.

    ``before``, ``after`` and ``trust`` are None where nobody judged, or the photo is too small: never a guess.
    """

    drawn: Callable[[], PIL.Image.Image] = field(repr=False)  # makes `image`
    tensor: Image  # (1, 3, H, W), the same pixels before rounding
    plan: Plan
    percept: Percept
    seconds: float
    system: str
    preset: str
    before: Assessment | None = None
    after: Assessment | None = None
    trust: float | None = None  # 0 all made up, 1 all kept
    kept: torch.Tensor | None = None  # the same per pixel, (1, 1, H, W), where it was asked for
    byproducts: Mapping[str, Image] = field(default_factory=dict)  # what the system sees beside the photo, by name
    warnings: tuple[str, ...] = ()  # what looks wrong with the result, in words

    @functools.cached_property
    def image(self) -> PIL.Image.Image:
        """Return the photo in 8 bits, with its alpha and greyness, made when first asked for.

        `io.write_photo` keeps 16 bits.
        """
        return self.drawn()

    def let_go(self, drawn: Callable[[], PIL.Image.Image]) -> Restoration:
        """Keep the account alone. `tensor` has its size still, but only NaN; ``drawn`` opens what was written."""
        nothing = self.tensor.new_full((), float("nan")).expand(self.tensor.shape)
        return replace(self, drawn=drawn, tensor=nothing, kept=None, byproducts={})
