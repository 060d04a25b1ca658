"""DaLPSR: degradation-aligned language prompts for real-world super-resolution (arXiv 2406.16477).

Perceives   tags (RAM), a caption that they steer (LLaVA), and how blurred, noisy and compressed the photo is (IRPAD).
Feeds       two texts side by side, what to undo (p_r) and what is there (p_s), and the degraded latent to a control
            branch; start and guidance are those of SeeSR.
Optimises   the error of the predicted noise, with p_r read off the record of what was done.

    paper                                here
    p_r, "Deblur with sigma 0.5~0.75"    `Percept.prompt`; `degrade.words.restoration_prompt` while training
    p_s                                  `Percept.caption`
    z_LR                                 `Condition.control`
    eps_theta(z_t, z_LR, t, p_r, p_s)    `backbones.control.ControlledUNet`
    trainable and locked copy            `copy_encoder` and the U-Net
    IRPAD                                `perceive.prompts.Irpad`
    LR with the initial noise            `DDPM.start_from_degraded`

Differs from the paper:
- z_t = sqrt(alpha-bar) z_0 + sqrt(1 - alpha-bar) eps. Algorithm 1 adds eps to an unscaled z_0, as ResShift does, which
  the schedule that Stable Diffusion was trained with does not know.
- "Fine-tune complete model" against a locked copy: the control branch learns, the U-Net with `train_unet` only.

The paper is silent on the following; what is done is ours, or SeeSR's:
- p_r has a window of 77 tokens of its own, p_s as many as it takes (three at most), joined along tokens.
- Both texts are dropped together (20 %). The negative branch says nothing as p_r and SeeSR's words as p_s.
- What is controlled enters by one 1x1 zero convolution of z_LR, as large as z_t: no edge map has to be shrunk.
- DDPM with 50 steps, guidance 5.5, "clean, high-resolution, 8k" behind every caption, AdaIN.
- Of 30 % of samples p_r is what IRPAD reads, where there is one, since that is what it will be in use.
- Photos are not enlarged to 512 px first: `upscale` decides.

Differs from the paper (nano preset):
- Process: direct iteration on unshuffled pixels, from the degraded photo, L1 on the clean one. The control branch is a
  copy of the encoder of UniRes' U-Net, which stays frozen as the prior; it also adds to the vector of time and words.
- At t < 1 training shows the system's own estimate only: from x_t and z_LR the true photo could be solved for.
- p_r says what is left to be seen of each kind (`degrade.seen`); what was drawn cannot be read off a photo.
- Tags are attributes that a formula reads off the clean photo and a small network off the degraded one; captions are
  made of them, without quality words. There is no guidance unless it is asked for: two evaluations for
  one are too dear on a CPU.

Where nobody looks (no tagger, captioner or IRPAD is named), nothing is said: p_r is empty and p_s holds the quality
words alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from clareo.backbones.wording import EXPERTS, NEGATIVE, QUALITY
from clareo.checkpoints import Checkpoint, load_preset
from clareo.system import System, filled
from clareo.systems.dalpsr.learning import Damage, draw_example, lessons, training
from clareo.systems.dalpsr.model import (
    NanoSettings,
    PaperSettings,
    build_nano,
    build_paper,
    compose_nano,
    compose_paper,
)
from clareo.systems.dalpsr.senses import Senses

__all__ = [
    "EXPERTS",
    "NEGATIVE",
    "QUALITY",
    "Damage",
    "NanoSettings",
    "PaperSettings",
    "Senses",
    "build_nano",
    "build_paper",
    "compose_nano",
    "compose_paper",
    "draw_example",
    "lessons",
    "load",
    "training",
]


def load(preset: str = "nano", **options: Any) -> System:  # noqa: ANN401 - of the settings
    """Load the embedded model, a training run, or a Stable Diffusion 2.1-base folder to start from.

    ``options`` are those of `NanoSettings` or `PaperSettings`, in place of what the checkpoint says.
    """

    def base(place: Path) -> System:
        return build_paper(PaperSettings(**{"base": str(place), **options}))[0]

    return load_preset("dalpsr", preset, partial(load_trained, **options), base)


def load_trained(checkpoint: Checkpoint, **options: Any) -> System:  # noqa: ANN401 - of the settings
    """Build what a checkpoint says it is, and fill the part that was trained; who looks may be named anew."""
    settings = {**checkpoint.settings(), **options}
    if settings.get("preset") == "paper":
        system, trained, _ = build_paper(PaperSettings(**settings))
    else:
        system, trained, _ = build_nano(NanoSettings.from_json(settings))
    return filled(system, trained, checkpoint)
