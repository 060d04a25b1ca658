"""UARE in small: two experts and one attention, on the judge's eyes, unshuffled pixels and a frozen prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clareo.backbones.mot import MoT
from clareo.backbones.mot_context import FIRST, VIEWS, Context, Layout, read
from clareo.backbones.mot_pixels import SIDE, PixelMoT
from clareo.backbones.mot_speech import Numbers, generate
from clareo.backbones.prior import Prior, check_prior, load_prior
from clareo.checkpoints import Checkpoint, check_same, entry_of, load_packaged
from clareo.colour import keep
from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.process import DirectIteration
from clareo.diffusion.renormalise import text_and_image
from clareo.diffusion.samplers import sample_ddim
from clareo.latents import PixelUnshuffle
from clareo.perceive.conversation import RESTORE, Tokens, plan_in, understood
from clareo.quality.judge import Judge, build_judge
from clareo.system import Appetite, System, filled
from clareo.systems.uare.eyes import Connector, Eyes, Seen
from clareo.systems.uare.nano_settings import NanoSettings
from clareo.systems.uare.paper import EXPERTS, EXTRAS
from clareo.types import Condition, Image, Latent, Percept

CASES = {
    **{kind: (kind, "instructed") for kind in ("blur", "noise", "jpeg", "haze", "rain", "raindrop", "lowlight")},
    "multi": ("multi", "instructed"),
    "high-order": ("high-order", "instructed"),
}
SCALE = (1.0, 5.0)  # of scores, the only numbers that are said
PRIOR = {  # kind -> what the prior calls its undoing
    "noise": "Denoise",
    "motion": "Motion-deblur",
    "defocus": "Defocus-deblur",
    "low_resolution": "Super-resolution",
    "jpeg": "Super-resolution",
}


@dataclass(frozen=True)
class Reading:
    """What the network says behind every token of its rows, and how the rows were laid out."""

    hidden: torch.Tensor  # (B, S, D)
    context: Context
    layout: Layout

    @property
    def words(self) -> slice:
        """Return where words stand."""
        return slice(self.layout.views * self.layout.view, None)


@dataclass(frozen=True)
class Model:
    """The parts by name, and what they do for both training and use."""

    backbone: PixelMoT
    eyes: Eyes
    connector: Connector
    tokens: Tokens
    settings: NanoSettings
    trained: nn.ModuleDict

    def read(self, views: Sequence[Seen], there: torch.Tensor, texts: Sequence[Sequence[int]]) -> Reading:
        """Read rows: photos that were seen, which of them are there (B, views), and numbers of words behind them."""
        embed, device = self.backbone.mot.embed, there.device
        before, after = embed(torch.tensor(self.tokens.marks, device=device)).expand(len(there), 2, -1).unbind(1)
        shown = [torch.cat([before[:, None], self.connector(seen), after[:, None]], 1) for seen in views]
        if len(views) > 1:  # every token of them says whether it shows A or B: their places differ by one only
            names = embed(torch.tensor(self.tokens.labels, device=device))
            compared = there[:, 1, None, None].to(names)
            shown = [*(tokens + compared * name for tokens, name in zip(shown, names, strict=False)), *shown[2:]]
        longest = max(len(text) for text in texts)
        filled = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=device).long()
        said = torch.tensor([[place < len(text) for place in range(longest)] for text in texts], device=device).bool()
        layout = Layout(len(views), shown[0].shape[1], longest)
        seen_at = there.repeat_interleave(layout.view, 1)
        rows = torch.cat([*shown, embed(filled.reshape(len(texts), longest))], 1)
        hidden, context = read(
            self.backbone.mot, rows, torch.cat([seen_at, said.reshape(len(texts), longest)], 1), layout
        )
        return Reading(hidden, context, layout)

    def told(self, percept: Percept) -> list[int]:
        """Return the numbers of a wish and a plan, as many as there is room for."""
        return [*self.tokens.marked(percept.prompt), *self.tokens.marked(percept.caption)][: self.settings.words]

    def unheard(self, percept: Percept) -> list[str]:
        """Return the words that do not reach the network: unknown ones, and those that there is no room for."""
        unknown = [word for text in (percept.prompt, percept.caption) for word in self.tokens.unknown(text)]
        whole = [*self.tokens.marked(percept.prompt), *self.tokens.marked(percept.caption)]
        return [*unknown, *self.tokens.decode(whole[self.settings.words :]).split()]

    def prior_text(self, percepts: Sequence[Percept]) -> torch.Tensor:
        """Tell the prior what is to be done where it has one expert for all of it, and nothing in particular else."""
        if self.backbone.prior is None:
            return torch.zeros(len(percepts), 1, 1, device=self.backbone.enter.weight.device)
        said = [prior_words(percept) if self.settings.prior_listens else "" for percept in percepts]
        text: torch.Tensor = self.backbone.prior.text(said)
        return text

    def place(self) -> torch.device:
        """Return where the network is."""
        return self.backbone.enter.weight.device

    @torch.inference_mode()
    def answer(self, photos: Sequence[Image], question: str) -> str:
        """Look at photos (1, 3, H, W), hear a question or a wish, and answer in words."""
        seen = [self.eyes(photo[:1].to(self.place())) for photo in photos]
        asked = self.tokens.marked(question)[: self.settings.words - 2] or [*self.tokens.ends]
        reading = self.read(seen, torch.ones(1, len(seen), dtype=torch.bool, device=self.place()), [asked])
        cache = reading.context.cache(FIRST + VIEWS + len(asked))
        start, end = self.tokens.ends
        most = min(self.settings.most, self.settings.words - len(asked))
        numbers = Numbers(*self.tokens.numerals, *SCALE)
        return self.tokens.decode(generate(self.backbone.mot, start, most, cache, end=end, numbers=numbers))

    def plan(self, photo: Image, wish: str) -> Percept:
        """Understand a photo in the light of a wish: what is wrong with it, and what is to be done, in words."""
        return Percept(prompt=wish, caption=self.answer([photo], wish))


def prior_words(percept: Percept) -> str:
    """Return what the prior is told.

    >>> prior_words(Percept(prompt="the photo looks grainy"))
    'Denoise'
    >>> prior_words(Percept(prompt="the photo looks grainy", caption="I see haze and noise. Plan: clear the air."))
    ''
    """
    plan = plan_in(percept.caption)
    kinds = understood(percept.prompt).treat if plan is None else plan.treat
    named = {PRIOR.get(kind, "") for kind in kinds or ()}
    return named.pop() if len(named) == 1 else ""


def build_nano(settings: NanoSettings) -> tuple[System, Model]:
    """Compose the nano preset, its trained part untrained; return it with what training needs of it."""
    check_prior(settings.prior, settings.prior_sha256)
    check_same(settings.eyes, settings.eyes_sha256, entry_of(settings.eyes).sha256)
    prior = load_prior(settings.prior) if settings.base == "prior" else None
    return compose_nano(prior, build_judge(load_packaged(settings.eyes)), settings)


def compose_nano(prior: Prior | None, judge: Judge, settings: NanoSettings) -> tuple[System, Model]:
    """Put a mixture of transformers between the judge's eyes and the prior, and wire the parts up."""
    tokens, codec = Tokens(settings.vocabulary), PixelUnshuffle(SIDE)
    backbone = PixelMoT(MoT(settings.mot.of(len(tokens))), prior, settings.window)
    eyes = Eyes(judge, settings.view)
    connector = Connector(eyes.leaving, settings.mot.width, settings.view, settings.summary)
    trained = backbone.trained()
    trained["connector"] = connector
    model = Model(backbone, eyes, connector, tokens, settings, trained)

    def condition(canvas: Image, percept: Percept) -> dict[str, Condition]:
        return branches(model, canvas, codec.encode(canvas.float()), percept)

    system = System(
        name="uare",
        preset="nano",
        codec=codec,
        denoiser=Denoiser(backbone, DirectIteration(), "clean"),
        sampler=sample_ddim,
        network=nn.ModuleDict({"backbone": backbone, "eyes": eyes, "connector": connector}),
        experts=EXPERTS,
        extras=EXTRAS,
        weights=text_and_image(settings.text_guidance, settings.image_guidance, (*EXPERTS, *EXTRAS)),
        steps=settings.steps,
        perceive=lambda canvas: model.plan(canvas, RESTORE),
        hear=model.plan,
        condition=condition,
        match_colour=keep,  # it would bring the veil of haze and the dark of the night back
        cases=CASES,
        multiple=SIDE * 2,  # the prior halves blocks of 4 px twice
        unheard=model.unheard,
        answer=model.answer,
        appetite=Appetite(result=120, tile=1100),  # what clean tokens say in every layer, with a photo and without
    )
    return system, model


