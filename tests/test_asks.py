"""Wishes in words: what is heard, and where it moves a blend."""

from __future__ import annotations

import pytest

from clareo.errors import UsageError
from clareo.planning.asks import MOST, Move, Wishes, follow, understand
from clareo.types import KEEP

EXPERTS = ("blind", "sr", "motion", "defocus", "denoise", "detail")
BLEND = {**dict.fromkeys(EXPERTS, 0.1), "blind": 0.4, KEEP: 0.1}

# text -> the parts that gain (+) and lose (-), all of them
ASKS = {
    # what is wrong is to go
    "Please remove the noise, thanks!": "+denoise",
    "it was shot at high ISO": "+denoise",
    "the picture is shaken": "+motion",
    "blurred by movement": "+motion",
    "the focus is off": "+defocus",
    "My photo is out-of-focus.": "+defocus",
    "it's rather blurry": "+motion +defocus",
    "not sharp enough": "+motion +defocus",
    "tiny, full of JPEG artifacts": "+sr",
    "it looks pixelated": "+sr",
    "the picture is very small": "+sr",
    "a small amount of noise": "+denoise",
    # work is to be done
    "enlarge it": "+sr",
    "more detail in the hair": "+detail",
    "there is no texture in the wool": "+detail",
    "sharpen it": "+motion +defocus",
    "bring the eyes into focus": "+defocus",
    "keep the eyes in focus": "+keep",
    "remove more noise": "+denoise",
    # too much was done
    "the skin is too smooth": "-denoise +keep",
    "it looks like wax": "-denoise +keep",
    "over-sharpened": "-motion -defocus +keep",
    "do not make it look artificial": "-detail +keep",
    # restraint
    "do not invent anything": "-detail +keep",
    "keep it natural": "-detail +keep",
    "a light touch": "+keep",
    "don't change it too much": "+keep",
    "leave it mostly alone": "+keep",
    "don't be too gentle": "-keep",
    "do not lose the detail": "+keep",
    # no that means go, and no that means stay
    "no noise please": "+denoise",
    "without noise": "+denoise",
    "keep it noise-free": "+denoise",
    "leave no grain": "+denoise",
    "leave no noise when you clean it": "+denoise",
    "I don't like the grain": "+denoise",
    "too noisy": "+denoise",
    "not so much noise": "+denoise",
    "don't remove the noise": "-denoise +keep",
    "dont remove the noise": "-denoise +keep",
    "don\u2019t remove the noise": "-denoise +keep",
    "not too much denoising": "-denoise +keep",
    "no noise reduction": "-denoise +keep",
    "it is not noisy": "-denoise +keep",
    "I don't mind the grain": "-denoise +keep",
    "bring back some grain": "-denoise +keep",
    "keep the bokeh": "-motion -defocus +keep",
    "reduce the sharpening": "-motion -defocus +keep",
    "less texture": "-detail +keep",
    # several at once
    "remove the noise without losing detail": "+denoise +keep",
    "fix the shake, but not the grain": "+motion -denoise +keep",
    "sharper with less noise": "+motion +defocus +denoise",
    "more detail less noise": "+detail +denoise",
    "keep the grain and the blur": "-denoise -motion -defocus +keep",
    "keep the grain and sharpen it": "-denoise +motion +defocus +keep",
    "do not denoise or sharpen": "-denoise -motion -defocus +keep",
    "it's not out of focus, it's shaken": "-defocus +motion +keep",
    "don't smooth away the details": "-denoise +keep",
    # restraint about one kind of work, or no work at all
    "dial back the denoising": "-denoise +keep",
    "easy on the denoising": "-denoise +keep",
    "ease off the noise reduction": "-denoise +keep",
    "cut back on the denoising": "-denoise +keep",
    "very little denoising": "-denoise +keep",
    "go easy on the grain": "-denoise +keep",
    "hands off the grain": "-denoise +keep",
    "let the grain be": "-denoise +keep",
    "do nothing to the grain": "-denoise +keep",
    "go easy on the sharpening": "-motion -defocus +keep",
    "hold back on sharpening": "-motion -defocus +keep",
    "refrain from sharpening": "-motion -defocus +keep",
    "minimal sharpening": "-motion -defocus +keep",
    "do nothing": "+keep",
    "don't touch the face": "+keep",
    "don't alter the colours": "+keep",
    "remove the noise, change nothing else": "+denoise +keep",
    "hold back the noise": "+denoise",
    "dial down the noise": "+denoise",
    "minimal noise": "+denoise",
    # damage that is wanted, or does not matter
    "make it noisier": "-denoise +keep",
    "I want some grain": "-denoise +keep",
    "give it a grainy look": "-denoise +keep",
    "the grain is part of the look": "-denoise +keep",
    "nothing wrong with the noise": "-denoise +keep",
    "noise is no problem": "-denoise +keep",
    "noise isn't a big deal": "-denoise +keep",
    "the noise doesn't bother me": "-denoise +keep",
    "I'm happy with the noise": "-denoise +keep",
    "I can live with the noise": "-denoise +keep",
    "I want a soft look": "-motion -defocus +keep",
    "make it softer": "-motion -defocus +keep",
    "the blur is intentional": "-motion -defocus +keep",
    "I'm not happy with the noise": "+denoise",
    "it got noisier": "+denoise",
    "don't make it noisier": "+denoise",
    "I want the noise gone": "+denoise",
    "can't you remove the noise?": "+denoise",
    "make this blurry photo sharp": "+motion +defocus",
    # telling what there is, and what not
    "barely any noise": "-denoise +keep",
    "I can't see any noise": "-denoise +keep",
    "the noise is hardly visible": "-denoise +keep",
    "not blurry but noisy": "-motion -defocus +denoise +keep",
    "neither blurry nor noisy": "-motion -defocus -denoise +keep",
    "not shaken, just out of focus": "-motion +defocus +keep",
    "not noisy please": "+denoise",
    "I can't see any detail in the shadows": "+detail",
    "no detail in the shadows": "+detail",
    "hardly any detail": "+detail",
    "the shadows have no detail": "+detail",
    "the sky is not noisy": "-denoise +keep",
    "there is too little detail": "+detail",
    "too detailed": "-detail +keep",
    "too many details": "-detail +keep",
    "minimum detail": "-detail +keep",
    # words of other editing that only say where or what
    "remove background noise": "+denoise",
    "remove the noise from the person": "+denoise",
    "remove the person's blur": "+motion +defocus",
    "take the noise out of the sky": "+denoise",
    "moving people are blurred": "+motion",
    "noise in the darker parts": "+denoise",
    "this black and white photo is noisy": "+denoise",
    "make the blue sky less noisy": "+denoise",
    "long exposure blur": "+motion +defocus",
    "turn down the colour noise": "+denoise",
    "remove noise sharpen it": "+denoise +motion +defocus",
}

