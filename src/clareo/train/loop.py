"""The loop: one for every system. Kill it at any moment; it goes on from the last checkpoint to the same weights."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from clareo.devices import choose_device, choose_precision, keep_freed_memory
from clareo.errors import CheckpointError, RecipeError
from clareo.system import Batch, Measure, Training
from clareo.train.data import batches, load_photos, placed, split
from clareo.train.export import commit, write_checkpoint
from clareo.train.learners import learner
from clareo.train.parallel import Group, join, local, spread_like, whole
from clareo.train.recipe import Optimiser, Recipe
from clareo.train.unseen import unseen
from clareo.train.validate import Validation

LAST = "last.safetensors"
WEIGHTS = "weights.safetensors"


@dataclass
class State:
    """All that changes while training."""

    network: nn.Module
    average: nn.Module  # exponential moving average of the network: what is evaluated and shipped
    optimiser: torch.optim.AdamW
    step: int = 0


def train(recipe: Recipe, data: Path, run: Path, resume: bool = False) -> Path:  # noqa: FBT001, FBT002
    """Train to the end of the recipe; return the file with the averaged weights."""
    keep_freed_memory()
    group = join()
    run.mkdir(parents=True, exist_ok=True)
    if (run / LAST).exists() and not resume:
        msg = f"{run} already holds a run: --resume goes on with it, another -o starts afresh"
        raise CheckpointError(msg)
    training, mirror = _build(recipe)
    state = _start(training, mirror, recipe, group)
    if group.leads:
        _write_settings(recipe, run, data)
    if resume and (run / LAST).exists():
        _load(state, run / LAST)
    side = max(stage.crop for stage in recipe.stages) + 2 * recipe.margin
    photos, aside = split(load_photos(data, side), recipe.held_out)
    print(f"{len(photos)} photos to train on, {len(aside)} aside, from step {state.step}", file=sys.stderr)  # noqa: T201
    steps = _steps(training, recipe, state, batches(photos, recipe, state.step, (group.rank, group.size)), group)
    if not (group.leads or recipe.sharded):
        deque(steps, maxlen=0)  # work, and leave the books to the leader
        return run / WEIGHTS
    measure = _measure(mirror, aside, recipe)
    with Log(run, recipe, state.step, silent=not group.leads) as log:
        for terms, images in steps:
            log.add(state.step, terms, images * group.size)
            if state.step % recipe.validate_every == 0 or state.step == recipe.steps:
                log.validate(state.step, measure())
            if state.step % recipe.checkpoint_every == 0:
                _save(state, run / LAST, group)
    _save(state, run / LAST, group)
    done = replace(training, settings={**training.settings, **_settled(mirror, aside, recipe)})
    averaged = group.gathered(state.average.state_dict())
    if not group.leads:
        return run / WEIGHTS
    return export(done, averaged, recipe, run / WEIGHTS, data=f"{len(photos)} photos of {data.name}")


def _measure(training: Training, aside: list[NDArray[np.uint8]], recipe: Recipe) -> Measure:
    """Return what is measured while training."""
    measures: list[Measure] = []
    crop = recipe.stages[-1].crop
    if training.system is not None:
        measures.append(Validation(training.system, aside, crop, recipe.seed).measure)
    elif training.examine is not None:
        measures.append(training.examine(aside, crop, recipe.seed))
    if recipe.unseen:
        measures.append(unseen(training, aside, recipe))
    return lambda: {name: value for measure in measures for name, value in measure().items()}


def _settled(training: Training, aside: list[NDArray[np.uint8]], recipe: Recipe) -> Mapping[str, Any]:
    """Return the settings that are found out at the end."""
    return training.settle(aside, recipe.stages[-1].crop, recipe.seed) if training.settle is not None else {}


def _build(recipe: Recipe) -> tuple[Training, Training]:
    """Build the system twice: one to train, one to hold the average and be validated. Equal seeds, equal weights."""
    with torch.random.fork_rng():  # initialisation draws from the global state and leaves no trace there
        torch.manual_seed(recipe.seed)  # noqa: TID251 - nn.init takes no generator
        first, second = (learner(recipe.system).training(recipe.options) for _ in range(2))
    return first, second


def _start(training: Training, mirror: Training, recipe: Recipe, group: Group) -> State:
    if recipe.sharded and group.size > 1:
        _spread((training, mirror), group)
    network, average = (_placed(each) for each in (training, mirror))
    if recipe.start_from:
        _take_over(training, recipe.start_from)
    average.load_state_dict(network.state_dict())
    average.requires_grad_(requires_grad=False)
    settings = recipe.optimiser
    optimiser = torch.optim.AdamW(
        network.parameters(),
        settings.rate,
        settings.betas,
        settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    return State(network, average, optimiser)


def _spread(trainings: tuple[Training, Training], group: Group) -> None:
    for training in trainings:
        if training.shards is None:
            msg = "sharded: this network is small, and does not say how it would be spread"
            raise RecipeError(msg)
        group.spread(training.shards, choose_device())


def _take_over(training: Training, path: str) -> None:
    """Start from exported weights, which hold all of a network but its scaffold."""
    kept = {name: value for name, value in training.trained.state_dict().items() if _is_scaffold(training, name)}
    training.trained.load_state_dict({**kept, **load_file(path)})


def _is_scaffold(training: Training, name: str) -> bool:
    return name.partition(".")[0] in training.scaffold


def _placed(training: Training) -> nn.Module:
    training.network.to(choose_device()).to(memory_format=torch.channels_last)
    return training.trained


def _steps(
    training: Training, recipe: Recipe, state: State, stream: Iterator[Batch], group: Group
) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """Take one step a batch; yield the terms of its loss and its number of images."""
    device = choose_device()
    dtype = choose_precision(recipe.precision, device)
    for batch in stream:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            terms = training.loss(placed(batch, device), _generator(recipe.seed, state.step, group.rank))
        _update(state, sum(terms.values(), torch.zeros((), device=device)), recipe, group)
        yield terms, len(batch.prompts)


def _generator(seed: int, step: int, rank: int) -> torch.Generator:
    """Make the randomness of a step a function of its number, so that a resumed run repeats it."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step + rank * 1_000_000_007)


