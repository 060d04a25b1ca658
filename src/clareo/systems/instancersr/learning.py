"""How InstanceRSR learns: the photo and its map together, and tokens that know what the teacher knows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from clareo.backbones.dit import Grid
from clareo.backbones.features import recorded
from clareo.checkpoints import entry_of
from clareo.degrade import recipes
from clareo.degrade.recipes.draws import pick
from clareo.diffusion import losses
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.training import estimate_on_walk, noise_error
from clareo.errors import RecipeError
from clareo.latents import JointLatent, enlarge
from clareo.perceive.instances import paint, scales, token_ids
from clareo.perceive.masks import find_masks
from clareo.perceive.scenes import draw_scene
from clareo.perceive.teacher import find_teacher
from clareo.system import Batch, Example, Lessons, PairExample, System, Training
from clareo.systems.instancersr.model import Model, build_paper
from clareo.systems.instancersr.nano import build_nano
from clareo.systems.instancersr.settings import NanoSettings, PaperSettings, Scales, Settings
from clareo.toml import checked
from clareo.types import Condition, Image, Latent

# --- examples --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """What a training sample is made of."""

    recipes: Mapping[str, float] = field(default_factory=lambda: {"realesrgan": 1.0})  # recipe -> share
    scenes: float = 0.0  # share of samples that are drawn scenes, whose masks are exact
    masks: str = "segments"  # who finds the masks of photos; or "sam:PATH", "rle:FOLDER"

    def __post_init__(self) -> None:
        if not 0 <= self.scenes <= 1:
            msg = f"scenes is a share, from 0 to 1, not {self.scenes}"
            raise RecipeError(msg)


@dataclass(frozen=True)
class Instances:
    """What an example says of the instances in its photo."""

    find: Callable[[torch.Tensor], torch.Tensor]  # (3, H, W) -> masks (N, H, W)
    side: int  # photo pixels along a token
    mode: Scales

    def of(self, clean: torch.Tensor, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Find the instances of a photo, and say what there is to know about them."""
        return self.told(clean, self.find(clean), rng)

    def told(self, clean: torch.Tensor, masks: torch.Tensor, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Return the map (3, H, W), whose token is whose (h, w), and what the norms of tokens should be (h, w)."""
        ids = token_ids(masks, self.side)
        if self.mode == "off":
            targets = torch.full(ids.shape, torch.nan)
        else:
            drawing = torch.Generator().manual_seed(int(rng.integers(2**31)))
            targets = scales(ids, self.mode, zlib.crc32(clean.numpy().tobytes()), drawing)
        return {"map": paint(masks), "ids": ids, "targets": targets}


def draw_example(clean: torch.Tensor, rng: np.random.Generator, damage: Damage, instances: Instances) -> Example:
    """Degrade a crop, or a scene in its place, and bring it back to its size; say what instances are there."""
    height, width = clean.shape[-2:]
    if rng.random() < damage.scenes:
        clean, masks = draw_scene(rng, height, width)
        truth = instances.told(clean, masks, rng)
    else:
        truth = instances.of(clean, rng)
    made = recipes.degrade_tensor(clean, pick(rng, damage.recipes), int(rng.integers(2**31)))
    return Example(clean, enlarge(made.tensor, (height, width)), "", truth)


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from; ``options.damage`` is a `Damage`."""
    damage = Damage(**checked(Damage, options.get("damage", {})))
    settings = _settings({name: value for name, value in options.items() if name != "damage"})
    instances = Instances(find_masks(damage.masks), settings.side, settings.scales)
    return Lessons(partial(draw_example, damage=damage, instances=instances), partial(_paired, instances=instances))


def _paired(task: str, instances: Instances) -> PairExample:
    del task
    return partial(pair_example, instances=instances)


def pair_example(
    reference: torch.Tensor, degraded: torch.Tensor, rng: np.random.Generator, instances: Instances
) -> Example:
    """Say what instances are in a real pair."""
    return Example(reference, degraded, "", instances.of(reference, rng))


# --- losses ----------------------------------------------------------------------------------------------------------


def training(options: Mapping[str, Any]) -> Training:
    """Build a preset untrained, with its loss."""
    settings = _settings({name: value for name, value in options.items() if name != "damage"})
    if isinstance(settings, PaperSettings):
        system, model = build_paper(settings)
        return _training(system, model, settings, _noise_terms)
    if settings.prior:
        settings = replace(settings, prior_sha256=entry_of(settings.prior).sha256)
    system, model = build_nano(settings)
    return _training(system, model, settings, partial(_pixel_terms, settings=settings))


def _settings(plain: Mapping[str, Any]) -> NanoSettings | PaperSettings:
    paper = plain.get("preset") == "paper"
    return PaperSettings.from_json(plain) if paper else NanoSettings.from_json(plain)


Terms = dict[str, torch.Tensor]
Denoising = Callable[[System, Denoiser, Batch, Condition, torch.Generator], Terms]


def _training(system: System, model: Model, settings: Settings, denoising: Denoising) -> Training:
    """L = L_denoise + 0.5 L_REPA + 0.1 L_IS; the last two on tokens that are heard along the way."""
    teacher = find_teacher(settings.teacher) if settings.aligned else None
    width = model.controlled.dit.settings.width
    helpers = nn.ModuleDict({} if teacher is None else {"projector": projector(width, settings, teacher.width)})
    layer = model.controlled.layer(settings.align_layer)

    def loss(batch: Batch, rng: torch.Generator) -> Terms:
        grid = (batch.reference.shape[-2] // model.side, batch.reference.shape[-1] // model.side)
        placed = replace(system.denoiser, backbone=partial(model.backbone, start=draw_start(grid, settings.table, rng)))
        with recorded(model.controlled, [layer]) as heard:
            terms = denoising(system, placed, batch, draw_seen(model, batch.degraded, settings, rng), rng)
        tokens = heard[-1].float()
        if teacher is not None:
            with torch.no_grad():
                wanted = teacher(batch.reference, grid)
            found = helpers["projector"](tokens)
            terms["repa"] = settings.aligned * losses.alignment(found.float(), wanted.float())
        if settings.scaled:
            targets = _told(batch, "targets", grid).flatten(1)
            terms["is"] = settings.instance_scale * losses.instance_scale(tokens, targets)
        return terms

    watched = {} if teacher is None else {"teacher": teacher}
    network = nn.ModuleDict({"system": system.network, **watched, **helpers})
    trained = nn.ModuleDict({**model.trained, **helpers})
    return Training(network, trained, settings.to_json(), loss, system, scaffold=tuple(helpers))


def projector(width: int, settings: Settings, leaving: int) -> nn.Sequential:
    """Build REPA's projector of tokens to a teacher's features, which only training needs."""
    hidden = settings.projector
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, leaving)
    )


