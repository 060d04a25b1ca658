"""UARE's parts at paper scale, and how they are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from clareo.backbones.mot_backbone import UnifiedBackbone
from clareo.backbones.mot_model import Piece, Unified, words
from clareo.backbones.mot_published import Bagel, load_bagel
from clareo.backbones.mot_speech import generate
from clareo.backbones.qwen import QwenWords
from clareo.backbones.siglip import Sizes
from clareo.checkpoints import Checkpoint, find
from clareo.colour import keep
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import Flow
from clareo.diffusion.renormalise import Renormalised, text_and_image
from clareo.diffusion.samplers import sample_euler
from clareo.diffusion.shift import shifted_times
from clareo.latents import VAE
from clareo.system import System
from clareo.systems.uare.settings import ASSESSED, SOURCE, PaperSettings
from clareo.types import Condition, Image, Percept

EXPERTS = ("instructed",)
EXTRAS = ("wordless", "sightless")  # what guidance moves away from: no instruction, no photo
CASES = {
    "single": ("single", "instructed"),
    "multi": ("multi", "instructed"),
    "high-order": ("high-order", "instructed"),
}


@dataclass(frozen=True)
class Speaker:
    """Answers about photos, in words."""

    model: Unified
    words: QwenWords
    look: Sizes  # how large photos are looked at
    most: int  # tokens of an answer
    temperature: float = 0.0
    seed: int = 0

    def __call__(self, photos: Sequence[Image], question: str) -> str:
        """Look at photos (1, 3, H, W), in this order, hear the question, and say something."""
        return self.say([*(self.view(photo, self.look) for photo in photos), self.heard(question)])

    def heard(self, text: str) -> Piece:
        """Turn a text into a piece of a sample."""
        return words(self.model.marks.around(self.words.ids(text)))

    def view(self, photo: Image, look: Sizes) -> Piece:
        """Look at a photo (1, 3, H, W) in a size that the model takes."""
        photo = photo.to(self.model.mot.embed.weight.device)
        return Piece("view", replace(look, stride=self.model.stride).view(photo)[0])

    @torch.inference_mode()
    def say(self, told: Sequence[Piece]) -> str:
        """Continue a sample in words."""
        return self.words.text(
            generate(
                self.model.mot,
                self.model.marks.start,
                self.most,
                self.model.remember([told]),
                end=self.model.marks.end,
                temperature=self.temperature,
                rng=torch.Generator().manual_seed(self.seed),
            )
        )


def build_paper(
    settings: PaperSettings, *, learning: bool = False, trained: Checkpoint | None = None
) -> tuple[System, Bagel]:
    """Compose the paper preset from BAGEL's folder; return it with its parts. To learn it is held in fp32.

    ``trained`` weights go in the place of the folder's.
    """
    parts = load_bagel(find(settings.base), as_stored=not learning, trained=trained)
    return compose_paper(parts, settings), parts


def compose_paper(parts: Bagel, settings: PaperSettings) -> System:
    """Wire the parts up."""
    model, codec = parts.model, VAE(parts.vae)
    speaker = Speaker(model, parts.words, ASSESSED, settings.most_words, settings.temperature)
    names = (*EXPERTS, *EXTRAS)

    @torch.inference_mode()
    def hear(canvas: Image, instruction: str) -> Percept:
        """Take an instruction; where it is wished, say first what is wrong and what is to be done about it."""
        if not settings.analyse:
            return Percept(prompt=instruction)
        place = model.mot.embed.weight.device
        clean = Piece("clean", codec.encode(canvas[:1].float().to(place))[0])
        said = speaker.say([clean, speaker.view(canvas[:1], SOURCE), speaker.heard(instruction)])
        return Percept(caption=said, prompt=instruction)

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        texts = (percept.prompt or settings.instruction, percept.caption)  # the analysis is told behind the instruction
        ids = [number for text in texts for number in model.marks.around(parts.words.ids(text))]
        text = torch.tensor([ids], device=canvas.device).expand(len(canvas), -1)
        clean = codec.encode(canvas.float())
        seen = (Condition(control=clean, pixels=canvas, text=text), Condition(control=clean, pixels=canvas))
        return dict(zip(names, (*seen, Condition(text=text)), strict=True))

    return System(
        name="uare",
        preset=settings.preset,
        codec=codec,
        denoiser=Denoiser(UnifiedBackbone(model, replace(SOURCE, stride=model.stride)), Flow(), "slope"),
        sampler=sample_euler,
        network=nn.ModuleDict({"model": model, "vae": parts.vae}),
        experts=EXPERTS,
        extras=EXTRAS,
        weights=text_and_image(settings.text_guidance, settings.image_guidance, names),
        steps=settings.steps,
        perceive=lambda canvas: hear(canvas, settings.instruction),
        hear=hear,
        condition=condition,
        match_colour=keep,  # it would bring the veil of haze and the dark of the night back
        cases=CASES,
        multiple=codec.factor * model.ends.patch,
        unheard=lambda _: (),  # its tokenizer spells what it does not know
        times=partial(shifted_times, shift=settings.shift),
        guide=Renormalised(
            names[0], names[1], settings.renormalise, model.ends.patch, active=(settings.guided_above, 1.0)
        ),
        answer=speaker,
    )
