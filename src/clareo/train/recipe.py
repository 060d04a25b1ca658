"""Training recipes: a TOML file, checked key by key, that with a seed decides every bit of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from clareo.errors import RecipeError
from clareo.toml import checked, parse_value, read_recipe_toml


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one crop size."""

    steps: int
    crop: int  # pixels
    batch: int
    far_share: float = 0.5  # of the batch trained at t = 1
    own_share: float = 0.0  # of the others, whose x_t holds the network's own estimate in place of the clean photo
    part: str = ""  # of the system that learns alone; its file says which there are
    options: Mapping[str, Any] = field(default_factory=dict)  # of the system, in place of the recipe's; data only
    warmup: int = 0  # steps at its start over which the rate rises again
    ema: float = 0.0  # decay of the average in place of the optimiser's; 0: that

    def __post_init__(self) -> None:
        shares = (self.far_share, self.own_share, self.ema)
        if min(self.steps, self.crop, self.batch) < 1 or self.warmup < 0 or not all(0 <= part <= 1 for part in shares):
            msg = f"impossible stage: {self}"
            raise RecipeError(msg)


@dataclass(frozen=True)
class PairedFolder:
    """Real pairs beside the synthetic ones."""

    folder: str  # in one of the layouts that `train.pairs` knows
    task: str  # what a photo of it teaches; the system's file says which tasks there are
    share: float  # of all samples

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            msg = f"the share of {self.folder} is a number above 0 and up to 1, not {self.share}"
            raise RecipeError(msg)


@dataclass(frozen=True)
class Optimiser:
    """AdamW with warm-up and cosine decay."""

    rate: float = 1e-3
    final_rate: float = 1e-6
    warmup: int = 500  # steps
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0  # of the gradient's norm
    ema: float = 0.999
    cosine: bool = True  # otherwise constant after warm-up
    epsilon: float = 1e-8  # under the root of the second moment


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    system: str
    stages: tuple[Stage, ...]
    optimiser: Optimiser = field(default_factory=Optimiser)
    options: Mapping[str, Any] = field(default_factory=dict)  # of the system: network shape, task mix, losses
    seed: int = 0
    margin: int = 16  # pixels around a crop that are degraded with it and then cut away
    shrink_share: float = 0.3  # of the crops taken from a photo shrunk by up to 2: its own compression shrinks away
    drawn_share: float = 0.0  # of the crops on which, or in whose place, text and shapes are drawn
    held_out: int = 40  # every n-th photo validates instead of training
    workers: int = 1
    log_every: int = 50  # steps
    checkpoint_every: int = 250  # steps
    validate_every: int = 1000  # steps
    unseen: int = 0  # samples of photos set aside on which the loss is validated as well
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    pairs: tuple[PairedFolder, ...] = ()
    start_from: str = ""  # a safetensors file whose weights are taken over
    sharded: bool = False  # every process keeps a part of the network only (FSDP)

    @property
    def steps(self) -> int:
        """Return the length of the run."""
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[Stage, int]:
        """Return the stage that a step belongs to, and how far it lies behind the start of that."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        return self.stages[-1], self.stages[-1].steps + step

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def read_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file; ``overrides`` are dotted keys with values, or with TOML of them (``optimiser.rate=1e-4``)."""
    plain = read_recipe_toml(path)
    for key, value in (overrides or {}).items():
        _override(plain, key, value)
    return parse_recipe(plain)


def parse_recipe(plain: Mapping[str, Any]) -> Recipe:
    """Check plain values and make a recipe of them."""
    if "system" not in plain or not plain.get("stages"):
        msg = "a recipe names its `system` and has at least one [[stages]]"
        raise RecipeError(msg)
    known = checked(Recipe, plain)
    stages = tuple(Stage(**checked(Stage, stage)) for stage in known.pop("stages"))
    pairs = tuple(PairedFolder(**checked(PairedFolder, source)) for source in known.pop("pairs", ()))
    if sum(source.share for source in pairs) > 1:
        msg = "the shares of paired folders add up to more than 1"
        raise RecipeError(msg)
    optimiser = checked(Optimiser, known.pop("optimiser", {}))
    if "betas" in optimiser:
        optimiser["betas"] = tuple(optimiser["betas"])
    return Recipe(stages=stages, optimiser=Optimiser(**optimiser), pairs=pairs, **known)


def _override(plain: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401 - whatever was written
    *path, last = key.split(".")
    place: Any = plain
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    place[last] = parse_value(value) if isinstance(value, str) else value