def draw_start(grid: Grid, table: int, rng: torch.Generator) -> Grid:
    """Place a crop anywhere in what is seen in use: a network that saw small crops only knows no other places."""
    rooms = [max(0, table - extent) + 1 for extent in grid]
    down, across = (int(torch.randint(room, (1,), generator=rng)) for room in rooms)
    return down, across


def draw_seen(model: Model, degraded: Image, settings: Settings, rng: torch.Generator) -> Condition:
    """Encode what the control branch sees; of a share of samples that is nothing."""
    with torch.no_grad():
        seen = model.codec.encode(degraded)
    blind = (torch.rand(len(seen), generator=rng) < settings.drop_control).to(seen.device)
    return Condition(control=torch.where(blind[:, None, None, None], model.nothing, seen))


def _noise_terms(system: System, denoiser: Denoiser, batch: Batch, said: Condition, rng: torch.Generator) -> Terms:
    """E | eps - eps_theta(z_t, t, C) |^2 over both halves (eq. 4)."""
    with torch.no_grad():
        clean = encoded(system, batch)
    return {"mse": noise_error(denoiser, clean, said, rng)}


def _pixel_terms(
    system: System,
    denoiser: Denoiser,
    batch: Batch,
    said: Condition,
    rng: torch.Generator,
    settings: NanoSettings,
) -> Terms:
    """L1 of the clean photo and MSE of its map, at t = 1 and on the system's own walk, in the place of eq. 4."""
    if batch.own_share < 1 and batch.far_share < 1:  # clean = (x_t - t y) / (1 - t), and the control branch sees y
        msg = "between both ends x_t would give the clean photo away: recipes need own_share = 1"
        raise RecipeError(msg)
    clean, degraded = encoded(system, batch), system.codec.encode(batch.degraded)
    shares = (batch.far_share, batch.own_share)
    estimate = estimate_on_walk(denoiser, clean, degraded, said, shares, rng).float()
    if not settings.maps:
        return {"l1": settings.denoise * losses.l1(estimate, clean)}
    (photo, drawn), (wanted, painted) = estimate.chunk(2, 1), clean.chunk(2, 1)
    return {
        "l1": settings.denoise * losses.l1(photo, wanted),
        "map": settings.mapped * losses.mse(drawn, painted),  # of absolute errors the best guess is black for long
    }


def encoded(system: System, batch: Batch) -> Latent:
    """Encode clean photos, with their maps where there is a place for them."""
    if not isinstance(system.codec, JointLatent):
        return system.codec.encode(batch.reference)
    return system.codec.encode_both(batch.reference, _told(batch, "map", batch.reference.shape[-2:]))


def _told(batch: Batch, name: str, size: tuple[int, ...]) -> torch.Tensor:
    """Return what examples say about their photos, which must not have been cut since."""
    found = batch.truth[name]
    if tuple(found.shape[-2:]) != tuple(size):
        msg = f"the {name} of a crop is {tuple(found.shape[-2:])}, not {tuple(size)}: recipes need margin = 0"
        raise RecipeError(msg)
    return found