def _update(state: State, loss: torch.Tensor, recipe: Recipe, group: Group) -> None:
    settings = recipe.optimiser
    for parameters in state.optimiser.param_groups:
        parameters["lr"] = rate_at(state.step, recipe.steps, settings) * rise_at(state.step, recipe)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    group.average(state.network)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
    if torch.isfinite(whole(norm)):
        state.optimiser.step()
    else:  # a broken batch is skipped, not learned
        print(f"step {state.step}: the gradient is not finite, batch skipped", file=sys.stderr)  # noqa: T201
    decay = recipe.at(state.step)[0].ema or settings.ema
    state.step += 1
    decay = min(decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        ours, theirs = ([local(p.data) for p in network.parameters()] for network in (state.average, state.network))
        torch._foreach_lerp_(ours, theirs, 1 - decay)  # one call in place of hundreds


def rate_at(step: int, steps: int, settings: Optimiser) -> float:
    """Return the learning rate: linear warm-up, then a half cosine (or a constant)."""
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    if not settings.cosine:
        return settings.rate
    progress = (step - settings.warmup) / max(1, steps - settings.warmup)
    return settings.final_rate + (settings.rate - settings.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def rise_at(step: int, recipe: Recipe) -> float:
    """Return what the rate is multiplied with while a stage warms up."""
    stage, done = recipe.at(step)
    return min(1.0, (done + 1) / stage.warmup) if stage.warmup else 1.0


# --- files -----------------------------------------------------------------------------------------------------------


def _save(state: State, path: Path, group: Group) -> None:
    """Write everything needed to go on; a kill in mid-write leaves the previous checkpoint."""
    tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.state_dict().items()}
    for name, parameter in state.network.named_parameters():
        for key, value in state.optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{key}.{name}"] = value
    found = group.gathered(tensors)
    if not group.leads:
        return
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in found.items()}, partial, {"step": str(state.step)})
    partial.replace(path)


