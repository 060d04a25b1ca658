"""Degradations: physics by formula, draws by seed, records that replay."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import clareo
from clareo.degrade import RECIPES, Record, kernels, ops, replay
from clareo.degrade.recipes import draw
from clareo.errors import RecipeError, UnknownNameError
from clareo.quality.reference import psnr

RNG = torch.Generator

KERNELS = {
    "gaussian": lambda rng: kernels.bell(21, rng.uniform(0.3, 3), rng.uniform(0.3, 3), rng.uniform(-3, 3)),
    "generalized": lambda rng: kernels.bell(21, 2, 1, rng.uniform(-3, 3), "generalized", rng.uniform(0.5, 4)),
    "plateau": lambda rng: kernels.bell(21, 2, 1, rng.uniform(-3, 3), "plateau", rng.uniform(1, 2)),
    "sinc": lambda rng: kernels.sinc(21, rng.uniform(math.pi / 5, math.pi)),
    "disk": lambda rng: kernels.disk(rng.uniform(0.5, 8)),
    "line": lambda rng: kernels.line(rng.uniform(2, 40), rng.uniform(0, math.pi)),
    "shake": lambda rng: kernels.shake(rng, rng.uniform(1 / 60, 1 / 2), rng.uniform(0.5, 4)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_sum_to_one_and_are_centred(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        kernel = KERNELS[name](rng)
        axis = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
        assert kernel.shape[0] == kernel.shape[1]
        assert kernel.shape[0] % 2 == 1
        assert kernel.sum() == pytest.approx(1)
        assert abs((kernel.sum(0) * axis).sum()) < 0.1
        assert abs((kernel.sum(1) * axis).sum()) < 0.1


def test_bessel_function_is_exact_enough() -> None:
    """J1 at some points, from Abramowitz & Stegun's tables."""
    known = {0.5: 0.2422684577, 1.0: 0.4400505857, 5.0: -0.3275791376, 20.0: 0.0668331242}
    found = kernels._bessel_j1(np.array(list(known)))
    assert found == pytest.approx(list(known.values()), abs=1e-9)


def test_convolution_is_the_same_directly_and_by_fourier(photo: torch.Tensor) -> None:
    small = kernels.bell(9, 1.2, 0.7, 0.4)
    assert torch.allclose(ops.convolve(photo[0], small), ops.convolve(photo[0], np.pad(small, 2)), atol=1e-5)


def test_identity_settings_reproduce_the_photo(photo: torch.Tensor) -> None:
    image, rng = photo[0], RNG().manual_seed(0)
    height, width = image.shape[1:]
    for same in (
        ops.bell_blur(image, rng, 7, 0.05, 0.05),
        ops.disk_blur(image, rng, 0.4),
        ops.resize(image, rng, height, width, "bicubic"),
        ops.gaussian_noise(image, rng, 0.0),
        ops.sensor_noise(image, rng, 0.0, 0.0),
        ops.jpeg(image, rng, 100, 0),
        ops.quantise(image, rng),
        ops.sharpen(image, rng, amount=0.0),
    ):
        assert float((same - image).abs().mean()) < 1 / 255


@pytest.mark.parametrize("sigma", [5.0, 25.0])
def test_gaussian_noise_has_its_sigma(sigma: float) -> None:
    grey = torch.full((3, 128, 128), 0.5)
    noise = ops.gaussian_noise(grey, RNG().manual_seed(0), sigma) - grey
    assert float(noise.std()) * 255 == pytest.approx(sigma, rel=0.05)
    assert float(torch.corrcoef(noise.flatten(1))[0, 1]) == pytest.approx(0, abs=0.05)
    same = ops.gaussian_noise(grey, RNG().manual_seed(0), sigma, grey=True) - grey
    assert torch.allclose(same[0], same[2])


@pytest.mark.parametrize("grain", [0.0, 0.6])
def test_sensor_noise_follows_its_variance_in_linear_light(grain: float) -> None:
    linear, shot, read = 0.3, 4e-3, 1e-4
    image = ops.to_srgb(torch.full((3, 200, 200), linear))
    noisy = ops.to_linear(ops.sensor_noise(image, RNG().manual_seed(0), shot, read, grain))
    assert float(noisy.var()) == pytest.approx(shot * linear + read, rel=0.05)


def test_the_srgb_curve_inverts() -> None:
    x = torch.linspace(0, 1, 256)
    assert torch.allclose(ops.to_srgb(ops.to_linear(x)), x, atol=1e-5)


def test_worse_jpeg_quality_is_worse(photo: torch.Tensor) -> None:
    rng = RNG()
    scores = [float(psnr(ops.jpeg(photo[0], rng, q)[None], photo)) for q in (10, 20, 40, 60, 80, 95)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_replay_after_a_round_trip_through_json(recipe: str, photo: torch.Tensor) -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for seed in range(4):
        made = clareo.degrade(photo, recipe, seed)
        again = replay(Record.from_json(made.record.to_json()), photo[0])
        assert torch.equal(again, made.tensor)
        assert made.tensor.min() >= 0
        assert made.tensor.max() <= 1
        assert all(0 <= degree <= 1 for degree in made.record.degrees().values())
    assert torch.equal(before[0], torch.random.get_rng_state())  # nothing drew from the global states
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (31, 67)])
def test_recipes_take_photos_of_any_size(recipe: str, size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size, generator=RNG().manual_seed(0))
    for seed in range(3):
        assert bool(torch.isfinite(clareo.degrade(image, recipe, seed).tensor).all())


def test_second_order_ends_at_a_quarter(photo: torch.Tensor) -> None:
    for seed in range(10):
        assert clareo.degrade(photo, "realesrgan", seed).tensor.shape == (3, 32, 40)


def test_draws_follow_the_published_shares() -> None:
    """Chi-square over 2,000 draws of `realesrgan`, against the sheet's probabilities; 99.9 % points."""
    first = [draw("realesrgan", (256, 256), seed).steps for seed in range(2000)]
    blurs = [steps[0] for steps in first]
    sinc = sum(step.op == "sinc_blur" for step in blurs)
    assert abs(sinc - 200) < 3.3 * math.sqrt(2000 * 0.1 * 0.9)
    sizes = np.bincount([int(step.params["size"]) for step in blurs], minlength=22)[7:22:2]
    assert ((sizes - 250) ** 2 / 250).sum() < 26.1  # 8 sizes, 7 degrees of freedom: 24.3 at 99.9 %
    gaussian = sum(any(s.op == "gaussian_noise" for s in steps[:4]) for steps in first)
    assert 0.45 < gaussian / 2000 < 0.8  # in the first or, when there is no resize, the second pass


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'realesrgan'"):
        draw("real-esrgan", (8, 8), 0)


@pytest.mark.parametrize("text", ["", "[]", '{"steps": [{"op": "rm"}]}', '{"steps": 3}', '{"steps": [{}]}'])
def test_broken_records_are_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        Record.from_json(text)


def test_the_prompt_names_actions_and_intervals(photo: torch.Tensor) -> None:
    record = clareo.degrade(photo, "noise-25").record
    assert record.prompt() == "Deblur with sigma 0~0.25, Denoise with sigma 0.5~0.75, Dejpeg with sigma 0~0.25"
    assert record.dominant() == "noise"