# text -> the parts that gain, and what is told as not understood; a text without any move is refused
FOREIGN = {
    "brighten the noisy shadows": ("+denoise", "brighten the noisy shadows"),
    "remove noise brighten the face": ("+denoise", "brighten the face"),
    "denoise darken the sky": ("+denoise", "darken the sky"),
    "colourise this grainy photo": ("+denoise", "colourise this grainy photo"),
    "cool the noisy shadows": ("+denoise", "cool the noisy shadows"),
    "more detail, contrast, warmer": ("+detail", "contrast warmer"),
    "remove the watermark and the noise": ("+denoise", "remove the watermark"),
    "straighten the shaken photo": ("+motion", "straighten the shaken photo"),
    "sharpen it brighten it": ("+motion +defocus", "sharpen it brighten it"),
    "turn the noisy sky blue": ("", ""),
    "crop the blurry part": ("", ""),
    "remove the blurry person": ("", ""),
    "erase the moving people": ("", ""),
    "get rid of the blurry car": ("", ""),
    "replace the noisy sky": ("", ""),
    "make the noisy photo black and white": ("", ""),
    "blur the noisy background": ("", ""),
    "enlarge it 4 times": ("+sr", "enlarge it 4 times"),
    "upscale 2x": ("+sr", "upscale 2x"),
    "double the resolution": ("+sr", "double the resolution"),
    "200% larger": ("+sr", "200% larger"),
}