def _load(state: State, path: Path) -> None:
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        state.step = int(file.metadata()["step"])
    for network, prefix in ((state.network, "network."), (state.average, "average.")):
        ours, found = network.state_dict(), _under(tensors, prefix)
        network.load_state_dict({k: spread_like(v, ours[k]) if k in ours else v for k, v in found.items()})
    for name, parameter in state.network.named_parameters():
        kept = {key: tensors.get(f"optimiser.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
        if all(value is not None for value in kept.values()):
            state.optimiser.state[parameter] = {k: _like(v, parameter) for k, v in kept.items() if v is not None}


def _like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Give a moment back the memory layout of its parameter: sums in another order differ in the last bit."""
    if value.dim() != 4:
        return spread_like(value, parameter) if value.dim() else value
    return value.to(parameter.device, memory_format=torch.channels_last)


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def export(
    training: Training,
    tensors: Mapping[str, torch.Tensor],
    recipe: Recipe,
    path: Path,
    *,
    data: str = "",
    scores: str = "",
) -> Path:
    """Write weights as fp16 safetensors with the settings, recipe, data and scores that belong to them."""
    return write_checkpoint(
        {name: value for name, value in tensors.items() if not _is_scaffold(training, name)},
        path,
        system=recipe.system,
        settings=training.settings,
        recipe=json.dumps(recipe.to_json()),
        data=data,
        scores=scores,
    )


def _write_settings(recipe: Recipe, run: Path, data: Path) -> None:
    settings = {
        "recipe": recipe.to_json(),
        "commit": commit(),
        "data": str(data),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    (run / "settings.json").write_text(json.dumps(settings, indent=1))


class Log:
    """Loss, speed and validation: lines on stderr, CSV files, and TensorBoard where it is installed."""

    def __init__(self, run: Path, recipe: Recipe, step: int, *, silent: bool = False) -> None:
        self._silent = silent  # of all processes one speaks
        self._run, self._recipe, self._first = run, recipe, step
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._images, self._since, self._began = 0, time.perf_counter(), time.perf_counter()
        self._board = None if silent else _tensorboard(run)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def add(self, step: int, terms: Mapping[str, torch.Tensor], images: int) -> None:
        """Count a step; every ``log_every`` steps, say how it goes."""
        if self._silent:
            return
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
        self._images, self._steps = self._images + images, self._steps + 1
        if step % self._recipe.log_every:
            return
        now = time.perf_counter()
        means = {name: value / self._steps for name, value in self._sums.items()}
        left = (now - self._began) / max(1, step - self._first) * (self._recipe.steps - step)
        row = {**means, "images_per_s": self._images / (now - self._since)}
        self._write("loss.csv", step, row)
        shown = "  ".join(f"{name} {value:.5f}" for name, value in means.items())
        print(  # noqa: T201
            f"step {step}/{self._recipe.steps}  {shown}  {row['images_per_s']:.1f} images/s  {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )
        self._sums, self._images, self._steps, self._since = {}, 0, 0, now

    def validate(self, step: int, gains: Mapping[str, float]) -> None:
        """Write down the validation rows."""
        if self._silent:
            return
        self._write("validation.csv", step, gains)
        shown = "  ".join(f"{name} {value:+.2f}" for name, value in gains.items())
        print(f"step {step}  validation: {shown}", file=sys.stderr, flush=True)  # noqa: T201

    def _write(self, name: str, step: int, row: Mapping[str, float]) -> None:
        path = self._run / name
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", *row])
            writer.writerow([step, *(f"{value:.6g}" for value in row.values())])
        if self._board is not None:
            for key, value in row.items():
                self._board.add_scalar(f"{path.stem}/{key}", value, step)


def _tensorboard(run: Path) -> Any:  # noqa: ANN401 - optional package
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError:
        print("no TensorBoard log: pip install 'clareo[train]'", file=sys.stderr)  # noqa: T201
        return None
    return SummaryWriter(str(run))