def branches(model: Model, canvas: Image, latent: Latent, percept: Percept) -> dict[str, Condition]:
    """Open the doors of every branch: as told, without words, and without the photo."""
    count, device = len(canvas), canvas.device
    seen, told = [model.eyes(canvas)], [model.told(percept)] * count
    there = torch.ones(count, 1, dtype=torch.bool, device=device)
    reading, blind = (model.read(seen, each, told) for each in (there, ~there))
    wordless = torch.zeros(reading.layout.length, dtype=torch.bool, device=device)
    wordless[reading.words] = True
    known, nothing = model.backbone.remember(latent), model.backbone.remember_nothing(latent)
    contexts = (reading.context, reading.context.without(wordless), blind.context)
    texts = model.prior_text([percept] * count + [Percept()] * count).chunk(2)  # together: as many words in both
    return {
        name: Condition(concat=photo, image=context.door(), text=text)
        for name, photo, context, text in zip(
            (*EXPERTS, *EXTRAS), (known, known, nothing), contexts, (texts[0], texts[1], texts[0]), strict=True
        )
    }


def load_trained(checkpoint: Checkpoint, **options: Any) -> System:  # noqa: ANN401 - of the settings
    """Build what a checkpoint says it is, and fill the part that was trained."""
    system, model = build_nano(NanoSettings.from_json({**checkpoint.settings(), **options}))
    return filled(system, model.trained, checkpoint)
