"""The path of a photo, from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from clareo import guards, planning
from clareo.devices import NAMES, DeviceName, Precision, choose_device, choose_precision
from clareo.diffusion.guidance import Spread
from clareo.errors import NotFiniteError, RestorationError, UsageError
from clareo.io import MAX_MEGAPIXELS, as_photo, to_picture
from clareo.latents import fit
from clareo.quality.report import assess_image, can_be_assessed
from clareo.streaming import Stream
from clareo.system import System, load_system
from clareo.trust import disagreement, measure_trust, trust_score
from clareo.types import KEEP, Assessment, Image, Percept, Plan, Restoration
from clareo.walk import draws_noise, shown_beside, walk

ANOTHER = 1_000_003  # how far the seed lies away that a trust map compares with


def restore(  # noqa: PLR0913 - keyword-only, one per thing a user may decide
    photo: Any,  # noqa: ANN401 - path, Pillow image, array or tensor
    *,
    system: str | System = "unires",
    preset: str = "nano",
    upscale: int = 1,
    weights: Mapping[str, float] | str = planning.AUTO,
    detail: float | None = None,
    ask: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    tile: int = planning.TILE,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    percept: Percept | None = None,
    caption: str | None = None,
    prompt: str | None = None,
    plan: Plan | None = None,
    judged: bool = True,
    trust_map: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    streamed: bool = False,
) -> Restoration:
    """Restore one photo.

    Args:
        photo: a path, a Pillow image, an array (H, W, 3) or a float tensor (3, H, W) in [0, 1].
        system: a name from `list_systems`, or a system from `load_system` for many photos.
        preset: "nano", or a folder or hub name with weights.
        upscale: 1 to 4.
        weights: "auto" looks at the photo to find how much each expert counts, "fast" tries a shortlist, "predict"
            guesses, "fixed" takes the system's usual blend; or a blend that sums to 1.
        detail: 0 leaves the blend alone, 1 brings out all the detail there is.
        ask: a wish in words, like "remove the noise, keep the grain", which moves the weights; or, where the system
            itself hears wishes, decides what it plans.
        steps: denoising steps; one is the most faithful, more are crisper.
        seed: of all noise.
        tile: photo pixels along a tile.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "fp32" or "bf16".
        percept: what the photo shows and what is wrong with it, in place of what the system perceives.
        caption: the first in sentences, likewise; a system that hears no words says so.
        prompt: the second, like "Denoise with sigma 0.5~0.75", likewise.
        plan: an earlier plan to repeat, in place of everything above but the words.
        judged: score the photo before and after, and how far the result can be trusted.
        trust_map: keep the trust per pixel as well; `trust.draw_map` draws it. Where a system draws noise, the photo
            is restored a second time for it, with another seed.
        max_megapixels: refuse larger files.
        streamed: walk every tile on its own, which takes a third of the memory of a large photo. The result of a photo
            with 8 bits is then held in half precision.

    >>> import clareo, torch
    >>> out = clareo.restore(torch.rand(3, 32, 48), upscale=2, steps=1)
    >>> out.image.size
    (96, 64)
    """
    began = time.perf_counter()
    source = as_photo(photo, max_megapixels)
    system = load_system(system, preset) if isinstance(system, str) else system
    place = choose_device(device)
    wishes = None if ask is None or system.hear is not None else planning.understand(ask)
    way = planning.way_of(weights)
    if plan is None:
        form, blend = NAMES[choose_precision(precision, place)], None if isinstance(weights, str) else weights
        sketch = planning.complete(
            system,
            weights=blend,
            steps=steps,
            seed=seed,
            upscale=upscale,
            tile=tile,
            precision=form,
            streamed=streamed,
        )
    else:
        sketch = planning.check(plan, system)
    canvas = fit(source.pixels, sketch.upscale, 1 if sketch.streamed else system.multiple)
    seen = _on_the_grid(canvas, system.multiple)
    percept = _understood(system, seen, percept, caption, prompt if ask is None or system.hear is None else ask)
    size = (source.pixels.shape[-2] * sketch.upscale, source.pixels.shape[-1] * sketch.upscale)

    def carry_out(sketch: Plan) -> tuple[Plan, _Run]:
        chosen = plan or planning.choose(system, sketch, seen, percept, place, way=way, detail=detail, wishes=wishes)
        if chosen.streamed:
            return chosen, _streamed(system, canvas, source.bits, chosen, percept, place)
        done = _run(system, canvas, size, chosen, percept, place, judged=judged or trust_map)
        if trust_map and draws_noise(system):
            again = replace(chosen, seed=chosen.seed + ANOTHER)
            done = _apart(done, _run(system, canvas, size, again, percept, place, judged=False).restored)
        return chosen, done

    plan, done, told = guards.twice(carry_out, sketch, max(size), repeated=plan is not None)
    said = _judge(source.pixels, done, mapped=trust_map) if judged or trust_map else _Said()
    found = guards.look_over(done.restored, done.canvas, guards.borders(system, plan, size), system)
    return Restoration(
        partial(to_picture, done.restored, replace(source, pixels=source.pixels[..., :1, :1].clone())),
        done.restored,
        plan,
        percept,
        time.perf_counter() - began,
        system.name,
        system.preset,
        said.before,
        said.after,
        said.trust,
        said.kept,
        done.byproducts,
        (*told, *found, *guards.doubts(said.trust)),
    )


def _understood(
    system: System, canvas: Image, percept: Percept | None, caption: str | None, prompt: str | None
) -> Percept:
    """Look at the photo, and put the caller's words in the place of those that were perceived."""
    said = {name: text for name, text in (("caption", caption), ("prompt", prompt)) if text is not None}
    if said and system.unheard is None:
        msg = f"{system.name} hears no words; leave the {' and the '.join(said)} out, or take a system that does"
        raise UsageError(msg)
    if percept is None:  # who says everything has nothing to ask
        percept = Percept() if caption is not None and prompt is not None else _perceived(system, canvas, prompt)
    return replace(percept, caption=said.get("caption", percept.caption), prompt=said.get("prompt", percept.prompt))


