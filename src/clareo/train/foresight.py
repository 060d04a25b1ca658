"""How foresight is learned: damaged crops, what every expert changes on them, and where the clean photo lies.

    python -m clareo.train.foresight PHOTOS -o foresight-unires-nano.safetensors

A lesson is a photo's features, the Gram matrix of the changes and their products with what is missing to the clean
photo: with these the error of any blend is known. Lessons cost six evaluations each and are kept on disk; the network
is fitted to them in a minute, by the logarithm of the error that the blend it names would have.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from clareo.checkpoints import entry_of
from clareo.degrade.recipes import degrade_tensor
from clareo.devices import NAMES, choose_device, choose_precision
from clareo.errors import UsageError
from clareo.io import list_photos, read_rgb8
from clareo.planning.choose import Walker
from clareo.planning.foresight import ForesightNetwork, ForesightSettings, changes
from clareo.planning.foresight import features as describe
from clareo.planning.grid import Grid
from clareo.planning.plans import complete
from clareo.planning.views import look
from clareo.system import System, load_system
from clareo.train.export import write_checkpoint

JUDGE = "judge-nano"  # who is asked
CROP = 256  # px
RECIPE = "everyday"
SHORTLISTED, FROM = 8, 120  # blends, and mixtures that they are chosen on: the paper's
ROUNDING = 1 / 255**2 / 12  # variance of 8-bit values: below this an error does not count
HELD_OUT = 10  # every so many-th lesson is for validation


@dataclass(frozen=True)
class Lessons:
    """What was gathered, one row a crop."""

    features: torch.Tensor  # (N, F)
    gram: torch.Tensor  # (N, K, K)
    products: torch.Tensor  # (N, K), of the changes with what is missing
    missing: torch.Tensor  # (N,), mean square of what is missing

    def errors(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of blends after rounding, (N, K) one a row or (N, M, K) -> (N,) or (N, M)."""
        flat = weights if weights.ndim == 3 else weights[:, None]
        square = torch.einsum("nmk,nkl,nml->nm", flat, self.gram, flat)
        found = square - 2 * torch.einsum("nmk,nk->nm", flat, self.products) + self.missing[:, None]
        found = found.clamp_min(0) + ROUNDING
        return found if weights.ndim == 3 else found[:, 0]

    def only(self, rows: torch.Tensor) -> Lessons:
        """Keep some rows."""
        return Lessons(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


# --- gathering -------------------------------------------------------------------------------------------------------


def gather(system: System, photos: Sequence[Path], count: int, seed: int, keep: Path) -> Lessons:
    """Make lessons; go on with those that ``keep`` holds, if they are of the same system, photos and seed."""
    about = _about(system, photos, seed)
    done = _kept(keep, about) if keep.exists() else {}
    rows = [{name: values[place] for name, values in done.items()} for place in range(len(done.get("missing", [])))]
    for number in range(len(rows), count):
        rng = np.random.default_rng((seed, number))
        rows.append(lesson(system, photos[int(rng.integers(len(photos)))], rng))
        if (number + 1) % 100 == 0 or number + 1 == count:
            save_file({name: torch.stack([row[name] for row in rows]) for name in rows[0]}, keep, {"about": about})
            print(f"[{number + 1}/{count}]", file=sys.stderr, flush=True)  # noqa: T201
    return Lessons(**{name: torch.stack([row[name] for row in rows[:count]]) for name in rows[0]})


def _about(system: System, photos: Sequence[Path], seed: int) -> str:
    """Name what lessons are made from."""
    listed = hashlib.sha256("\n".join(f"{path.name} {path.stat().st_size}" for path in photos).encode()).hexdigest()
    return f"{system.fingerprint} {RECIPE} {CROP} px, seed {seed}, photos {listed}, judge {entry_of(JUDGE).sha256}"


def _kept(path: Path, about: str) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        made_from = (file.metadata() or {}).get("about", "")
    if made_from != about:
        msg = f"{path}: holds lessons of another system, other photos or another seed; move it away to begin anew"
        raise UsageError(msg)
    return load_file(path)


@torch.inference_mode()
def lesson(system: System, path: Path, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Damage a crop of a photo, and note what the experts change and what they should."""
    clean = _crop(torch.from_numpy(read_rgb8(path).copy()).permute(2, 0, 1).float() / 255, rng, system.multiple)
    damaged = degrade_tensor(clean, RECIPE, int(rng.integers(2**31))).tensor[None]
    place = choose_device()
    plan = replace(complete(system), precision=NAMES[choose_precision("auto", place)])
    views = look(system, damaged, Walker(system, plan, system.perceive(damaged), place), side=CROP)
    moved = changes(views)[:-1].flatten(1).double()
    missing = (clean[None] - damaged).flatten().double()
    values = len(missing)
    return {
        "features": describe(views, JUDGE).float(),
        "gram": (moved @ moved.T / values).float(),
        "products": (moved @ missing / values).float(),
        "missing": (missing.square().mean()).float(),
    }


def _crop(photo: torch.Tensor, rng: np.random.Generator, multiple: int) -> torch.Tensor:
    side = [min(CROP, extent // multiple * multiple) for extent in photo.shape[-2:]]
    top, left = (int(rng.integers(extent - s + 1)) for extent, s in zip(photo.shape[-2:], side, strict=True))
    return photo[:, top : top + side[0], left : left + side[1]].contiguous()


# --- fitting ---------------------------------------------------------------------------------------------------------


def fit(lessons: Lessons, settings: ForesightSettings, seed: int = 0, epochs: int = 120) -> ForesightNetwork:
    """Fit every member by the error of its blend, each from its own start."""
    with torch.random.fork_rng():  # initialisation and dropout draw from the global state and leave no trace there
        torch.manual_seed(seed)  # noqa: TID251 - nn.init takes no generator
        network = ForesightNetwork(settings)
        network.centre.copy_(lessons.features.mean(0))
        network.scale.copy_(lessons.features.std(0).clamp_min(0.02))
        seen = network.normalised(lessons.features)
        for member in network.members:
            _fit_member(member, seen, lessons, epochs)
    return network.eval()


def _fit_member(member: torch.nn.Module, seen: torch.Tensor, lessons: Lessons, epochs: int, size: int = 128) -> None:
    optimiser = torch.optim.AdamW(member.parameters(), lr=2e-3, weight_decay=1e-2)
    batches = max(1, len(seen) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(seen)).tensor_split(batches):
            said = member(seen[rows] + 0.03 * torch.randn_like(seen[rows]))
            errors = torch.log10(lessons.only(rows).errors(said[:, :-1]))
            loss = errors.mean() + 0.1 * F.smooth_l1_loss(said[:, -1], errors.detach())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


def shortlist(lessons: Lessons, experts: Sequence[str], count: int = SHORTLISTED) -> tuple[dict[str, float], ...]:
    """Choose blends of the grid one after the other, each for what it adds to the best of those before it."""
    grid, gains = every_gain(lessons, experts)
    best, chosen = gains[:, -1], []  # the photo as it came is always there
    for _ in range(count):
        place = int(torch.maximum(gains[:, :-1], best[:, None]).mean(0).argmax())
        best = torch.maximum(best, gains[:, place])
        chosen.append({name: round(w, 1) for name, w in zip(experts, grid[place].tolist(), strict=True) if w})
    return tuple(chosen)


def examine(network: ForesightNetwork, lessons: Lessons, experts: Sequence[str]) -> dict[str, float]:
    """Return dB over the photos as given: of the foreseen blend, the best fixed one, and the best of the grid."""
    _, every = every_gain(lessons, experts)
    with torch.inference_mode():
        foreseen = _decibels(lessons.errors(network(lessons.features)[0])) - _decibels(lessons.missing + ROUNDING)
    best = {"foreseen": foreseen, "fixed": every[:, int(every.mean(0).argmax())], "grid": every.amax(1)}
    return {name: round(float(gains.mean()), 3) for name, gains in best.items()}


def every_gain(lessons: Lessons, experts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the grid, with the photo as it came in the last row, and what each of it gains: (M, K), (N, M)."""
    grid = torch.tensor([*Grid().weights(len(experts)), (0.0,) * len(experts)])
    rows = torch.tensor_split(torch.arange(len(lessons.missing)), max(1, len(lessons.missing) // 256))
    errors = torch.cat([part.errors(grid.expand(len(part.missing), -1, -1)) for part in map(lessons.only, rows)])
    return grid, _decibels(errors) - _decibels(lessons.missing + ROUNDING)[:, None]


def _decibels(error: torch.Tensor) -> torch.Tensor:
    return -10 * torch.log10(error)


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Gather lessons, fit, examine on lessons set aside, and write the checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m clareo.train.foresight", description=main.__doc__)
    parser.add_argument("photos", type=Path, help="a folder of clean photos")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--system", default="unires", help="whose blends")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--lessons", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    system = load_system(given.system, given.preset)
    photos = [path for path in list_photos(given.photos) if min(read_rgb8(path).shape[:2]) >= system.multiple * 2]
    if not photos or given.lessons < HELD_OUT:
        msg = (
            f"{given.photos}: {len(photos)} photos that are large enough, and {given.lessons} lessons; too few to learn"
        )
        raise UsageError(msg)
    keep = given.output.with_suffix(".lessons.safetensors")
    lessons = gather(system, photos, given.lessons, given.seed, keep)
    aside = torch.arange(len(lessons.missing)) % HELD_OUT == 0
    learned = lessons.only(~aside)
    first = learned.only(torch.arange(min(FROM, len(learned.missing))))
    settings = ForesightSettings(
        system.experts,
        system.fingerprint,
        shortlist(first, system.experts),
        judge=JUDGE,
        judge_sha256=entry_of(JUDGE).sha256,
    )
    network = fit(learned, settings, given.seed)
    scores = examine(network, lessons.only(aside), system.experts)
    write(
        network,
        settings,
        given.output,
        f"{len(lessons.missing)} crops of {len(photos)} photos, seed {given.seed}",
        scores,
    )
    print(f"{given.output}: dB gained on lessons set aside: {scores}", file=sys.stderr)  # noqa: T201


def write(
    network: ForesightNetwork, settings: ForesightSettings, path: Path, data: str, scores: dict[str, float]
) -> None:
    """Write the checkpoint, with what it was made from."""
    write_checkpoint(
        network,
        path,
        system="foresight",
        settings=asdict(settings),
        recipe=f"python -m clareo.train.foresight, recipe {RECIPE}, crops of {CROP} px",
        data=data,
        scores=json.dumps(scores),
    )


if __name__ == "__main__":
    main()
