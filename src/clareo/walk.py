"""One walk from a degraded photo to a restored latent: `restore` takes it once, a search many times in miniature."""

from __future__ import annotations

import torch

from clareo.diffusion.guidance import Guidance, Spread, guide
from clareo.diffusion.samplers import even_times
from clareo.diffusion.tiling import Tiles, tiled
from clareo.system import System
from clareo.types import KEEP, Condition, Image, Latent, Percept, Plan

OVERLAP = 64  # photo pixels that neighbouring tiles share


@torch.inference_mode()
def walk(
    system: System,
    canvas: Image,
    plan: Plan,
    percept: Percept,
    place: torch.device,
    spread: Spread | None = None,
    *,
    sparing: bool = False,
) -> Latent:
    """Denoise a canvas, (B, 3, H, W) with sides that the system can take, step by step under the plan's blend.

    ``spread`` is told how far the experts lie apart in the last step. ``sparing`` takes the experts one by one also
    where the canvas fits into one tile.
    """
    system.network.to(place)
    with torch.autocast(place.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        branches = system.condition(canvas.to(place), percept)
        own = system.codec.encode(canvas.to(place))
        latent = _start(system, own, plan)
        if KEEP in plan.weights:
            branches[KEEP] = Condition(known=own)
        del own
        tiles = tiles_of(system, plan)
        whole = max(latent.shape[-2:]) <= tiles.side  # large photos take their experts one by one, to save memory
        times = (system.times or even_times)(plan.steps)
        if spread is not None:
            spread.last = float(times[-2])
        together = whole and not sparing
        denoise = (system.guide or guide)(
            tiled(system.denoiser, tiles), branches, Guidance(plan.weights), together=together, spread=spread
        )
        rng = torch.Generator().manual_seed(plan.seed + 1)
        return system.sampler(denoise, latent, times, system.denoiser.process, rng)


def _start(system: System, own: Latent, plan: Plan) -> Latent:
    """Set out from the far end. The noise is one field for the whole photo, whatever the tiles."""
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(plan.seed))
    return system.denoiser.process.start(own, noise.to(own))


@torch.inference_mode()
def shown_beside(system: System, latent: Latent, size: tuple[int, int]) -> dict[str, Image]:
    """Return what a restored latent shows beside the photo, at its size: a map, say; most systems show nothing."""
    shown = {} if system.byproducts is None else system.byproducts(latent)
    return {name: image.float().cpu()[..., : size[0], : size[1]].clamp(0, 1) for name, image in shown.items()}


def draws_noise(system: System) -> bool:
    """Tell whether the noise of a seed has a say in what comes out."""
    nothing, start = torch.zeros(1), system.denoiser.process.start
    return not torch.equal(start(nothing, nothing), start(nothing, nothing + 1))


def tiles_of(system: System, plan: Plan) -> Tiles:
    """Return the tiles of a plan, in latent pixels."""
    factor = system.codec.factor
    multiple = max(1, system.multiple // factor)
    return Tiles(plan.tile // factor // multiple * multiple, OVERLAP // factor, multiple)
