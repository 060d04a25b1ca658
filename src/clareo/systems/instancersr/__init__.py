"""InstanceRSR: real-world super-resolution via instance-aware representation alignment (Guo, Zhao, Zhang).

Perceives   nothing; it hears no words.
Feeds       a noised photo and a noised map of its instances, side by side, to a diffusion transformer; the degraded
            photo to a copy of its first blocks.
Optimises   the error of the predicted noise over both halves, how well tokens agree with a frozen teacher that sees
            the clean photo, and the norm of the tokens of each instance.

    paper                                  here
    y, z_y                                 `Condition.control`
    m, painted                             `perceive.instances.paint`
    z = [z_x ; z_m]                        `latents.JointLatent`
    DiT, input and output doubled          `backbones.dit`, `backbones.dit_published.widened`
    ControlNet, zero-initialised blocks    `backbones.dit_control.TransformerControl`
    f, with what control adds              `ControlledDiT.layer`, heard by `backbones.features.recorded`
    d = DINOv2(x)                          `perceive.teacher`
    MLP_phi                                `learning.projector`
    L_denoise (eq. 4)                      `diffusion.training.noise_error`
    L_REPA (eq. 5), L_IS (eq. 6)           `losses.alignment`, `losses.instance_scale`
    L_denoise + 0.5 L_REPA + 0.1 L_IS      `learning.training`

Differs from the paper:
- Targets of L_IS are compared with |f| / sqrt(D), and lie in [0.5, 1.5]. Drawn afresh every time (`scales = "random"`,
  the paper's words) no input can tell them: what is learned is one norm for all. "fixed" and "area" tie them to the
  instance.
- Photos are not enlarged to 512 px first: `upscale` decides, and larger photos go through in tiles.

The paper is silent on the following; what is done is ours:
- Control is PixArt-delta's: copies of the first 14 blocks, c_0 = x + Zero(Patches(z_y)), a zero layer behind each.
- The null class at all times. No learned variance: eight channels leave, of which four predict the noise of the map.
- New columns of the patch embedding and new rows of the last layer start as zero: of the photo, the widened network
  first predicts what the published one predicts. diffusers' layout has the frequencies of the time as
  10000^(-i / 127), where the published code divides by 128; what is loaded from there goes on with theirs.
- The projector is REPA's (three layers, 2048 wide, SiLU); it is trained, and not exported.
- Tokens are compared behind block 10, with what control has added. Both losses weigh all times alike.
- The control branch sees nothing in 10 % of samples, which permits guidance; there is none unless it is asked for.
- DDIM with 10 steps, eta 0, from pure noise; `start_from_degraded` noises the degraded latent instead. No colours are
  matched.

Differs from the paper (nano preset):
- The paper starts from a DiT that was pretrained on a million photos. What is pretrained here is the U-Net that nano
  presets share: frozen, it makes a first picture of x_t, and the transformer, which begins from nothing, sees that
  and adds to it. `prior=""` leaves it out: then the transformer restores alone, and needs far more training.
- Pixels unshuffled by 4 in the place of the VAE; 8 blocks of 192, 4 of them copied, tokens of 8 x 8 px. What enters is
  a cosine transform of blocks, small frequencies scaled up; what leaves is added to what is given, so that an untrained
  network returns what the prior says. A last convolution looks across the borders of tokens.
- Attention stays in windows of 16 x 16 tokens, every other time shifted by half: to all 4,096 tokens of 512 px it took
  ten times as long on a CPU, and crops of 128 px are trained with as many tokens as are seen in use.
- Direct iteration from the degraded photo and a grey map, L1 on the clean photo, MSE on its map, one step. The control
  branch sees the degraded photo as well, from which the clean one could be solved for; so x_t always holds the
  network's own estimate.
- Of L_denoise the photo's half weighs 50 and the map's 10. Errors of pixels are a small part of those of noise, and
  corrections of photos a twentieth of those of a map; with equal weights tokens learned nothing about the photo.
- Crops are placed anywhere among the positions of 512 px while training. So tokens are also told where they lie
  between the edges of what is seen: a map's colours are about its middle.
- Instances are drawn scenes' own, or what a classical segmenter finds; the teacher is a compact network of ours.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from clareo.checkpoints import Checkpoint, load_preset, ready
from clareo.system import System, filled
from clareo.systems.instancersr.exam import EXAM
from clareo.systems.instancersr.learning import Damage, draw_example, lessons, training
from clareo.systems.instancersr.model import build_paper, compose_paper
from clareo.systems.instancersr.nano import build_nano
from clareo.systems.instancersr.settings import NanoSettings, PaperSettings

__all__ = [
    "EXAM",
    "Damage",
    "NanoSettings",
    "PaperSettings",
    "build_nano",
    "build_paper",
    "compose_paper",
    "draw_example",
    "lessons",
    "load",
    "training",
]


def load(preset: str = "nano", **options: Any) -> System:  # noqa: ANN401 - of the settings
    """Load the embedded model, a training run, or a DiT folder to start from, whose control says nothing yet.

    ``options`` are those of `NanoSettings` or `PaperSettings`, in place of what the checkpoint says.
    """

    def base(place: Path) -> System:
        system, _ = build_paper(PaperSettings.from_json({"base": str(place), **options}))
        ready(system.network)
        return system

    return load_preset("instancersr", preset, partial(load_trained, **options), base, "transformer")


def load_trained(checkpoint: Checkpoint, **options: Any) -> System:  # noqa: ANN401 - of the settings
    """Build what a checkpoint says it is, and fill the part that was trained."""
    settings = {**checkpoint.settings(), **options}
    if settings.get("preset") == "paper":
        system, model = build_paper(PaperSettings.from_json(settings))
    else:
        system, model = build_nano(NanoSettings.from_json(settings))
    return filled(system, model.trained, checkpoint)
