"""Wishes and answers in words: what is written is read back, and nobody trains on what is held out."""

from __future__ import annotations

import re

import numpy as np
import pytest

from clareo.degrade.words import NAMES
from clareo.perceive import conversation as talk
from clareo.perceive.conversation import Comparison, Finding, Plan, Tokens, Wish, wishes
from clareo.perceive.conversation.answers import WINNERS, in_order
from clareo.perceive.conversation.held_out import WISHES
from clareo.perceive.conversation.lexicon import ADJECTIVES, BLURRED, KINDS, NOUNS, PHRASES, STORIES, WORK, plain
from clareo.quality import judge

SEEDS = range(2500)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens()


def drawn(rng: np.random.Generator, most: int = 3) -> tuple[Finding, ...]:
    kinds = rng.choice(KINDS, int(rng.integers(0, most + 1)), replace=False)
    return tuple(Finding(str(kind), int(rng.integers(3))) for kind in kinds)


# --- wishes ----------------------------------------------------------------------------------------------------------


def test_every_wish_is_read_as_it_was_meant() -> None:
    texts = set()
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        wish = talk.draw_wish([one.kind for one in drawn(rng)], rng)
        texts.add(text := talk.asked(wish, rng))
        assert talk.understood(text) == wish, text
    assert len(texts) > 0.5 * len(SEEDS)  # natural phrasings do not repeat


@pytest.mark.parametrize(
    ("text", "treat", "keep"),
    [
        ("get rid of the rain but leave the fog", {"rain"}, {"haze"}),
        ("keep the grain", None, {"noise"}),
        ("this is too dark and grainy", {"low_light", "noise"}, set()),
        ("Don't touch the JPEG artifacts, just brighten it", {"low_light"}, {"jpeg"}),
        ("it's blurry", {"motion", "defocus"}, set()),
        ("restore the photo except the fog and the rain", None, {"haze", "rain"}),
        ("make it nice", None, set()),
        ("no more motion blur", {"motion"}, set()),
    ],
)
def test_wishes_of_people_are_understood(text: str, treat: set[str] | None, keep: set[str]) -> None:
    assert talk.understood(text) == Wish(None if treat is None else frozenset(treat), frozenset(keep))


def test_what_is_wished_is_done_to_what_is_there() -> None:
    assert Wish().of(("noise", "haze")) == ("noise", "haze")
    assert Wish(None, frozenset({"haze"})).of(("noise", "haze")) == ("noise",)
    assert Wish(frozenset({"rain", "noise"})).of(("noise", "haze")) == ("noise",)


def test_kinds_are_those_of_the_judge_and_no_phrase_names_two() -> None:
    assert set(KINDS) == set(judge.KINDS)
    owners: dict[str, str] = {}
    for kind in KINDS:
        for phrase in (*NAMES[kind], *NOUNS[kind], *ADJECTIVES[kind], *WORK[kind], *STORIES[kind]):
            assert owners.setdefault(plain(phrase), kind) == kind, phrase
            assert PHRASES[plain(phrase)] == (kind,)


def templates() -> re.Pattern[str]:
    """Match whatever is one template, filled in."""
    phrases = "|".join(re.escape(phrase) for phrase in sorted(PHRASES, key=len, reverse=True))
    lone = [*wishes.GENERAL, *BLURRED, *(one for kind in KINDS for one in (*WORK[kind], *STORIES[kind]))]
    patterns = [*wishes.MENDS, *wishes.COMPLAINTS, *wishes.SIGHTS, *wishes.KEEPS, *wishes.EXCEPT, *lone]
    return re.compile(
        "|".join(re.escape(plain(one.format("slot"))).replace("slot", f"(?:{phrases})") for one in patterns)
    )


def test_held_out_wishes_are_held_out(tokens: Tokens) -> None:
    template = templates()
    assert template.fullmatch("rid the photo of the grain")
    assert len(WISHES) == 20
    for wish in WISHES:
        clauses = re.split(r" , (?:and |but )?| (?:and|but) ", plain(wish.text))
        assert not all(template.fullmatch(clause) for clause in clauses), wish.text
        assert set(wish.falls).isdisjoint(wish.stays)
        kinds = {one.kind for one in talk.found_in(wish.record((256, 256), 1))}
        assert kinds == {*wish.falls, *wish.stays}
        unknown = tokens.unknown(wish.text)
        assert len(unknown) <= 2, unknown  # hardly a word of them is lost


# --- answers ---------------------------------------------------------------------------------------------------------


def test_every_answer_is_read_as_it_was_meant(tokens: Tokens) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        found, score = drawn(rng), round(float(rng.uniform(1, 5)), 3)
        described = heard(tokens, talk.describe(found, score, rng))
        assert talk.claims(described) == found, described
        short = heard(tokens, talk.scored(found, score, rng))
        assert (talk.claims(short), talk.score_in(short)) == (found, score), short
        fact = Comparison(found, drawn(rng), WINNERS[seed % 3], (score, 1.5) if seed % 2 else None)
        assert talk.comparison_in(heard(tokens, talk.compared(fact, rng))) == fact
        treat = in_order([one.kind for one in found if rng.random() < 0.6])
        plan = Plan(found, treat, in_order([one.kind for one in found if one.kind not in treat]))
        assert talk.plan_in(heard(tokens, talk.planned(plan, rng))) == plan


def heard(tokens: Tokens, text: str) -> str:
    """Return a text as a network would say it."""
    assert not tokens.unknown(text)
    return tokens.decode(tokens.marked(text))


@pytest.mark.parametrize("text", ["", "It is a photo.", "score", "Score: 9.100.", "score about three"])
def test_what_has_no_score_has_none(text: str) -> None:
    assert talk.score_in(text) is None


@pytest.mark.parametrize("text", ["", "Photo A is better.", "Conclusion:", "Conclusion: C"])
def test_what_comes_to_no_conclusion_has_none(text: str) -> None:
    assert talk.comparison_in(text) is None


def test_what_is_said_not_to_be_there_is_no_claim() -> None:
    assert talk.claims("There is no noise in this photo, but heavy haze.") == (Finding("haze", 2),)
    assert talk.plan_in("I can see haze.") is None


def test_findings_come_worst_first_and_round_blur_is_defocus() -> None:
    found = talk.findings({"blur": 0.5, "defocus": 0.5, "noise": 0.9, "jpeg": 0.1})
    assert found == (Finding("noise", 2), Finding("defocus", 2))


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_vocabulary_is_closed_and_small(tokens: Tokens) -> None:
    assert len(tokens) <= 512
    assert len(set(tokens.all)) == len(tokens)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        wish = talk.draw_wish([one.kind for one in drawn(rng)], rng)
        assert not tokens.unknown(talk.cluttered(talk.asked(wish, rng), rng))


def test_unknown_words_are_named_and_near_ones_heard(tokens: Tokens) -> None:
    assert tokens.unknown("Remove the bicycle and the BICYCLE, it's gloomy") == ["bicycle"]
    assert tokens.encode("gloomy") == tokens.encode("dark")
    assert tokens.encode("the bicycle")[1] == tokens.index["<unknown>"]
    assert tokens.encode("removes") == tokens.encode("remove")


def test_labels_are_no_articles(tokens: Tokens) -> None:
    said = tokens.encode("A photo. Photo A is better.\nConclusion: A")
    assert said.count(tokens.index["A"]) == 2
    assert said[0] == tokens.index["a"]


def test_texts_without_words_have_no_marks(tokens: Tokens) -> None:
    assert tokens.marked(" ") == []
    assert tokens.marked("noise") == [tokens.ends[0], *tokens.encode("noise"), tokens.ends[1]]
