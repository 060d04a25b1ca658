"""Plans as data: completed, checked, moved, written down and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clareo.diffusion.guidance import Guidance
from clareo.errors import UnknownNameError, UsageError, WeightsError
from clareo.system import System
from clareo.types import KEEP, Percept, Plan

AUTO, FAST, PREDICT, FIXED = WAYS = ("auto", "fast", "predict", "fixed")  # to find the weights of a photo
UPSCALES = (1, 2, 3, 4)
MOST_STEPS = 1000
TILE, SMALLEST_TILE = 512, 128  # photo pixels


def complete(
    system: System,
    *,
    weights: Mapping[str, float] | None = None,
    steps: int | None = None,
    seed: int = 0,
    upscale: int = 1,
    tile: int = TILE,
    precision: str = "fp32",
    streamed: bool = False,
) -> Plan:
    """Complete what the caller left open with the system's defaults, and check the whole."""
    blend = dict(system.weights if weights is None else weights)
    steps = system.steps if steps is None else steps
    return check(Plan(blend, steps, seed, upscale, tile, precision, streamed), system)


def way_of(weights: str | Mapping[str, float]) -> str:
    """Return the way to find the weights that a caller names; nothing where the caller gives a blend."""
    if not isinstance(weights, str):
        return ""
    if weights not in WAYS:
        raise WeightsError(str(UnknownNameError.of("way to find the weights", weights, WAYS)))
    return weights


def check(plan: Plan, system: System) -> Plan:
    """Return the plan if the system can carry it out; say what is wrong if not."""
    known = (*system.experts, *system.extras, KEEP)
    for name in plan.weights:
        if name not in known:
            raise WeightsError(str(UnknownNameError.of("expert", name, known)))
    Guidance(plan.weights)  # refuses weights that do not sum to 1
    if plan.upscale not in UPSCALES:
        msg = f"upscale must be one of {UPSCALES}, not {plan.upscale}"
        raise UsageError(msg)
    if not 1 <= plan.steps <= MOST_STEPS:
        msg = f"steps must lie between 1 and {MOST_STEPS}, not at {plan.steps}"
        raise UsageError(msg)
    if plan.tile < SMALLEST_TILE:
        msg = f"tiles must be at least {SMALLEST_TILE} px wide, not {plan.tile}"
        raise UsageError(msg)
    return plan


def with_detail(weights: Mapping[str, float], detail: float, reach: float = 1.0) -> dict[str, float]:
    """Bring out detail: 0 leaves a blend alone, 1 goes ``reach`` towards the `detail` expert, or away from it.

    >>> with_detail({"sr": 1.0}, 0.5, reach=-0.5)
    {'sr': 1.25, 'detail': -0.25}
    """
    check_detail(detail)
    return towards(weights, "detail", detail * reach)


def check_detail(detail: float) -> None:
    """Refuse what is not a share."""
    if not 0 <= detail <= 1:
        msg = f"detail must lie between 0 and 1, not at {detail:g}"
        raise UsageError(msg)


def towards(weights: Mapping[str, float], name: str, share: float) -> dict[str, float]:
    """Move a blend towards one of its parts: 0 leaves it alone, 1 is that part alone, below 0 leads away from it.

    Sums stay what they are.

    >>> towards({"sr": 0.5, "denoise": 0.5}, "denoise", 0.2)
    {'sr': 0.4, 'denoise': 0.6}
    """
    moved = {part: weight * (1 - share) for part, weight in weights.items()}
    moved[name] = moved.get(name, 0.0) + share
    return _rounded(moved)


def _rounded(blend: Mapping[str, float]) -> dict[str, float]:
    """Round to six digits; a part that is nothing is no part."""
    rounded = {part: round(weight, 6) for part, weight in blend.items()}
    return {part: weight for part, weight in rounded.items() if weight}


def parse_weights(text: str) -> dict[str, float] | str:
    """Read "sr=0.4,denoise=0.6", or the name of a way to find the weights.

    >>> parse_weights("sr=0.4, denoise=0.6")
    {'sr': 0.4, 'denoise': 0.6}
    >>> parse_weights("auto")
    'auto'
    """
    if text.strip() in WAYS:
        return text.strip()
    weights = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            msg = f"weights are written like sr=0.4,denoise=0.6, or {', '.join(WAYS)}; cannot read {part.strip()!r}"
            raise WeightsError(msg) from None
    return weights


@dataclass(frozen=True)
class Sidecar:
    """What it says beside the plan; a file that holds nothing but a plan says none of it."""

    system: str | None = None
    preset: str | None = None
    weights: str | None = None  # sha256
    photo: str | None = None  # likewise
    percept: Percept | None = None


def read_plan(path: Path) -> tuple[Plan, Sidecar]:
    """Read the plan out of a sidecar (NAME.clareo.json), with what goes with it; both may have been edited."""
    try:
        account: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        plain = account.get("plan", account)
        system, preset, made_with = (account.get(key) for key in ("system", "preset", "weights_sha256"))
        photo, percept = account.get("input", {}).get("sha256"), _percept(account.get("percept"))
        if not all(name is None or isinstance(name, str) for name in (system, preset, made_with, photo)):
            msg = "system, preset and hashes are texts"
            raise ValueError(msg)
        sidecar = Sidecar(system, preset, made_with, photo, percept)
        weights = {str(name): float(weight) for name, weight in plain["weights"].items()}
        steps, seed, upscale = (int(plain[key]) for key in ("steps", "seed", "upscale"))
        tile, precision = int(plain.get("tile", TILE)), str(plain.get("precision", "fp32"))
        streamed, why = plain.get("streamed", False) is True, str(plain.get("why") or "")
        return Plan(weights, steps, seed, upscale, tile, precision, streamed, why), sidecar
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise UsageError(msg) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        msg = f"{path}: not a plan ({type(error).__name__}: {error})"
        raise UsageError(msg) from error


def _percept(plain: Mapping[str, Any] | None) -> Percept | None:
    """Read what `Percept.to_json` wrote; a key that it does not have is an error."""
    if plain is None:
        return None
    tags = plain.get("tags", [])
    percept = Percept(**{**plain, "tags": tuple(tags)})
    texts = (*percept.tags, percept.caption, percept.prompt)
    if not isinstance(tags, list) or not all(isinstance(said, str) for said in texts):
        msg = "caption and prompt of a percept are texts, and tags a list of them"
        raise ValueError(msg)
    return percept
