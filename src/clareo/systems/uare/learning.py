"""How UARE learns at nano scale: to say what is wrong, and to make of a photo what is wished.

    L = 0.25 CE + 1.0 L_restore

CE is the mean over the words of answers, L_restore that over photos that are to be restored, in the place of the error
of a velocity: the absolute error of estimates on the system's own walk, in parts of the input's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from clareo.backbones.dit import Grid
from clareo.checkpoints import entry_of
from clareo.diffusion import losses
from clareo.diffusion.training import estimate_on_walk
from clareo.errors import RecipeError
from clareo.perceive.conversation import RESTORE
from clareo.system import Batch, System, Training
from clareo.systems.uare.eyes import Seen
from clareo.systems.uare.nano import Model, Reading, build_nano
from clareo.systems.uare.nano_settings import NanoSettings
from clareo.systems.uare.telling import Telling
from clareo.types import Condition, Percept

Terms = dict[str, torch.Tensor]


def nano_training(options: Mapping[str, Any]) -> Training:
    """Build the nano preset untrained, with its loss; ``options.lessons`` is for `lessons`."""
    plain = {name: value for name, value in options.items() if name != "lessons"}
    said = NanoSettings.from_json(plain)
    prior, eyes = (entry_of(name).sha256 for name in (said.prior, said.eyes))
    settings = replace(said, prior_sha256=prior, eyes_sha256=eyes)
    return training_of(*build_nano(settings), settings)


def training_of(system: System, model: Model, settings: NanoSettings) -> Training:
    """Give a system its loss."""

    def loss(batch: Batch, rng: torch.Generator) -> Terms:
        if batch.own_share < 1 and batch.far_share < 1:  # clean = (x_t - t y) / (1 - t), and the clean tokens are y
            msg = "between both ends x_t would give the clean photo away: recipes need own_share = 1"
            raise RecipeError(msg)
        tellings = [Telling.from_prompt(prompt) for prompt in batch.prompts]
        drops = draw_drops(tellings, settings, rng)
        reading, answers = read_batch(model, batch, tellings, drops)
        return {
            "surprise": settings.surprise * surprise(model, reading, answers),
            "restored": settings.restored * _restored(system, model, batch, tellings, drops, reading, rng),
        }

    # validation perceives before the first step, when a plan would be babble
    judged = replace(system, perceive=lambda _: Percept(prompt=RESTORE))
    return Training(system.network, model.trained, settings.to_json(), loss, judged)


# --- what is dropped -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drops:
    """Which samples lose what, (B,) each; only those that are to be restored do."""

    text: torch.Tensor
    clean: torch.Tensor
    view: torch.Tensor


def draw_drops(tellings: Sequence[Telling], settings: NanoSettings, rng: torch.Generator) -> Drops:
    """Draw what samples lose, each regardless of the others."""
    text, clean, view = torch.rand(3, len(tellings), generator=rng)
    may = torch.tensor([telling.restores for telling in tellings])
    return Drops(
        may & (text < settings.drop_text), may & (clean < settings.drop_clean), may & (view < settings.drop_view)
    )


# --- words -----------------------------------------------------------------------------------------------------------

Answers = list[range]  # where the answer of each sample stands among its words; empty: it is not to be learned


def read_batch(
    model: Model, batch: Batch, tellings: Sequence[Telling], drops: Drops
) -> tuple[Reading, tuple[list[list[int]], Answers]]:
    """Read what every sample shows and says; return that, the numbers of its words, and where its answer stands."""
    device = batch.degraded.device
    compared = torch.tensor([telling.task == "compare" for telling in tellings], device=device)
    seen = model.eyes(batch.degraded)
    views, there = [seen], ~drops.view.to(device)[:, None]
    if compared.any():
        views = [*_versions(model, batch, compared, seen)]
        there = torch.cat([there, compared[:, None], compared[:, None]], 1)
    texts, answers = [], []
    for place, telling in enumerate(tellings):
        ask, answer = model.tokens.marked(telling.ask), model.tokens.marked(telling.answer)
        texts.append([*ask, *answer][: model.settings.words])
        learned = telling.task != "restore" and not bool(drops.view[place])
        answers.append(range(len(ask), len(texts[-1])) if learned else range(0))
    return model.read(views, there, texts), (texts, answers)


def _versions(model: Model, batch: Batch, compared: torch.Tensor, seen: Seen) -> tuple[Seen, Seen, Seen]:
    """Show A, B and the photo that they were made of where two are compared, and one photo in front elsewhere."""
    pairs = batch.truth["shown"][compared]
    first, second = (_spread(model.eyes(photos), seen, compared) for photos in pairs.unbind(1))
    chosen = compared[:, None, None]
    front = Seen(torch.where(chosen, first.grid, seen.grid), torch.where(chosen[:, 0], first.whole, seen.whole))
    return front, second, seen


def _spread(some: Seen, like: Seen, chosen: torch.Tensor) -> Seen:
    """Put what was seen of chosen samples in their places."""
    grid, whole = torch.zeros_like(like.grid), torch.zeros_like(like.whole)
    return Seen(grid.index_put((chosen,), some.grid), whole.index_put((chosen,), some.whole))


def surprise(model: Model, reading: Reading, answers: tuple[list[list[int]], Answers]) -> torch.Tensor:
    """Return the mean cross entropy over all words of answers; the mark in front of each is given."""
    hidden = reading.hidden[:, reading.words]
    rows, columns, wanted = [], [], []
    for row, (text, answer) in enumerate(zip(*answers, strict=True)):
        rows += [row] * max(0, len(answer) - 1)
        columns += list(answer)[:-1]
        wanted += [text[place] for place in list(answer)[1:]]
    if not wanted:
        return hidden.new_zeros(())
    said = model.backbone.mot.speak(hidden[rows, columns]).float()
    return F.cross_entropy(said, torch.tensor(wanted, device=said.device))


# --- photos ----------------------------------------------------------------------------------------------------------


def _restored(
    system: System,
    model: Model,
    batch: Batch,
    tellings: Sequence[Telling],
    drops: Drops,
    reading: Reading,
    rng: torch.Generator,
) -> torch.Tensor:
    """Return the error of estimates of those photos that are to be restored."""
    wanted = torch.tensor([telling.restores for telling in tellings])
    if not wanted.any():
        return reading.hidden.new_zeros(()).float()
    device = batch.degraded.device
    clean, degraded = (system.codec.encode(image[wanted.to(device)]) for image in (batch.reference, batch.degraded))
    start = draw_start(model.settings.window, rng)
    said = told(model, degraded, tellings, drops, reading, start)
    shares = (batch.far_share, batch.own_share)
    estimate = estimate_on_walk(system.denoiser, clean, degraded, said, shares, rng).float()
    return losses.relative_l1(estimate, clean, degraded, model.settings.floor)


def draw_start(window: int, rng: torch.Generator) -> Grid:
    """Place crops anywhere in the windows of a photo: small crops would know few of their cuts otherwise."""
    down, across = torch.randint(window, (2,), generator=rng).tolist()
    return down, across


def told(
    model: Model,
    degraded: torch.Tensor,
    tellings: Sequence[Telling],
    drops: Drops,
    reading: Reading,
    start: Grid,
) -> Condition:
    """Open the doors of samples that are to be restored, without what they lose."""
    device = degraded.device
    wanted = torch.tensor([telling.restores for telling in tellings])
    dropped = drops.clean[wanted].to(device)[:, None, None, None]
    known = torch.where(
        dropped, model.backbone.remember_nothing(degraded, start), model.backbone.remember(degraded, start)
    )
    unseen = torch.zeros(len(wanted), reading.layout.length, dtype=torch.bool, device=device)
    unseen[:, reading.words] = drops.text.to(device)[:, None]
    context = reading.context.without(unseen).door()[wanted.to(device)]
    percepts = [
        Percept() if mute else Percept(prompt=telling.ask, caption=telling.answer)
        for telling, mute in zip(tellings, drops.text.tolist(), strict=True)
        if telling.restores
    ]
    with torch.no_grad():
        text = model.prior_text(percepts)
    return Condition(concat=known, image=context, text=text)
