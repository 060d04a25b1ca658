"""What UARE learns at nano scale, and from what: words and photos that agree, drops, losses of what learns alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import clareo
from clareo.degrade.recipes import draw
from clareo.errors import RecipeError, UnknownNameError
from clareo.perceive import conversation as talk
from clareo.perceive.conversation import Wish
from clareo.system import Batch, Training
from clareo.systems import uare
from clareo.systems.uare.learning import Drops, draw_drops, read_batch, surprise, training_of
from clareo.systems.uare.lessons import (
    Curriculum,
    draw_example,
    draw_version,
    score_of,
    treated_kinds,
    winner_of,
    without,
)
from clareo.systems.uare.nano_settings import NanoSettings
from clareo.systems.uare.telling import Telling
from clareo.train.loop import train
from clareo.train.recipe import parse_recipe, read_recipe
from conftest import small_prior
from uare_parts import OPTIONS, TELLINGS, batch_of, build, small_judge, speak

pytestmark = pytest.mark.usefixtures("same_start")


def taught(photo: torch.Tensor, tasks: dict[str, float], count: int = 24, **changes: object) -> list[tuple]:
    """Draw examples of tasks, with what is told of them."""
    curriculum = Curriculum(tasks=tasks, **changes)
    drawn = (draw_example(photo[0, :, :96, :96], np.random.default_rng(seed), curriculum) for seed in range(count))
    return [(example, Telling.from_prompt(example.prompt)) for example in drawn]


# --- lessons ---------------------------------------------------------------------------------------------------------


def test_shares_of_tasks_are_those_of_the_paper(photo: torch.Tensor) -> None:
    drawn = taught(photo, Curriculum().tasks, 400)
    found = Counter("assess" if telling.task in talk.QUESTIONS else telling.task for _, telling in drawn)
    assert 70 < found["assess"] < 130  # 0.25
    assert 85 < found["interleaved"] < 155  # 0.40, of which some plans are a person's
    assert all(example.reference.shape == example.degraded.shape == (3, 96, 96) for example, _ in drawn)


@pytest.mark.parametrize("question", ["describe", "score"])
def test_what_is_said_of_a_photo_is_true(photo: torch.Tensor, question: str) -> None:
    clean = photo[0, :, :96, :96]
    for example, telling in taught(photo, {"assess": 1.0}, questions={question: 1.0}):
        assert telling.ask in talk.QUESTIONS[question]
        assert torch.equal(example.reference, clean)
        if question == "score":
            assert talk.score_in(telling.answer) == score_of(example.degraded, clean)
        if torch.equal(example.degraded, clean):
            assert not talk.claims(telling.answer)


def test_comparisons_name_the_photo_with_the_higher_score(photo: torch.Tensor) -> None:
    winners = Counter()
    for example, telling in taught(photo, {"assess": 1.0}, questions={"compare": 1.0}):
        first, second = (score_of(shown, example.reference) for shown in example.truth["shown"])
        fact = talk.comparison_in(telling.answer)
        assert fact is not None
        assert fact.winner == winner_of(first, second)
        winners[fact.winner] += 1
    assert set(winners) == {"A", "B", "tie"}


def test_plans_say_what_the_photo_shows_was_done(photo: torch.Tensor) -> None:
    kept = 0
    for _, telling in taught(photo, {"interleaved": 1.0}, 60, edited=0.0, cluttered=0.0):
        assert telling.task == "interleaved"
        plan, wish = talk.plan_in(telling.answer), talk.understood(telling.ask)
        assert plan is not None
        assert not set(plan.treat) & wish.keep
        assert not set(plan.treat) & set(plan.keep)
        if plan.keep and not plan.treat:
            kept += 1
    assert kept  # now and then nothing is to be done


def test_a_plan_of_a_person_is_obeyed_and_not_learned(photo: torch.Tensor) -> None:
    drawn = taught(photo, {"interleaved": 1.0}, 60, edited=1.0)
    written = [telling for _, telling in drawn if telling.task == "restore"]
    assert len(written) > 15
    assert {telling.ask for telling in written} == {talk.RESTORE}
    assert all(talk.plan_in(telling.answer) for telling in written)


def test_what_is_to_stay_is_done_again_to_the_bit(photo: torch.Tensor) -> None:
    clean = photo[0]
    record = draw("haze+rain+noise", (clean.shape[-2], clean.shape[-1]), 3)
    wish = talk.understood("get rid of the rain but leave the fog")
    assert treated_kinds(record, wish) == {"rain"}
    left = without(record, frozenset({"rain"}))
    assert [step.kind for step in left.steps] == [step.kind for step in record.steps if step.kind != "rain"]
    assert torch.equal(without(record, frozenset()).apply(clean), record.apply(clean))
    assert treated_kinds(record, Wish()) >= {"haze", "rain", "noise"}
    assert treated_kinds(record, Wish(frozenset({"jpeg"}))) == frozenset()


def test_versions_have_less_damage_or_other(photo: torch.Tensor) -> None:
    record = draw("haze+noise", (128, 160), 1)
    made = [draw_version(record, photo[0], np.random.default_rng(seed)) for seed in range(20)]
    assert len({len(version.steps) for version in made}) > 2


@pytest.mark.parametrize(
    "wrong", [{"tasks": {"doubles": 1.0}}, {"questions": {"why": 1.0}}, {"edited": 2.0}, {"tasks": {}}]
)
def test_wrong_lessons_are_told(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="curriculum"):
        uare.lessons({"lessons": wrong})
    with pytest.raises(UnknownNameError, match="did you mean 'tasks'"):
        uare.lessons({"lessons": {"taks": {}}})


def test_real_pairs_are_asked_about(photo: torch.Tensor) -> None:
    paired = uare.lessons({}).paired
    rng = np.random.default_rng(0)
    hazy = Telling.from_prompt(paired("haze")(photo[0], photo[0], rng).prompt)
    assert talk.understood(hazy.ask).treat == {"haze"}
    assert talk.understood(Telling.from_prompt(paired("any")(photo[0], photo[0], rng).prompt).ask).treat is None


# --- losses ----------------------------------------------------------------------------------------------------------


def loss_of(training: Training, batch: Batch) -> dict[str, float]:
    terms = training.loss(batch, torch.Generator().manual_seed(0))
    return {name: float(value.detach()) for name, value in terms.items()}


def learn(**changes: object) -> Training:
    system, model = build(**changes)
    speak(model.backbone)
    return training_of(system, model, model.settings)


def test_terms_are_words_and_photos(photo: torch.Tensor) -> None:
    nothing = {"drop_text": 0.0, "drop_clean": 0.0, "drop_view": 0.0}
    terms = loss_of(learn(**nothing), batch_of(photo, TELLINGS))
    louder = loss_of(learn(**nothing, surprise=0.5, restored=3.0), batch_of(photo, TELLINGS))
    assert louder == pytest.approx({"surprise": 2 * terms["surprise"], "restored": 3 * terms["restored"]}, rel=1e-4)


def test_only_what_is_trained_moves_and_all_of_it(photo: torch.Tensor) -> None:
    training = learn()
    sum(training.loss(batch_of(photo, TELLINGS), torch.Generator().manual_seed(0)).values()).backward()
    moved = {name for name, value in training.trained.named_parameters() if value.grad is not None}
    still = {name for name, _ in training.trained.named_parameters()} - moved
    assert all(name.startswith("mot.layers.1.generate") or name == "finish" for name in still), still
    others = dict(training.network.named_parameters()).items() - dict(training.trained.named_parameters()).items()
    assert not any(value.requires_grad for name, value in others if "prior" in name or "trunk" in name)


def test_losses_ask_for_nothing_that_is_not_there(photo: torch.Tensor) -> None:
    words, photos = (loss_of(learn(), batch_of(photo, [one])) for one in (TELLINGS[1], TELLINGS[0]))
    assert words["restored"] == 0
    assert words["surprise"] > 0
    assert photos["surprise"] == 0
    assert photos["restored"] > 0


def test_words_are_averaged_over_words(photo: torch.Tensor) -> None:
    """Twice the same sample is the same loss: each term is a mean over its own tokens."""
    _, model = build()
    for tellings in ([TELLINGS[1]], [TELLINGS[1], TELLINGS[0]]):
        kept = Drops(*torch.zeros(3, len(tellings), dtype=torch.bool))
        reading, answers = read_batch(model, batch_of(photo, tellings), tellings, kept)
        said = float(surprise(model, reading, answers).detach())
        assert said == pytest.approx(float(np.log(len(model.tokens))), rel=0.05)
    length = len(model.tokens.marked(TELLINGS[1].answer))
    assert [len(each) for each in answers[1]] == [length, 0]


def test_a_plan_that_a_person_wrote_is_no_answer(photo: torch.Tensor) -> None:
    _, model = build()
    drops = Drops(*torch.zeros(3, 5, dtype=torch.bool))
    drops.view[2] = True
    _, (texts, answers) = read_batch(model, batch_of(photo, TELLINGS), TELLINGS, drops)
    assert [bool(len(each)) for each in answers] == [False, True, False, True, False]  # the third saw no photo
    assert len(texts[4]) > len(texts[0])


def test_what_is_dropped_is_dropped_as_often_as_said() -> None:
    settings = NanoSettings()
    drops = draw_drops([TELLINGS[0]] * 4000, settings, torch.Generator().manual_seed(0))
    shares = [float(each.float().mean()) for each in (drops.text, drops.clean, drops.view)]
    assert shares == pytest.approx([0.1, 0.3, 0.3], abs=0.03)
    both = float((drops.clean & drops.view).float().mean())
    assert both == pytest.approx(0.09, abs=0.02)  # regardless of each other
    assert not any(each.any() for each in vars(draw_drops([TELLINGS[1]] * 50, settings, torch.Generator())).values())


def test_a_walk_that_would_leak_is_refused(photo: torch.Tensor) -> None:
    with pytest.raises(RecipeError, match="own_share = 1"):
        learn().loss(batch_of(photo, TELLINGS, own_share=0.5), torch.Generator())


# --- runs ------------------------------------------------------------------------------------------------------------


def test_the_recipe_is_for_the_default_settings() -> None:
    recipe = read_recipe(Path(__file__).parent.parent / "recipes" / "uare-nano.toml")
    assert NanoSettings.from_json(recipe.options) == NanoSettings()
    words, *photos = recipe.stages
    assert dict(Curriculum(**words.options["lessons"]).tasks) == {"assess": 1.0}
    assert [100 * stage.steps / photos[0].steps for stage in photos] == [100, 200, 15, 100]
    assert [stage.ema for stage in photos] == [0.990, 0.995, 0.995, 0.995]
    assert dict(Curriculum(**recipe.stages[-1].options["lessons"]).tasks) == dict(Curriculum().tasks)
    assert all(stage.own_share == 1 for stage in recipe.stages)


@pytest.fixture
def run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Train for two steps, one of them with words."""
    monkeypatch.setattr("clareo.systems.uare.nano.load_prior", small_prior)
    monkeypatch.setattr("clareo.systems.uare.nano.build_judge", lambda _: small_judge())
    stages = [
        {"steps": 1, "crop": 64, "batch": 2, "own_share": 1.0, "options": {"lessons": {"tasks": {name: 1.0}}}}
        for name in ("single", "interleaved")
    ]
    plain = {"system": "uare", "stages": stages, "options": {"preset": "nano", **OPTIONS}, "margin": 0, "workers": 0}
    train(parse_recipe({**plain, "log_every": 1}), photos, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_can_be_used(run: Path, photo: torch.Tensor) -> None:
    system = clareo.load_system("uare", str(run))
    out = clareo.restore(photo, system=system, ask="remove the noise")
    assert out.percept.prompt == "remove the noise"
    again = clareo.restore(photo, system=system, percept=out.percept)
    assert torch.equal(out.tensor, again.tensor)
    assert out.image.size == (160, 128)


def test_the_command_line_hears_wishes_and_keeps_plans(run: Path, photos: Path, tmp_path: Path, run_cli) -> None:
    out = tmp_path / "out"
    said = run_cli("restore", photos, "-o", out, "--system", "uare", "--preset", run, "--ask", "remove the bicycle")
    assert said.status == 0, said.err
    assert "'bicycle'" in said.err
    sidecar = out / "a.png.clareo.json"
    sidecar = sidecar if sidecar.exists() else next(out.glob("*.clareo.json"))
    account = json.loads(sidecar.read_text())
    assert account["percept"]["prompt"] == "remove the bicycle"
    account["percept"]["caption"] = "I can see haze. Plan: clear the air."
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(account))
    again = run_cli("restore", photos, "-o", tmp_path / "again", "--plan", edited, "--json")
    assert again.status == 0, again.err
    assert json.loads(again.out)["percept"]["caption"] == "I can see haze. Plan: clear the air."


def test_photos_are_described_and_compared_in_words(run: Path, photos: Path, run_cli, monkeypatch) -> None:
    photo = photos / "a.png"
    plain, told = (
        run_cli("assess", photo, "--describe", *more) for more in ((), ("--system", "uare", "--preset", run))
    )
    assert told.status == 0, told.err
    assert told.out != plain.out
    assert run_cli("assess", photo, "--system", "uare").status == 2
    dumb = run_cli("compare", photo, photo, "--reference", photo, "--system", "uare", "--preset", run)
    assert dumb.status == 1
    assert "no conclusion" in dumb.err
    monkeypatch.setattr("clareo.systems.uare.nano.Model.answer", lambda *_: "Both are equally good.\nConclusion: tie")
    said = run_cli("compare", photo, photo, "--reference", photo, "--system", "uare", "--preset", run)
    assert said.status == 0
    assert said.out.startswith("Both are equally good.\nConclusion: tie")
    refused = run_cli("assess", photo, "--describe", "--system", "unires")
    assert refused.status == 2
    assert "does not speak" in refused.err


def test_what_is_told_of_a_sample_comes_back() -> None:
    for telling in TELLINGS:
        assert Telling.from_prompt(telling.to_prompt()) == telling
