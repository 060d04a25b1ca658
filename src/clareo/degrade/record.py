"""Records: what was done to a photo, in order, so that it can be replayed and put into numbers and words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch

from clareo.degrade import ops
from clareo.errors import RecipeError

KINDS = ("noise", "jpeg", "motion", "defocus", "low_resolution", "low_light", "haze", "rain", "raindrop")

Value = float | int | str | bool
Op = Callable[..., torch.Tensor]
OPS: Mapping[str, Op] = {
    op.__name__: op
    for op in (
        ops.bell_blur,
        ops.sinc_blur,
        ops.disk_blur,
        ops.line_blur,
        ops.shake_blur,
        ops.resize,
        ops.gaussian_noise,
        ops.poisson_noise,
        ops.sensor_noise,
        ops.jpeg,
        ops.quantise,
        ops.sharpen,
    )
}


@dataclass(frozen=True)
class Step:
    """One operation: its name in `OPS`, its parameters, its own seed, and what it means to a person."""

    op: str
    params: Mapping[str, Value] = field(default_factory=dict)
    kind: str = ""  # one of KINDS, "blur", or nothing for bookkeeping (rounding, enlarging)
    degree: float = 0.0  # 0 nothing, 1 as bad as it gets
    seed: int = 0

    def __post_init__(self) -> None:
        if self.op not in OPS:
            msg = f"unknown operation {self.op!r}; there are {', '.join(sorted(OPS))}"
            raise RecipeError(msg)
        object.__setattr__(self, "degree", min(1.0, max(0.0, self.degree)))

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Do it to (3, H, W)."""
        rng = torch.Generator().manual_seed(self.seed)
        return OPS[self.op](image, rng, **self.params)


@dataclass(frozen=True)
class Record:
    """The steps of one degradation, the recipe they were drawn from and the seed they were drawn with."""

    steps: tuple[Step, ...]
    recipe: str = ""
    seed: int = 0

    def apply(self, clean: torch.Tensor) -> torch.Tensor:
        """Degrade (3, H, W); the same record and photo give the same pixels."""
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

    def dominant(self) -> str:
        """Return the kind with the highest degree, or nothing for a clean photo."""
        degrees = self.degrees()
        return max(degrees, key=degrees.__getitem__) if degrees else ""

    def prompt(self) -> str:
        """Return the restoration prompt of DaLPSR: an action per kind, and the quarter of the range that it lies in."""
        intervals = ("0~0.25", "0.25~0.5", "0.5~0.75", "0.75~1.0")
        degrees = self.degrees()
        blur = max((degrees.get(kind, 0.0) for kind in ("blur", "motion", "defocus")), default=0.0)
        levels = {"Deblur": blur, "Denoise": degrees.get("noise", 0.0), "Dejpeg": degrees.get("jpeg", 0.0)}
        return ", ".join(f"{verb} with sigma {intervals[min(3, int(4 * level))]}" for verb, level in levels.items())

    def kernel(self, side: int) -> torch.Tensor:
        """Return all blur together as one kernel (side, side); NaN where a step makes that meaningless."""
        if any(step.op in ("resize", "sinc_blur", "sharpen") for step in self.steps):
            return torch.full((side, side), torch.nan)
        point = torch.zeros(1, 2 * side + 1, 2 * side + 1)
        point[:, side, side] = 1
        blurs = Record(tuple(step for step in self.steps if step.op.endswith("_blur")))
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
