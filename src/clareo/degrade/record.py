"""Records: what was done to a photo, in order, so that it can be replayed and put into numbers and words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch

from clareo.degrade import failures, objects, ops, scene, words
from clareo.degrade.degrees import Value, meaning_of
from clareo.errors import RecipeError, UnknownNameError

Op = Callable[..., torch.Tensor]
OPS: Mapping[str, Op] = {
    op.__name__: op
    for op in (
        *(scene.haze, scene.low_light, scene.rain, scene.raindrop),
        *(objects.object_motion, objects.layered_defocus),
        *(ops.bell_blur, ops.sinc_blur, ops.disk_blur, ops.line_blur, ops.shake_blur),
        *(ops.gaussian_noise, ops.poisson_noise, ops.shot_noise, ops.sensor_noise),
        *(ops.resize, ops.sharpen, ops.jpeg, ops.webp, ops.quantise),
        *(failures.oversmooth, failures.overdeconvolve, failures.oversharpen, failures.invent_texture),
    )
}
LOCAL_BLURS = ("object_motion", "layered_defocus", "raindrop", "oversmooth")
SHARPENERS = ("sinc_blur", "sharpen", "oversharpen", "overdeconvolve")
UNIFORM_BLURS = ("bell_blur", "disk_blur", "line_blur", "shake_blur")  # one kernel says everything about them


@dataclass(frozen=True)
class Step:
    """One operation: its name in `OPS`, its parameters, its own seed, and what it means to a person."""

    op: str
    params: Mapping[str, Value] = field(default_factory=dict)
    kind: str = ""  # one of `degrees.KINDS`, or nothing for bookkeeping (rounding, enlarging)
    degree: float = 0.0  # 0 nothing, 1 as bad as it gets
    seed: int = 0

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise UnknownNameError.of("operation", self.op, OPS)
        object.__setattr__(self, "degree", min(1.0, max(0.0, self.degree)))

    @staticmethod
    def of(op: str, seed: int = 0, /, **params: Value) -> Step:
        """Make a step with the kind and degree that its parameters mean."""
        kind, degree = meaning_of(op, params)
        return Step(op, params, kind, degree, seed)

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Do it to (..., 3, H, W)."""
        rng = torch.Generator().manual_seed(self.seed)
        return OPS[self.op](image, rng, **self.params)


@dataclass(frozen=True)
class Record:
    """The steps of one degradation, the recipe they were drawn from and the seed they were drawn with."""

    steps: tuple[Step, ...]
    recipe: str = ""
    seed: int = 0

    def apply(self, clean: torch.Tensor) -> torch.Tensor:
        """Degrade (..., 3, H, W); the same record and photo give the same pixels."""
        for step in self.steps:
            clean = step.apply(clean)
        return clean

    def degrees(self) -> dict[str, float]:
        """Return the degree per kind; repeated kinds add up as 1 - (1 - a)(1 - b)."""
        left: dict[str, float] = {}
        for step in self.steps:
            if step.kind and step.degree > 0:
                left[step.kind] = left.get(step.kind, 1.0) * (1 - step.degree)
        return {kind: round(1 - remaining, 4) for kind, remaining in left.items()}

    def prompt(self) -> str:
        """Return the restoration prompt of DaLPSR: an action per kind, and the quarter of the range that it lies in."""
        return words.restoration_prompt(words.levels(self))

    def kernel(self, side: int) -> torch.Tensor:
        """Return all blur together as one kernel (side, side); NaN where a step makes that meaningless."""
        if any(step.op in (*SHARPENERS, "resize", *LOCAL_BLURS) for step in self.steps):
            return torch.full((side, side), torch.nan)
        point = torch.zeros(1, 2 * side + 1, 2 * side + 1)
        point[:, side, side] = 1
        blurs = Record(tuple(step for step in self.steps if step.op in UNIFORM_BLURS))
        half = side // 2
        middle = blurs.apply(point)[0, side - half : side + half + 1, side - half : side + half + 1].clamp_min(0)
        return middle / middle.sum()

    def to_json(self) -> str:
        """Return the record as text that `from_json` reads back."""
        plain = {"recipe": self.recipe, "seed": self.seed, "steps": [asdict(step) for step in self.steps]}
        return json.dumps(plain, indent=1)

    @staticmethod
    def from_json(text: str) -> Record:
        """Read what `to_json` wrote."""
        try:
            plain = json.loads(text)
            steps = tuple(Step(**step) for step in plain["steps"])
            return Record(steps, plain.get("recipe", ""), plain.get("seed", 0))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            msg = f"not a degradation record: {error}"
            raise RecipeError(msg) from error


def replay(record: Record, clean: torch.Tensor) -> torch.Tensor:
    """Do to a clean photo (3, H, W) exactly what the record says."""
    return record.apply(clean)


def chain(*parts: Sequence[Step]) -> tuple[Step, ...]:
    """Join groups of steps."""
    return tuple(step for part in parts for step in part)
