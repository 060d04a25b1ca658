"""Weather, light, objects and depth: the physics that a look at the contact sheet cannot prove."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clareo.degrade import kernels, objects, ops, scene
from clareo.degrade.degrees import KINDS, at_degree, meaning_of
from clareo.degrade.record import Record
from clareo.degrade.sheet import ALSO, DEGREES, contact_sheet, steps_of
from clareo.quality.reference import psnr

RNG = torch.Generator


def seeded(seed: int = 0) -> torch.Generator:
    return RNG().manual_seed(seed)


def test_haze_thickens_with_distance_and_keeps_the_near(photo: torch.Tensor) -> None:
    depth = scene.depth_map(64, 80, seeded(3))
    assert float(depth.min()) == 0
    assert float(depth.max()) == pytest.approx(1)
    assert float(depth[:16].mean()) > float(depth[-16:].mean()) + 0.3  # far is up
    black = torch.zeros(3, 64, 80)
    veil = scene.haze(black, seeded(3), beta=1.5, air=0.9).mean(0)
    assert float(torch.corrcoef(torch.stack([veil.flatten(), depth.flatten()]))[0, 1]) > 0.95
    assert torch.allclose(scene.haze(photo[0], seeded(3), beta=0.0, air=0.9), photo[0], atol=1e-6)


def test_rain_streaks_run_along_their_slant_and_only_brighten(photo: torch.Tensor) -> None:
    wet = scene.rain(photo[0], seeded(), density=0.01, strength=0.8, length=24.0, slant=0.0)
    assert bool((wet >= photo[0] - 1e-5).all())
    light = scene.rain(torch.zeros(3, 200, 200), seeded(), 0.01, 0.8, 24.0, 0.0)[0]
    down, across = (light.diff(dim=axis).abs().mean() for axis in (0, 1))
    assert float(down) < 0.5 * float(across)


def test_near_streaks_are_brighter_than_far_ones() -> None:
    light = scene.rain(torch.zeros(3, 300, 300), seeded(1), 0.004, 1.0, 30.0, 0.0)[0]
    lit = light[light > 0.02]
    assert float(lit.max()) > 2 * float(lit.median())


def test_drops_show_the_scene_upside_down() -> None:
    ramp = torch.linspace(0, 1, 200)[:, None].expand(3, 200, 200).contiguous()  # dark above, bright below
    out = scene.raindrop(ramp, seeded(5), count=1, radius=40.0)
    changed = (out - ramp).abs().mean(0) > 0.05
    rows = torch.nonzero(changed.any(1)).flatten()
    middle = int(torch.nonzero(changed.any(0)).flatten().float().mean())
    inside = out[:, rows[0] + 6 : rows[-1] - 5, middle].mean(0)
    assert float(inside[: len(inside) // 3].mean()) > float(inside[-len(inside) // 3 :].mean())
    assert torch.equal(scene.raindrop(ramp, seeded(5), count=0, radius=40.0), ramp)


def test_a_moving_object_takes_nothing_of_the_background_along() -> None:
    """Over black, a white square that moves fades out and never darkens or lights up what it does not cover."""
    image, mask = torch.zeros(3, 64, 64), torch.zeros(64, 64)
    mask[24:40, 24:40] = 1
    image[:, 24:40, 24:40] = 1
    still = kernels.disk(0.4)
    out = objects.blur_objects(image, [mask], [kernels.line(9, 0.0)], still)
    assert float(out[:, 32, 31:33].min()) > 0.99
    assert float(out[:, 32, 12].max()) < 1e-3
    assert bool((out[0, 32, :32].diff() >= -1e-4).all())  # rises from left to the middle: no halo
    grey = torch.full((3, 64, 64), 0.5)
    assert torch.allclose(objects.blur_objects(grey, [mask], [kernels.line(9, 0.0)], still), grey, atol=1e-4)


def test_depth_layers_keep_one_end_sharp(photo: torch.Tensor) -> None:
    out = objects.layered_defocus(photo[0], seeded(2), radius=5.0)
    change = (out - photo[0]).abs().mean((0, 2))
    top, bottom = float(change[:25].mean()), float(change[-25:].mean())
    assert max(top, bottom) > 3 * min(top, bottom)


def test_low_light_darkens_and_noise_is_stronger_in_linear_light() -> None:
    grey = torch.full((3, 100, 100), 0.5)
    dark, noisy = Record(steps_of("low_light", 0.7, (100, 100))[:1]), Record(steps_of("low_light", 0.7, (100, 100)))
    assert float(dark.apply(grey).mean()) < 0.2
    assert float(noisy.apply(grey).std()) > 3 / 255
    assert list(noisy.degrees()) == ["low_light"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "low_resolution"])
def test_parameters_and_degrees_go_both_ways(kind: str) -> None:
    for degree in (0.1, 0.33, 0.5, 0.9):
        op, params = at_degree(kind, degree)
        said, back = meaning_of(op, params)
        assert said == kind
        assert back == pytest.approx(degree, abs=0.02)


@pytest.mark.parametrize("kind", [*KINDS, *ALSO])
def test_a_higher_degree_is_worse(kind: str, shared_photos: torch.Tensor) -> None:
    means = []
    for degree in DEGREES:
        scores = [
            float(psnr(Record(steps_of(kind, degree, (128, 128), seed)).apply(photo)[None], photo[None]))
            for seed, photo in enumerate(shared_photos)
        ]
        means.append(np.mean(scores))
    assert means == sorted(means, reverse=True)


def test_the_sheet_shows_every_kind_at_every_degree(photo: torch.Tensor) -> None:
    sheet = contact_sheet(photo[0], side=40)
    assert sheet.size[0] == len(DEGREES) * (40 + 4)
    pixels = ops.from_pil(sheet)
    assert float(pixels.std()) > 0.1
