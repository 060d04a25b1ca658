"""Records in words and numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clareo.degrade import RECIPES, words
from clareo.degrade.recipes import draw
from clareo.degrade.record import Record, Step
from clareo.degrade.seen import seen_levels, softness
from clareo.degrade.words import levels, prompt_kind

CLEAN = Record(())


def noisy(sigma: float) -> Record:
    return Record((Step.of("gaussian_noise", sigma=sigma),))


@pytest.mark.parametrize(
    ("level", "named"), [(0.0, "0~0.25"), (0.25, "0~0.25"), (0.26, "0.25~0.5"), (0.75, "0.5~0.75"), (1.0, "0.75~1.0")]
)
def test_intervals_are_closed_above(level: float, named: str) -> None:
    assert words.interval(level) == named


def test_prompts_take_the_worst_of_both_orders() -> None:
    twice = Record((Step.of("jpeg", quality=90), Step.of("jpeg", quality=40)))
    assert words.levels(twice)["jpeg"] == pytest.approx(55 / 65)
    blurred = Record((Step.of("bell_blur", size=9, sigma_x=1.0, sigma_y=1.0), Step.of("sinc_blur", size=9, cutoff=1.0)))
    assert words.levels(blurred)["blur"] == pytest.approx(1 - 1 / torch.pi)
    assert CLEAN.prompt() == ("Deblur with sigma 0~0.25, Denoise with sigma 0~0.25, Dejpeg with sigma 0~0.25")


def test_the_dominant_task_is_the_expert_for_what_is_worst() -> None:
    assert words.dominant_task(CLEAN) == "blind"
    assert words.dominant_task(noisy(30)) == "denoise"
    assert words.dominant_task(Record((*noisy(5).steps, Step.of("disk_blur", radius=6.0)))) == "defocus"
    foggy = Record((Step.of("haze", beta=2.0, air=0.9), *noisy(5).steps))
    assert words.dominant_kind(foggy) == "haze"
    assert words.dominant_task(foggy) == "denoise"  # there is no expert for haze


def test_severity_orders_records() -> None:
    records = [CLEAN, noisy(5), noisy(25), Record((*noisy(25).steps, Step.of("jpeg", quality=20)))]
    severities = [words.severity(record) for record in records]
    assert severities == sorted(severities)
    assert severities[0] == 0
    assert severities[-1] < 1
    assert words.score(CLEAN) == 5
    assert words.order(records[1], records[3]) == -1
    assert words.order(records[3], records[1]) == 1
    assert words.order(noisy(20), noisy(21)) == 0


def test_analyses_say_the_same_in_many_ways() -> None:
    record = Record((Step.of("haze", beta=1.6, air=0.9), *noisy(6).steps, Step.of("jpeg", quality=99)))
    said = {words.analysis(record, seed) for seed in range(40)}
    assert len(said) > 30
    for text in said:
        haze = min(text.find(name) for name in words.NAMES["haze"] if name in text)
        noise = min(text.find(name) for name in words.NAMES["noise"] if name in text)
        assert haze < noise  # worst first
        assert not any(name in text for name in words.NAMES["jpeg"])  # inaudible
        assert text.endswith(".")
    assert words.analysis(record, 7) == words.analysis(record, 7)
    assert words.analysis(CLEAN) in words.CLEAN


def test_every_recipe_can_be_put_into_words() -> None:
    for recipe in RECIPES:
        for seed in range(20):
            record = draw(recipe, (96, 96), seed)
            assert words.analysis(record, seed)
            assert 0 <= words.severity(record) < 1
            assert 1 <= words.score(record) <= 5


# --- what can be seen ------------------------------------------------------------------------------------------------

NOISY = Step.of("gaussian_noise", 3, sigma=24.0, grey=False)
HALF = Step("resize", {"height": 32, "width": 32, "mode": "area"})


def seen(photo: torch.Tensor, *steps: Step) -> dict[str, float]:
    record = Record(steps)
    return seen_levels(record, photo, record.apply(photo))


def test_what_was_not_done_is_not_seen(photo: torch.Tensor) -> None:
    clean = photo[0, :, :64, :64]
    assert seen(clean, HALF) == {"blur": 0.0, "noise": 0.0, "jpeg": 0.0}
    only = seen(clean, NOISY)
    assert only == {"blur": 0.0, "noise": pytest.approx((24 / 32) ** 0.5, abs=0.02), "jpeg": 0.0}


def test_noise_that_was_averaged_away_is_seen_less(photo: torch.Tensor) -> None:
    clean = photo[0, :, :64, :64]
    before, after = seen(clean, NOISY, HALF), seen(clean, HALF, NOISY)
    assert before["noise"] ** 2 == pytest.approx(after["noise"] ** 2 / 2, rel=0.1)  # half the amplitude
    assert levels(Record((NOISY, HALF))) == levels(Record((HALF, NOISY)))  # what was drawn is the same


SLIGHT = (Step.of("bell_blur", size=7, sigma_x=0.3, sigma_y=0.3), Step.of("jpeg", quality=95))


@pytest.mark.parametrize("slight", SLIGHT)
def test_noise_that_follows_is_not_counted_as_the_damage_before_it(photo: torch.Tensor, slight: Step) -> None:
    clean, kind = photo[0, :, :64, :64], prompt_kind(slight)
    counted = Step.of("poisson_noise", 5, scale=2.5, grey=False)
    alone, both = seen(clean, slight), seen(clean, slight, counted)
    assert both[kind] < alone[kind] + 0.1
    assert both["noise"] == pytest.approx(seen(clean, counted)["noise"], abs=0.03)


def test_shot_noise_is_poisson_noise_nearly(photo: torch.Tensor) -> None:
    drawn = [Step.of(op, 5, scale=1.0, grey=False).apply(photo[0]) - photo[0] for op in ("poisson_noise", "shot_noise")]
    assert float(drawn[0].std()) == pytest.approx(float(drawn[1].std()), rel=0.05)


def test_a_part_is_seen_for_itself(photo: torch.Tensor) -> None:
    clean = torch.full((3, 64, 64), 128 / 255)
    clean[..., 32:] = photo[0, :, :64, :32]
    record = Record((Step.of("jpeg", quality=20),))
    places = (slice(8), slice(48, 64))
    flat, busy = (seen_levels(record, clean, record.apply(clean), np.s_[..., place]) for place in places)
    assert flat["jpeg"] == pytest.approx(0, abs=1e-3)
    assert busy["jpeg"] > 0.1


# --- how soft --------------------------------------------------------------------------------------------------------


def bell(sigma: float) -> Record:
    return Record((Step.of("bell_blur", size=21, sigma_x=sigma, sigma_y=sigma),))


def test_blur_is_the_same_whatever_the_photo_shows(photo: torch.Tensor) -> None:
    flat, busy = torch.full((3, 64, 64), 0.5), photo[0, :, :64, :64]
    degrees = [seen_levels(bell(1.0), clean, bell(1.0).apply(clean))["blur"] for clean in (flat, busy)]
    assert degrees[0] == degrees[1] > 0.5


def test_more_blur_is_softer_and_its_quarters_lie_where_they_are_said_to() -> None:
    widths = (0.2, 0.46, 0.65, 1.4, 3.0)
    degrees = [softness(bell(sigma), (128, 128)) for sigma in widths]
    assert degrees == sorted(degrees)
    assert degrees[1:4] == pytest.approx([0.25, 0.5, 0.75], abs=0.015)
    assert 0 <= degrees[0] <= degrees[-1] <= 1


def test_resizing_on_the_way_is_soft_and_shrinking_alone_is_not() -> None:
    small, large = (Step("resize", {"height": side, "width": side, "mode": "area"}) for side in (16, 64))
    assert softness(Record((small,)), (64, 64)) == 0
    assert softness(Record((small, replace(large, params={**large.params, "mode": "bicubic"}))), (64, 64)) > 0.5
    noise, coded = Step.of("gaussian_noise", 3, sigma=24.0, grey=False), Step.of("jpeg", quality=20)
    assert softness(Record((noise, coded)), (64, 64)) == 0