def directions(wishes: Wishes) -> set[str]:
    return {f"{'+' if move.share > 0 else '-'}{move.part}" for move in wishes.moves}


@pytest.mark.parametrize(("text", "expected"), ASKS.items())
def test_an_ask_moves_the_blend_as_a_person_expects(text: str, expected: str) -> None:
    wishes = understand(text)
    assert directions(wishes) == set(expected.split())
    moved = follow(wishes, BLEND, EXPERTS)
    for direction in expected.split():
        gain = moved[direction[1:]] - BLEND[direction[1:]]
        assert gain > 0.01 if direction[0] == "+" else gain < -0.01, (direction, gain)
    assert sum(moved.values()) == pytest.approx(1, abs=1e-9)
    assert not wishes.unknown


@pytest.mark.parametrize(("text", "moved", "unknown"), [(text, *expected) for text, expected in FOREIGN.items()])
def test_other_editing_is_told_even_beside_a_wish_that_is_understood(text: str, moved: str, unknown: str) -> None:
    if not moved:
        with pytest.raises(UsageError, match=r"nothing in .* was understood"):
            understand(text)
        text += ", denoise"
        moved, unknown = "+denoise", text.removesuffix(", denoise")
    wishes = understand(text)
    assert directions(wishes) == set(moved.split())
    assert " ".join(wishes.unknown) == unknown
    assert ("(--upscale does that)" in wishes.told()) == (moved == "+sr")


def test_what_another_option_does_is_told() -> None:
    told = understand("enlarge it 4 times, make it pop").told()
    assert told == "asked: more sr; not understood: 'enlarge it 4 times' (--upscale does that), 'make it pop'"


def test_contrary_wishes_are_followed_in_order() -> None:
    wishes = understand("remove the noise, keep the grain, it is shaken")
    assert wishes.moves == (Move("denoise", 0.4), Move("denoise", -0.4), Move(KEEP, 0.3), Move("motion", 0.4))
    moved = follow(wishes, {"sr": 1.0}, EXPERTS)
    assert moved == {"sr": 0.3192, "denoise": 0.1008, "keep": 0.18, "motion": 0.4}


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("remove the noise", 0.4),
        ("remove the noise a little", 0.2),
        ("slightly noisy", 0.2),
        ("very noisy", 0.6),
        ("remove the noise completely", 0.6),
        ("there is too much noise", 0.4),
        ("less denoising", -0.4),
        ("a bit less denoising", -0.2),
        ("much less denoising", -0.6),
        ("do not remove all the noise", -0.2),
        ("denoise gently", 0.2),
    ],
)
def test_amounts_are_heard(text: str, share: float) -> None:
    assert understand(text).moves[0] == Move("denoise", share)


def test_a_wish_that_is_repeated_counts_once_at_its_strongest() -> None:
    assert understand("It is noisy. Very noisy! Remove the noise.").moves == (Move("denoise", 0.6),)


def test_blur_of_no_known_kind_is_shared_between_both() -> None:
    assert understand("blurry").moves == (Move("motion", 0.2), Move("defocus", 0.2))
    assert understand("motion blur").moves == (Move("motion", 0.4),)


def test_detail_is_brought_out_by_whoever_can() -> None:
    """A system says whether detail lies towards its `detail` expert or away from it."""
    for reach in (1.0, -0.5):
        more = follow(understand("more detail"), BLEND, EXPERTS, reach)
        assert more["detail"] == pytest.approx(BLEND["detail"] + 0.4 * reach * (1 - BLEND["detail"]))
        less = follow(understand("less detail"), BLEND, EXPERTS, reach)
        assert 0 <= less.get("detail", 0.0) < BLEND["detail"]


def test_no_wish_takes_over() -> None:
    loudest = [understand(f"very {text}") for text in ASKS]
    assert max(abs(move.share) for wishes in loudest for move in wishes.moves) <= MOST


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("remove the noise, Make it POP", ("Make it POP",)),
        ("Paint the sky blue; less noise and brighter faces", ("Paint the sky blue", "brighter faces")),
        ("make it black and white without noise", ("make it black and white",)),
        ("denoise, then blur the background", ("blur the background",)),
        ("hi, could you denoise this photo please? thank you very much", ()),
    ],
)
def test_what_nobody_understood_is_told_in_the_users_words(text: str, unknown: tuple[str, ...]) -> None:
    wishes = understand(text)
    assert directions(wishes) == {"+denoise"}
    assert wishes.unknown == unknown
    assert all(repr(clause) in wishes.told() for clause in unknown)
    assert ("not understood" in wishes.told()) == bool(unknown)


