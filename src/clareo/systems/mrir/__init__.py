"""MRIR: multimodal insights for diffusion-based realistic image restoration.

Perceives   a caption of the photo as it would be without its damage (LLaVA), and what CLIP sees of the damaged one.
Feeds       caption, refined image tokens and pixels, each through a door of its own, to a U-Net that stays frozen.
Optimises   the error of the predicted noise, and small pictures that the pixels' network draws on its way.

    paper                                  here
    T_text, the caption in passes of 75    `Condition.text`; `ClipWords.chunked`
    T_image = Refine(CLIP(I_LQ))           `Condition.image`; `backbones.attention.Refine`
    I_LQ                                   `Condition.control`, in [0, 1]
    PLP, I_1/2, I_1/4, I_1/8               `backbones.pixels.PixelProcessor`
    {P_i}                                  `ControlledUNet.residuals`
    image cross-attention                  `backbones.attention.attach_image`
    pixel attention                        `backbones.pixels.attach_pixels`
    L_RGB, L_FFT                           `losses.pictures_l1`, `losses.pictures_fft`
    L_diff + 0.1 L_RGB + 0.01 L_FFT        `learning.training`
    LRE                                    `DDPM.start_from_degraded`

Differs from the paper:
- PLP has PASD's seven convolutions and three heads. "Four layers" cannot halve three times, stay at full size once, and
  leave through another.
- Refine learns as well; the paper's list of what learns leaves it out, and it would stay what it was drawn as.
- Residuals are added to the skips besides being attended to, as in PASD (`additive_control`). The paper speaks of
  attention in the place of addition, but its row without any attention would then see no pixels at all.

The paper is silent on the following; what is done is ours, or SeeSR's:
- CLIP is ViT-L/14 at 224 px, all 257 tokens of the last hidden state. Image attention is a sub-layer of its own with an
  output that starts as nothing; `image_attention = "decoupled"` is IP-Adapter's second pair of keys and values.
- Pixel attention is a whole transformer per skip, as in PASD, also in the block that hears no words.
- The control branch sees pixels and hears words; it has no image attention, being a copy of what was there before.
- Losses are means; the FFT is unnormalised, over real and imaginary parts, in fp32; targets are in [-1, 1].
- The caption is dropped in 20 % of samples and the image in 10 %, regardless of each other. A dropped image is what
  CLIP says of zeros, through Refine.
- DDPM with 50 steps, guidance 5.5 with SeeSR's words; the negative branch keeps pixels and image. AdaIN.
- Photos are not enlarged to 512 px first: `upscale` decides. LLaVA's view of small ones is enlarged.

Differs from the paper (nano preset):
- The frozen model is UniRes' U-Net on unshuffled pixels, which restores and makes nothing up; direct iteration from the
  degraded photo, L1 on the clean one, no fresh noise. A walk from pure noise (`start_from_degraded`) is rectified flow.
- It has no attention of its own. All of it is new, and learns: behind the coarsest level self, image, words; behind
  each level of the decoder image, words, pixels (`backbones.doors`), pixels within windows of 8 x 8 features.
- The processor halves twice, and draws a picture at full size as well. The branch hears no words.
- Pixel attention reads the branch's features before the zero convolutions: behind them, with an output that starts as
  nothing, neither would ever learn.
- The image tokens are those of the compact tagger's encoder, which sees a view of 128 px. Captions are made of its
  tags, without quality words; while training half of them are what a formula says of the clean photo. The words have
  an encoder of their own, which learns.
- There is no guidance unless it is asked for: two evaluations for one are too dear on a CPU.

Where nobody is asked for a caption, nothing is said: the text is the quality words alone, at nano scale empty. What is
wrong with a photo is seen, not heard: a restoration prompt does not reach MRIR.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from clareo.checkpoints import Checkpoint, load_preset
from clareo.system import System, filled
from clareo.systems.mrir.learning import Damage, draw_example, lessons, training
from clareo.systems.mrir.model import build_paper, compose_paper
from clareo.systems.mrir.nano import build_nano, compose_nano
from clareo.systems.mrir.probes import PROBES
from clareo.systems.mrir.settings import WITHOUT_DAMAGE, NanoSettings, PaperSettings

__all__ = [
    "PROBES",
    "WITHOUT_DAMAGE",
    "Damage",
    "NanoSettings",
    "PaperSettings",
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
    """Load the embedded model, a training run, or a Stable Diffusion 1.5 folder to start from.

    ``options`` are those of `NanoSettings` or `PaperSettings`, in place of what the checkpoint says.
    """

    def base(place: Path) -> System:
        return build_paper(PaperSettings.from_json({"base": str(place), **options}))[0]

    return load_preset("mrir", preset, partial(load_trained, **options), base)


def load_trained(checkpoint: Checkpoint, **options: Any) -> System:  # noqa: ANN401 - of the settings
    """Build what a checkpoint says it is, and fill the part that was trained; who looks may be named anew."""
    settings = {**checkpoint.settings(), **options}
    if settings.get("preset") == "paper":
        system, trained, _ = build_paper(PaperSettings.from_json(settings))
    else:
        system, trained, _ = build_nano(NanoSettings.from_json(settings))
    return filled(system, trained, checkpoint)
