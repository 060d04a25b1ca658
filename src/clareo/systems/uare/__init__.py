"""UARE: a unified vision-language model for image quality assessment, restoration and enhancement.

Perceives   what it says itself of the photo, where it is asked to: an analysis and a plan, which can be edited.
Feeds       one sequence of words, of views of photos and of latents, clean and noised, to two experts with one
            attention; who only wants words gets words, who wants a photo gets a photo.
Optimises   the cross entropy of answers, and the error of the velocity of noised latents.

Three uses: `System.answer(photos, question)` describes, scores and compares; `restore(..., prompt=...)` does what it is
told; with `analyse` it first says what it sees and plans to do (`Percept.caption`), and then does that.

    paper                                  here
    understanding and generation expert    `backbones.mot.Layer.understand`, `.generate`
    who sees whom, positions               `backbones.mot_packing`
    view of a photo (SigLIP)               `backbones.siglip`, `Condition.pixels`
    clean and noised latents (FLUX)        `backbones.mot_ends`, `Condition.control`
    instruction, analysis                  `Condition.text`; `Percept.prompt`, `Percept.caption`
    v = eps - x_0, x_t = (1 - t) x_0 + t eps   `Denoiser(predicts="slope")`, `process.Flow`
    t = sigma(u), t <- s t / (1 + (s - 1) t)   `diffusion.shift`
    0.25 CE + MSE                          `paper_learning.unified_loss`
    single, multi, high-order, unified     the stages of `recipes/uare-paper.toml`

Only the paper's supplement can be read, and its weights are not published. That UARE builds on a unified model is said;
that this is BAGEL (arXiv 2505.14683) is inferred from equal numbers in both recipes: optimiser, sizes of images, shift
of times, weights of losses. All that is said here of the network is BAGEL's.

Differs from the paper:
- Photos are not brought to 512 to 1024 px first: `upscale` decides, and larger photos go through in tiles.
- Batches have so many samples; the paper's are filled up to a number of tokens.
- Comparisons name the scores of both photos before they come to a conclusion. At nano scale a score is the mean of what
  might be said, and not the likeliest digits one by one (`backbones.mot_speech.expected`).
- Where CE is counted it is counted with 0.25 in all stages; in the first three there is nothing to say.

The paper is silent on the following; what is done is ours, or BAGEL's:
- A source comes as clean latent, view, instruction, in this order, and loses them in 0.3, 0.3 and 0.1 of samples.
- 49 steps of Euler's method with the shift of training, from pure noise; no colours are matched: that would bring haze
  and darkness back. No guidance unless it is asked for; BAGEL's taste is `text_guidance = 4`, `image_guidance = 1.5`,
  renormalised, above t = 0.4.
- Answers are the likeliest words, 1,000 tokens at most. Views are 378 to 980 px to assess and 224 to 518 to restore.
- What photos are damaged with, and what is said of them, is `degrade.recipes` and `perceive.conversation`; scores of
  answers are `quality.blend`'s. Two photos that are compared come before the one that they were made of.
- All learns but the autoencoder.

Differs from the paper (nano preset):
- Process: direct iteration on unshuffled pixels, from the degraded photo. In the place of the error of a velocity
  stands the absolute one of estimates at t = 1 and on the system's own walk, in parts of the input's; no logit-normal
  times.
- What is said of a token is added to what UniRes' frozen U-Net makes of the photo (`backbones.mot_pixels`): a
  correction, a curve of colours, and how much of the U-Net's own change is taken back. The U-Net is told what is to be
  done where it has one expert for all of it. `base = "photo"` leaves it out.
- The view is that of the frozen judge's trunk, on a small grid; a connector learns. The judge's own answers are not
  asked.
- Views and words do not see the clean latent, and it does not see them: both are read once, whatever the tiles. Noised
  tokens have a fixed position behind all words. Tokens of photos see their window, of 16 x 16 tokens of 8 px, which is
  shifted by half in every other layer; photos have no marks around them. A photo that is dropped is grey.
- Words have a closed vocabulary (`perceive.conversation`), and start and end with the same marks wherever they stand.
- A wish that names some of what is wrong is learned from photos on which the rest was done again. Some plans are a
  person's: obeyed, and not learned to be said.
- The gist of what was seen and said, the mean of its hidden states, is added to every token of the photo: hundreds of
  tokens attend to one another, and the few that know that all is dark would hardly be heard. And it draws a curve for
  the whole photo, which is most of what there is to do about light and haze.
- One step where nobody asks for more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from clareo.checkpoints import Checkpoint, load_preset, ready
from clareo.system import Lessons, System, Training
from clareo.systems.uare import nano
from clareo.systems.uare.learning import nano_training
from clareo.systems.uare.lessons import nano_lessons
from clareo.systems.uare.nano import build_nano
from clareo.systems.uare.nano_settings import NanoSettings
from clareo.systems.uare.paper import build_paper, compose_paper
from clareo.systems.uare.paper_learning import paper_training, unified_loss
from clareo.systems.uare.settings import PaperSettings
from clareo.systems.uare.telling import Telling

__all__ = [
    "NanoSettings",
    "PaperSettings",
    "Telling",
    "build_nano",
    "build_paper",
    "compose_paper",
    "lessons",
    "load",
    "training",
    "unified_loss",
]


def load(preset: str = "nano", **options: Any) -> System:  # noqa: ANN401 - of the settings
    """Load the embedded model, a training run, or a BAGEL folder to start from.

    ``options`` are those of `NanoSettings` or `PaperSettings`, in place of what the checkpoint says.
    """

    def base(place: Path) -> System:
        system, _ = build_paper(PaperSettings.from_json({"base": str(place), **options}))
        ready(system.network)
        return system

    return load_preset("uare", preset, partial(load_trained, **options), base, "llm_config.json")


def load_trained(checkpoint: Checkpoint, **options: Any) -> System:  # noqa: ANN401 - of the settings
    """Build what a checkpoint says it is, and fill the part that was trained."""
    settings = {**checkpoint.settings(), **options}
    if settings.get("preset") != "paper":
        return nano.load_trained(checkpoint, **options)
    tensors = {name.removeprefix("model."): tensor for name, tensor in checkpoint.tensors.items()}
    system, _ = build_paper(PaperSettings.from_json(settings), trained=replace(checkpoint, tensors=tensors))
    ready(system.network)
    return replace(system, fingerprint=checkpoint.sha256)


def training(options: Mapping[str, Any]) -> Training:
    """Build a preset untrained, with its loss."""
    return paper_training(options) if options.get("preset") == "paper" else nano_training(options)


def lessons(options: Mapping[str, Any]) -> Lessons:
    """Say what a sample is drawn from, at both scales; stages change the shares."""
    return nano_lessons(options)