@pytest.mark.parametrize("text", ["", "  \n", "please, thanks", "make it pop", "smallprint", "iconoise"])
def test_a_text_of_which_nothing_is_understood_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match=r"more detail, less denoising, keep the grain"):
        understand(text)


def test_wishes_are_said_back() -> None:
    wishes = Wishes((Move("denoise", 0.4), Move("detail", -0.4), Move(KEEP, 0.1), Move(KEEP, -0.1)))
    photo = "of the photo as it came"
    assert wishes.told() == f"asked: more denoise, less detail, more {photo}, less {photo}"


@pytest.mark.parametrize(
    ("move", "weights", "expected"),
    [
        (Move("motion", 0.5), {"sr": 1.0}, {"sr": 0.5, "motion": 0.5}),
        # what is freed goes to the other experts in proportion, not to the photo
        (Move("sr", -0.5), {"sr": 0.4, "motion": 0.3, "detail": 0.1, "keep": 0.2},
         {"sr": 0.2, "motion": 0.45, "detail": 0.15, "keep": 0.2}),
        (Move("sr", -0.5), {"sr": 1.0}, {"sr": 0.5, "keep": 0.5}),
        # weights below zero: they neither lose nor gain, and are no expert to give to
        (Move("sr", -0.5), {"sr": 1.2, "detail": -0.2}, {"sr": 0.6, "detail": -0.2, "keep": 0.6}),
        (Move("detail", -0.5), {"sr": 1.2, "detail": -0.2}, {"sr": 1.2, "detail": -0.2}),
        (Move("detail", 0.5), {"sr": 1.2, "detail": -0.2}, {"sr": 0.6, "detail": 0.4}),
        (Move("sr", 0.5), {"sr": 1.2, "detail": -0.2}, {"sr": 1.2, "detail": -0.2}),  # it would lose by moving there
        (Move("motion", -0.5), {"sr": 1.0}, {"sr": 1.0}),
        (Move(KEEP, -0.5), {"keep": 0.4, "sr": 0.6}, {"keep": 0.2, "sr": 0.8}),
        (Move(KEEP, -0.5), {"keep": 1.0}, {"keep": 1.0}),  # nobody to give it to
    ],
)  # fmt: skip
def test_single_moves(move: Move, weights: dict[str, float], expected: dict[str, float]) -> None:
    before = dict(weights)
    assert follow(Wishes((move,)), weights, EXPERTS) == expected
    assert weights == before


def test_what_is_taken_from_one_is_not_given_to_another_that_is_to_lose() -> None:
    moved = follow(understand("do not sharpen"), {"motion": 0.5, "defocus": 0.5}, EXPERTS)
    assert moved == {"motion": 0.27, "defocus": 0.27, "keep": 0.46}


@pytest.mark.parametrize("text", ["keep the grain", "blurry", "very noisy, a bit more detail, less sharpening"])
def test_sums_stay_one_to_the_last_digit(text: str) -> None:
    thirds = dict.fromkeys(("sr", "denoise", "motion"), 1 / 3)
    for weights in (thirds, dict.fromkeys(EXPERTS, 1 / 6), {"sr": 1.2, "detail": -0.2}, {"denoise": 1.0}):
        moved = follow(understand(text), weights, EXPERTS)
        assert sum(moved.values()) == pytest.approx(1, abs=1e-9)
        assert moved == {part: round(weight, 6) for part, weight in moved.items()}


def test_experts_that_a_system_does_not_have_are_named() -> None:
    for text in ("it is shaken", "do not sharpen"):
        with pytest.raises(UsageError, match="this system has no motion expert: there are sr, denoise"):
            follow(understand(text), {"sr": 1.0}, ("sr", "denoise"))
    assert follow(understand("a light touch"), {"sr": 1.0}, ("sr",)) == {"sr": 0.6, "keep": 0.4}