def _perceived(system: System, canvas: Image, prompt: str | None) -> Percept:
    """Let the system look at the photo, in the light of what is wished where it hears wishes."""
    return system.perceive(canvas) if prompt is None or system.hear is None else system.hear(canvas, prompt)


@dataclass(frozen=True)
class _Run:
    """What comes off the path."""

    restored: Image
    canvas: Image  # what was given, at the same size
    spread: torch.Tensor | None  # variance between the experts, (1, 1, h, w)
    byproducts: Mapping[str, Image] = field(default_factory=dict)  # what the latent shows beside the photo


@torch.inference_mode()
def _run(
    system: System,
    canvas: Image,
    size: tuple[int, int],
    plan: Plan,
    percept: Percept,
    place: torch.device,
    *,
    judged: bool,
) -> _Run:
    height, width = size
    if all(name == KEEP for name, weight in plan.weights.items() if weight):  # no codec may touch it
        kept = canvas[..., :height, :width].float()
        return _Run(kept.clone(), kept, None)
    spread = Spread() if judged else None
    latent = walk(system, canvas, plan, percept, place, spread)
    restored = system.codec.decode(latent).float().cpu()
    rows, columns = (-(-extent // system.codec.factor) for extent in size)
    apart = None if spread is None else _in_pixels(spread, latent, restored)[..., :rows, :columns]
    beside = shown_beside(system, latent, size)
    del latent

    canvas = canvas[..., :height, :width]
    restored = system.match_colour(restored[..., :height, :width], canvas)
    if not bool(torch.isfinite(restored).all()):
        msg = "the restored photo holds values that are not finite"
        raise NotFiniteError(msg)
    return _Run(restored.clamp_(0, 1), canvas, apart, beside)


def _on_the_grid(canvas: Image, multiple: int) -> Image:
    """Return what of a canvas the system can take as it is: all of it, but for a streamed one, which is not padded."""
    height, width = (extent // multiple * multiple for extent in canvas.shape[-2:])
    return canvas[..., :height, :width] if height and width else fit(canvas, 1, multiple)


def _streamed(system: System, canvas: Image, bits: int, plan: Plan, percept: Percept, place: torch.device) -> _Run:
    if draws_noise(system):
        msg = f"{system.name} draws noise for the whole photo, which tiles on their own would not share"
        raise UsageError(msg)
    if all(name == KEEP for name, weight in plan.weights.items() if weight):
        return _Run(canvas, canvas, None)
    stream = Stream(system, canvas, plan, torch.float16 if bits == 8 else torch.float32)
    stream.run(percept, place)
    return _Run(stream.restored, canvas, stream.spread)


def _in_pixels(spread: Spread, latent: torch.Tensor, image: Image) -> torch.Tensor:
    """Bring the variance of latents to the scale of the image: (1, 1, h, w)."""
    if spread.variance is None:
        msg = "the sampler never asked for an estimate"
        raise RestorationError(msg)
    scale = image.var() / latent.float().var().clamp_min(1e-12).cpu()
    return spread.variance.cpu().clamp_min(0) * scale


def _apart(done: _Run, other: Image) -> _Run:
    """Add to the variance between the experts that between two seeds."""
    between = disagreement([done.restored, other])
    if done.spread is not None:
        between = between + F.interpolate(done.spread, between.shape[-2:], mode="bilinear", align_corners=False)
    return replace(done, spread=between)


@dataclass(frozen=True)
class _Said:
    """What was said of a result; nothing where nobody judged."""

    before: Assessment | None = None
    after: Assessment | None = None
    trust: float | None = None
    kept: torch.Tensor | None = None


@torch.inference_mode()
def _judge(photo: Image, done: _Run, *, mapped: bool) -> _Said:
    """Score the photo before and after; photos too small for the judge get none."""
    before, after = (assess_image(image) if can_be_assessed(image) else None for image in (photo, done.restored))
    given = (done.restored, done.canvas, done.spread)
    if not mapped:
        return _Said(before, after, trust_score(*given))
    trust = measure_trust(*given)
    return _Said(before, after, trust.score, trust.kept)
