"""Trust: what was kept counts, what was made up is found, and where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clareo import trust
from clareo.bench.forgery import area_under_curve, forge
from clareo.degrade.recipes import degrade_tensor
from clareo.diffusion.guidance import Guidance, Spread, guide
from clareo.trust import disagreement, draw_map, measure_trust
from clareo.types import Condition, Latent


def test_the_photo_itself_is_trusted_fully(photo: torch.Tensor) -> None:
    trust = measure_trust(photo, photo)
    assert trust.score == 1
    assert float(trust.kept.min()) == 1


def test_invented_texture_is_found(shared_photos: torch.Tensor) -> None:
    areas = []
    for k, photo in enumerate(shared_photos):
        forged, where = forge(photo[None], shared_photos[k - 7][None], k)
        areas.append(area_under_curve(-measure_trust(forged, photo[None]).kept, where))
    assert np.mean(areas) > 0.9
    assert min(areas) > 0.7


def test_invented_texture_is_found_in_a_denoised_photo(shared_photos: torch.Tensor) -> None:
    areas = []
    for k, photo in enumerate(shared_photos):
        noisy = degrade_tensor(photo, "noise-25", k).tensor[None]
        forged, where = forge(photo[None], shared_photos[k - 7][None], k)
        areas.append(area_under_curve(-measure_trust(forged, noisy).kept, where))
    assert np.mean(areas) > 0.8


def test_smoothing_makes_nothing_up_and_sharpening_little(photo: torch.Tensor) -> None:
    smooth = F.avg_pool2d(F.pad(photo, (1,) * 4, mode="reflect"), 3, 1)
    assert measure_trust(smooth, photo).score > 0.9
    assert measure_trust((photo + 0.5 * (photo - smooth)).clamp(0, 1), photo).score > 0.85
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    assert measure_trust((photo + noise).clamp(0, 1), photo).score < 0.6


def test_stripes_do_not_show(photo: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    tall = torch.cat([photo] * 9, dim=2)  # several stripes
    noise = torch.randn(tall.shape, generator=torch.Generator().manual_seed(0)) * 0.05
    striped = measure_trust((tall + noise).clamp(0, 1), tall).kept
    monkeypatch.setattr(trust, "PIECE", (10_000, 10_000))
    assert torch.allclose(striped, measure_trust((tall + noise).clamp(0, 1), tall).kept, atol=1e-4)


def test_experts_that_disagree_cost_trust(photo: torch.Tensor) -> None:
    agreed = measure_trust(photo, photo, torch.zeros(1, 1, 32, 40))
    torn = measure_trust(photo, photo, disagreement([photo, (photo + 0.1).clamp(0, 1)]))
    assert agreed.score == 1
    assert torn.score < 0.7


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (17, 31)])
def test_any_size(size: tuple[int, int]) -> None:
    photo = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    assert measure_trust(photo, photo).score == 1
    assert 0 <= measure_trust(photo.flip(-1) * 0.9, photo).score <= 1


def test_the_map_has_the_photo_and_a_legend(photo: torch.Tensor) -> None:
    forged, where = forge(photo, photo.flip(-1), 0)
    picture = np.asarray(draw_map(measure_trust(forged, photo), forged)).astype(int)
    assert picture.shape[0] > photo.shape[-2]
    redness = picture[: photo.shape[-2], : photo.shape[-1], 0] - picture[: photo.shape[-2], : photo.shape[-1], 2]
    assert redness[where[0, 0]].mean() > 3 * redness[~where[0, 0]].mean()


def test_spread_is_the_weighted_variance() -> None:
    x = torch.rand(1, 4, 130, 5, generator=torch.Generator().manual_seed(0))
    shifts = {"a": 0.3, "b": -0.2, "c": 0.1}
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}

    def denoiser(seen: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        del t
        assert condition.text is not None
        return seen + condition.text.reshape(-1, 1, 1, 1)

    branches = {name: Condition(text=torch.full((1, 1, 1), shift)) for name, shift in shifts.items()}
    mean = sum(weights[n] * shifts[n] for n in shifts)
    wanted = sum(weights[n] * (shifts[n] - mean) ** 2 for n in shifts)
    for together in (True, False):
        spread = Spread()
        guide(denoiser, branches, Guidance(weights), together=together, spread=spread)(x, torch.ones(1))
        assert spread.variance is not None
        assert spread.variance.shape == (1, 1, 130, 5)
        assert torch.allclose(spread.variance, torch.tensor(wanted), atol=1e-6)
