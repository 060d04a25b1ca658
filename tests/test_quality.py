"""Metrics: laws that every card keeps, cases that can be worked out by hand, and input that makes no sense.

How they compare with other people's programmes is in `test_calibration`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data, filters

from clareo.errors import PhotoError, UnknownNameError, UsageError
from clareo.quality.blind import gradient_energy
from clareo.quality.cards import METRICS, Card, Citation, find, measure
from clareo.quality.reference import cw_ssim, fsim, gmsd, ms_ssim, nlpd, psnr, ssim, vif

CARDS = [pytest.param(card, id=protocol) for protocol, card in METRICS.items() if card.needs_reference]
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    """A photo that is large enough for every metric: (1, 3, 192, 180)."""
    return tensor(data.astronaut()[20:212, 150:330] / 255)


def tensor(photo: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None].float()


def noisy(photo: torch.Tensor, sigma: float) -> torch.Tensor:
    return (photo + sigma * torch.randn(photo.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)


def blurred(photo: torch.Tensor, sigma: float) -> torch.Tensor:
    return tensor(filters.gaussian(photo[0].permute(1, 2, 0).numpy(), sigma, channel_axis=2))


def flat(value: float, side: int = 192) -> torch.Tensor:
    return torch.full((1, 3, side, side), value)


# --- laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", CARDS)
def test_equal_photos_are_best(card: Card, clean: torch.Tensor) -> None:
    best = float(measure(card, clean, clean))
    assert best == pytest.approx({"psnr": math.inf, "gmsd": 0, "nlpd": 0}.get(card.name, 1), abs=ROUNDING)
    assert card.low <= best <= card.high + ROUNDING


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize(("damage", "amounts"), [(noisy, (0.02, 0.05, 0.1, 0.2)), (blurred, (0.8, 1.2, 2, 4))])
def test_more_damage_is_worse(card: Card, damage, amounts: tuple[float, ...], clean: torch.Tensor) -> None:
    values = measure(
        card, torch.cat([damage(clean, amount) for amount in amounts]), clean.expand(4, -1, -1, -1)
    ).tolist()
    assert values == sorted(values, reverse=card.higher_is_better)
    assert len(set(values)) == 4
    assert all(card.low <= value <= card.high for value in values)


@pytest.mark.parametrize("card", CARDS)
def test_a_batch_is_measured_one_by_one(card: Card, clean: torch.Tensor) -> None:
    restored, reference = torch.cat([noisy(clean, 0.1), blurred(clean, 1)]), torch.cat([clean, clean.flip(3)])
    alone = [float(measure(card, a[None], b[None])) for a, b in zip(restored, reference, strict=True)]
    assert measure(card, restored, reference).tolist() == pytest.approx(alone, rel=1e-4, abs=ROUNDING)


@pytest.mark.parametrize("card", CARDS)
def test_gradients_are_finite(card: Card, clean: torch.Tensor) -> None:
    """They are where a photo is flat, and where it equals the reference: only PSNR is infinite there."""
    half_flat = clean.clone()
    half_flat[..., :90] = 0.25
    partly_equal = torch.cat([noisy(half_flat, 0.1)[..., :60], half_flat[..., 60:]], -1)
    for photo in (partly_equal, *([half_flat] if card.name != "psnr" else [])):
        restored = photo.clone().requires_grad_()
        measure(card, restored, half_flat).sum().backward()
        assert restored.grad is not None
        assert bool(restored.grad.isfinite().all())


@pytest.mark.parametrize("card", CARDS)
def test_flat_photos_have_values(card: Card, clean: torch.Tensor) -> None:
    side = clean[..., :180, :]
    for restored, reference in ((0.3, 0.3), (0.0, 0.0), (1.0, 1.0), (0.3, 0.7), (0.0, 1.0)):
        value = float(measure(card, flat(restored), flat(reference)))
        assert card.low <= value <= card.high + ROUNDING
        if restored == reference:
            assert value == pytest.approx({"psnr": math.inf, "gmsd": 0, "nlpd": 0}.get(card.name, 1), abs=ROUNDING)
    for pair in ((flat(0.4, 180), side), (side, flat(0.4, 180))):
        assert card.low <= float(measure(card, *pair)) <= card.high


@pytest.mark.parametrize("card", CARDS)
def test_the_smallest_photo_has_a_value_and_a_smaller_one_an_error(card: Card) -> None:
    photo = torch.rand(1, 3, card.smallest, card.smallest + 3, generator=torch.Generator().manual_seed(0))
    assert card.low <= float(measure(card, noisy(photo, 0.2), photo)) <= card.high
    if card.smallest > 1:
        with pytest.raises(PhotoError, match=f"too small for {card.protocol}: .* needs {card.smallest}"):
            measure(card, photo[..., 1:, :], photo[..., 1:, :])


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_the_two_lumas_differ_by_the_range_of_studio_video(clean: torch.Tensor) -> None:
    restored = noisy(clean, 0.1)
    gain = psnr(restored, clean, "y-bt601") - psnr(restored, clean, "y-yiq")
    assert float(gain) == pytest.approx(20 * math.log10(255 / 219), abs=1e-4)  # 1.32 dB
    assert float(psnr(clean * 0 + 0.5, clean * 0 + 0.4, "y-yiq")) == pytest.approx(20, abs=1e-4)


def test_structure_of_flat_photos_is_their_brightness() -> None:
    brightness = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(ssim(flat(0.2), flat(0.6))) == pytest.approx(brightness, rel=1e-4)
    assert float(ms_ssim(flat(0.2), flat(0.6))) == pytest.approx(brightness**0.1333, rel=1e-4)


def test_fewer_scales_of_ms_ssim_serve_small_photos(clean: torch.Tensor) -> None:
    restored = noisy(clean, 0.1)
    assert float(ms_ssim(restored, clean, scales=1)) == pytest.approx(float(ssim(restored, clean, "y-yiq")), rel=1e-3)
    assert 0 < float(ms_ssim(restored[..., :22, :22], clean[..., :22, :22], scales=2)) < 1


def test_structure_turned_around_counts_as_none(clean: torch.Tensor) -> None:
    assert float(ms_ssim(1 - clean, clean)) == 0


def test_gmsd_sees_how_steep_an_edge_is_and_not_which_way(clean: torch.Tensor) -> None:
    detail = torch.nn.functional.pad(0.4 * (clean - 0.5), (8, 8, 8, 8))  # framed: beyond the border there are zeros
    assert float(gmsd(0.5 - detail, 0.5 + detail)) == pytest.approx(0, abs=ROUNDING)
    assert float(gmsd(0.5 + 0.5 * detail, 0.5 + detail)) > 0.03


def test_vif_of_a_gain_follows_from_the_local_variance() -> None:
    """Stripes one pixel wide have one variance s^2: VIF is log(1 + k^2 s^2 / 2) / log(1 + s^2 / 2)."""
    stripes = flat(0.3, 64)
    stripes[..., 1::2] = 0.7
    variance = (0.2 * 255) ** 2  # of the finest scale; the others see flat grey, of which nothing is told
    expected = math.log(1 + 0.25 * variance / 2) / math.log(1 + variance / 2)
    assert float(vif(0.5 * stripes, stripes)) == pytest.approx(expected, rel=1e-2)
    assert float(vif(flat(0.4, 64), stripes)) == pytest.approx(0, abs=ROUNDING)


def test_vif_rewards_contrast(clean: torch.Tensor) -> None:
    assert float(vif(0.5 + 1.2 * (0.5 * clean - 0.25), 0.25 + 0.5 * clean)) > 1


def test_nlpd_of_flat_photos_is_that_of_the_low_pass() -> None:
    """The Laplacian levels are nothing, and the sixth is 1 px: luma over 0.2782, with no neighbours."""
    assert float(nlpd(flat(0.2, 32), flat(0.6, 32))) == pytest.approx(0.4 / 0.2782 / 6, rel=1e-4)


def test_cw_ssim_of_contrast_and_brightness(clean: torch.Tensor) -> None:
    assert float(cw_ssim(0.5 * clean, clean)) == pytest.approx(2 * 0.5 / (1 + 0.25), rel=1e-4)
    assert float(cw_ssim(0.5 * clean + 0.3, 0.5 * clean)) == pytest.approx(1, rel=1e-4)


def test_cw_ssim_bears_a_shift_that_ssim_does_not(clean: torch.Tensor) -> None:
    shifted = clean.roll(2, 3)
    assert float(cw_ssim(shifted, clean)) > 0.98
    assert float(ssim(shifted, clean)) < 0.8


def test_fsim_sees_neither_colour_nor_the_scale_of_light(clean: torch.Tensor) -> None:
    grey = clean.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    tinted = grey + 0.1 * torch.tensor([0.114, 0, -0.299])[:, None, None]  # of the same luma
    assert float(fsim(tinted, grey)) == pytest.approx(1, abs=1e-4)
    assert float(fsim(tinted, grey, chromatic=True)) < 0.9999


def test_gradient_energy_of_a_ramp() -> None:
    ramp = torch.from_numpy(np.tile(np.arange(8, dtype=np.float32) * 0.1, (3, 8, 1)))[None]
    assert float(gradient_energy(ramp)) == pytest.approx(0.01)


# --- cards -----------------------------------------------------------------------------------------------------------


def test_a_plain_name_means_its_first_protocol() -> None:
    assert find("psnr") is METRICS["psnr/rgb/crop0"]
    assert find("ssim/y-bt601/crop0").colour == "y-bt601"
    assert find("fsimc").measure is not find("fsim").measure


@pytest.mark.parametrize(
    ("wrong", "right"), [("pnsr", "psnr"), ("ms-ssim", "ms_ssim"), ("psnr/y-bt/crop0", "psnr/y-bt601")]
)
def test_an_unknown_name_is_told_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{right}"):
        find(wrong)


def test_cards_tell_what_they_are() -> None:
    for protocol, card in METRICS.items():
        assert card.protocol == protocol
        assert card.low < card.high
        assert 1974 < card.citation.year < 2027
    assert str(find("gmsd").citation).startswith("Xue, Zhang, Mou & Bovik (2014), IEEE")


def test_a_border_is_left_out(clean: torch.Tensor) -> None:
    framed = clean.clone()
    framed[..., :4, :] = 0
    card = find("psnr").cropped(4)
    assert card.protocol == "psnr/rgb/crop4"
    assert float(measure(card, framed, clean)) == math.inf
    assert float(measure(find("psnr"), framed, clean)) < 30


def test_a_blind_card_needs_no_reference() -> None:
    card = Card(
        "mean",
        "rgb",
        lambda photo: photo.mean((1, 2, 3)),
        Citation("Nobody", 2026, "here"),
        smallest=1,
        needs_reference=False,
    )
    assert measure(card, flat(0.5, 8)).tolist() == [0.5]
    assert measure(find("gradient_energy"), flat(0.5, 8)).tolist() == [0]
    with pytest.raises(UsageError, match="there is none"):
        measure(find("ssim"), flat(0.5, 16))


@pytest.mark.parametrize(
    ("restored", "reference", "error", "reason"),
    [
        (flat(0.5, 16), flat(0.5, 17), UsageError, "one size"),
        (flat(0.5, 16), flat(0.5, 16).expand(2, -1, -1, -1), UsageError, "one size"),
        (flat(0.5, 16)[:, :1], flat(0.5, 16)[:, :1], UsageError, "RGB"),
        (flat(0.5, 16)[0], flat(0.5, 16)[0], UsageError, "RGB"),
        (flat(0.5, 16).byte(), flat(0.5, 16).byte(), UsageError, "floating-point"),
        (255 * flat(0.5, 16), flat(0.5, 16), UsageError, r"from 128 to 128, where \[0, 1\]"),
        (flat(math.nan, 16), flat(0.5, 16), PhotoError, "the photo has pixels that are not numbers"),
        (flat(0.5, 16), flat(math.inf, 16), PhotoError, "the reference has pixels that are not numbers"),
        (flat(0.5, 10), flat(0.5, 10), PhotoError, "10x10 px, where each side needs 11"),
        (flat(0.5, 1), flat(0.5, 1), PhotoError, "1x1 px"),
    ],
)
def test_input_that_makes_no_sense(restored, reference, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        measure(find("ssim"), restored, reference)


def test_one_pixel_has_a_psnr() -> None:
    assert float(measure(find("psnr"), flat(0.6, 1), flat(0.5, 1))) == pytest.approx(20, abs=1e-4)


def test_half_precision_is_measured_in_single(clean: torch.Tensor) -> None:
    halves = noisy(clean, 0.1).half(), clean.half()
    card = replace(find("ssim"), crop=2)
    assert float(measure(card, *halves)) == pytest.approx(float(measure(card, *(image.float() for image in halves))))
