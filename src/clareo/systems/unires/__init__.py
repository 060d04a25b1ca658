"""UniRes: universal image restoration for complex degradations (arXiv 2506.05599).

Perceives   nothing: no caption, no tag. The photo is its own condition.
Feeds       a task prompt per expert, and what the expert sees of the photo.
Optimises   the error of the clean estimate over four isolated tasks; never over mixtures.

    paper                               here
    s_k, the K = 6 task prompts         PROMPTS
    z_DownLQ                            the view of the `detail` expert
    sum_k w_k eps_k, sum_k w_k = 1      `diffusion.guidance`
    p(SR, MD, DD, DN)                   TaskMix
    AdaIN                               `colour.adain`

Differs from the paper (nano preset):
- Process: direct iteration. The far end is the degraded photo, not noise, and the network sees x_t only; so nothing is
  concatenated, there is no image dropout, and DownLQ is a shrunken view of x_t. At 8 M parameters diffusion from noise
  stays grainy, and one evaluation from the degraded photo is the best single guess.
- The SR task adds single-pass shrinking and plain JPEG to Real-ESRGAN's second order; a quarter of all samples are
  (nearly) clean, under every prompt, so that what is sound is left alone.
- Loss (nano): L1 on the clean image; and the blur that the backbone read, against the one that was applied.
- The recipe (nano) shifts the task mix in later stages: blur, which is read off spectra, is learned long before noise.
- AdaIN takes its statistics from block means, so that noise does not come back as contrast.
- The network and its words are ours, trained from scratch.
"""

from __future__ import annotations

from pathlib import Path

from clareo.checkpoints import Checkpoint, load_preset
from clareo.system import System, filled
from clareo.systems.unires.learning import TaskMix, draw_example, lessons, training
from clareo.systems.unires.model import (
    EXPERTS,
    NEGATIVE,
    POSITIVE,
    PROMPTS,
    NanoSettings,
    PaperSettings,
    build_nano,
    build_paper,
    compose_paper,
)

__all__ = [
    "EXPERTS",
    "NEGATIVE",
    "POSITIVE",
    "PROMPTS",
    "NanoSettings",
    "PaperSettings",
    "TaskMix",
    "build_nano",
    "build_paper",
    "compose_paper",
    "draw_example",
    "lessons",
    "load",
    "training",
]


def load(preset: str = "nano") -> System:
    """Load the embedded model, a training run, or a Stable Diffusion folder to start from."""

    def base(place: Path) -> System:
        return build_paper(PaperSettings(base=str(place)))[0]

    return load_preset("unires", preset, load_trained, base)


def load_trained(checkpoint: Checkpoint) -> System:
    """Build the preset that a checkpoint says it is, and fill it."""
    settings = checkpoint.settings()
    if settings.get("preset") == "paper":
        system, trained = build_paper(PaperSettings(**settings))
    else:
        system = build_nano(NanoSettings.from_json(settings))
        trained = system.network
    return filled(system, trained, checkpoint)
