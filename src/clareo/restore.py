"""The path of a photo, from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from clareo import planning
from clareo.devices import DeviceName, Precision, choose_device, choose_precision
from clareo.diffusion.guidance import Guidance, Spread, guide
from clareo.diffusion.samplers import even_times
from clareo.diffusion.tiling import Tiles, tiled
from clareo.errors import RestorationError
from clareo.io import MAX_MEGAPIXELS, as_photo, to_picture
from clareo.latents import fit
from clareo.quality.report import assess_image, can_be_assessed
from clareo.system import System, load_system
from clareo.trust import Trust, disagreement, measure_trust
from clareo.types import Assessment, Image, Percept, Plan, Restoration

OVERLAP = 64  # photo pixels that neighbouring tiles share
ANOTHER = 1_000_003  # how far the seed lies away that a trust map compares with
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def restore(  # noqa: PLR0913 - keyword-only, one per thing a user may decide
    photo: Any,  # noqa: ANN401 - path, Pillow image, array or tensor
    *,
    system: str | System = "unires",
    preset: str = "nano",
    upscale: int = 1,
    weights: Mapping[str, float] | None = None,
    detail: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    tile: int = planning.TILE,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    percept: Percept | None = None,
    plan: Plan | None = None,
    judged: bool = True,
    trust_map: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Restoration:
    """Restore one photo.

    Args:
        photo: a path, a Pillow image, an array (H, W, 3) or a float tensor (3, H, W) in [0, 1].
        system: a name from `list_systems`, or a system from `load_system` for many photos.
        preset: "nano", or a folder or hub name with weights.
        upscale: 1 to 4.
        weights: how much each expert counts; they sum to 1.
        detail: 0 keeps to the photo, 1 invents freely.
        steps: denoising steps; one is the most faithful, more are crisper.
        seed: of all noise.
        tile: photo pixels along a tile.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "fp32" or "bf16".
        percept: what the photo shows, in place of what the system perceives.
        plan: an earlier plan to repeat, in place of all of the above.
        judged: score the photo before and after, and how far the result can be trusted.
        trust_map: keep the trust per pixel as well; `trust.draw_map` draws it. Where a system draws noise, the photo
            is restored a second time for it, with another seed.
        max_megapixels: refuse larger files.

    >>> import clareo, torch
    >>> out = clareo.restore(torch.rand(3, 32, 48), upscale=2, steps=1)
    >>> out.image.size
    (96, 64)
    """
    began = time.perf_counter()
    source = as_photo(photo, max_megapixels)
    system = load_system(system, preset) if isinstance(system, str) else system
    place = choose_device(device)
    if plan is None:
        form = NAMES[choose_precision(precision, place)]
        plan = planning.choose(
            system, weights=weights, detail=detail, steps=steps, seed=seed, upscale=upscale, tile=tile, precision=form
        )
    else:
        planning.check(plan, system)
    done = _run(source.pixels, system, plan, percept, place, judged=judged or trust_map)
    if trust_map and _draws(system):
        again = replace(plan, seed=plan.seed + ANOTHER)
        other = _run(source.pixels, system, again, done.percept, place, judged=False)
        done = _apart(done, other.restored)
    before, after, trust = _judge(source.pixels, done) if judged or trust_map else (None, None, None)
    return Restoration(
        to_picture(done.restored, source),
        done.restored,
        plan,
        done.percept,
        time.perf_counter() - began,
        system.name,
        system.preset,
        before,
        after,
        None if trust is None else trust.score,
        trust.kept if trust is not None and trust_map else None,
    )


@dataclass(frozen=True)
class _Run:
    """What comes off the path."""

    restored: Image
    canvas: Image  # what was given, at the same size
    percept: Percept
    spread: torch.Tensor | None  # variance between the experts, (1, 1, h, w)


@torch.inference_mode()
def _run(
    photo: Image, system: System, plan: Plan, percept: Percept | None, place: torch.device, *, judged: bool
) -> _Run:
    height, width = photo.shape[-2] * plan.upscale, photo.shape[-1] * plan.upscale
    canvas = fit(photo, plan.upscale, system.multiple)
    percept = percept or system.perceive(canvas)

    system.network.to(place)
    with torch.autocast(place.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        branches = system.condition(canvas.to(place), percept)
        latent = _start(system, canvas, plan).to(place)
        tiles = _tiles(system, plan)
        whole = max(latent.shape[-2:]) <= tiles.side  # large photos take their experts one by one, to save memory
        times = even_times(plan.steps)
        spread = Spread(last=float(times[-2])) if judged else None
        denoiser = tiled(system.denoiser, tiles)
        denoise = guide(denoiser, branches, Guidance(plan.weights), together=whole, spread=spread)
        rng = torch.Generator().manual_seed(plan.seed + 1)
        latent = system.sampler(denoise, latent, times, system.denoiser.process, rng)
        restored = system.codec.decode(latent).float().cpu()
    rows, columns = (-(-extent // system.codec.factor) for extent in (height, width))
    apart = None if spread is None else _in_pixels(spread, latent, restored)[..., :rows, :columns]
    del latent

    canvas = canvas[..., :height, :width]
    restored = system.match_colour(restored[..., :height, :width], canvas)
    if not bool(torch.isfinite(restored).all()):
        msg = "the restored photo holds values that are not finite"
        raise RestorationError(msg)
    return _Run(restored.clamp_(0, 1), canvas, percept, apart)


def _in_pixels(spread: Spread, latent: torch.Tensor, image: Image) -> torch.Tensor:
    """Bring the variance of latents to the scale of the image: (1, 1, h, w)."""
    if spread.variance is None:
        msg = "the sampler never asked for an estimate"
        raise RestorationError(msg)
    scale = image.var() / latent.float().var().clamp_min(1e-12).cpu()
    return spread.variance.cpu().clamp_min(0) * scale


def _draws(system: System) -> bool:
    """Tell whether the noise of a seed has a say in what comes out."""
    nothing, start = torch.zeros(1), system.denoiser.process.start
    return not torch.equal(start(nothing, nothing), start(nothing, nothing + 1))


def _apart(done: _Run, other: Image) -> _Run:
    """Add to the variance between the experts that between two seeds."""
    between = disagreement([done.restored, other])
    if done.spread is not None:
        between = between + F.interpolate(done.spread, between.shape[-2:], mode="bilinear", align_corners=False)
    return replace(done, spread=between)


@torch.inference_mode()
def _judge(photo: Image, done: _Run) -> tuple[Assessment | None, Assessment | None, Trust]:
    """Score the photo before and after; photos too small for the judge get none."""
    before, after = (assess_image(image) if can_be_assessed(image) else None for image in (photo, done.restored))
    return before, after, measure_trust(done.restored, done.canvas, done.spread)


def _start(system: System, canvas: Image, plan: Plan) -> torch.Tensor:
    """Set out from the far end. The noise is one field for the whole photo, whatever the tiles."""
    degraded = system.codec.encode(canvas)
    noise = torch.randn(degraded.shape, generator=torch.Generator().manual_seed(plan.seed))
    return system.denoiser.process.start(degraded, noise)


def _tiles(system: System, plan: Plan) -> Tiles:
    factor = system.codec.factor
    multiple = max(1, system.multiple // factor)
    return Tiles(plan.tile // factor // multiple * multiple, OVERLAP // factor, multiple)
