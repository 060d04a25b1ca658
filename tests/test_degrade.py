"""Degradations: physics by formula, draws by seed, records that replay."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import clareo
from clareo.degrade import RECIPES, Record, kernels, ops, replay, words
from clareo.degrade.audit import audit
from clareo.degrade.recipes import draw, second_order
from clareo.degrade.recipes.second_order import PRESETS
from clareo.degrade.recipes.small import LENGTHS
from clareo.degrade.record import OPS, Step
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
    padded = torch.nn.functional.pad(photo, (4,) * 4, mode="reflect")
    weight = torch.from_numpy(small).float().flip(0, 1).expand(3, 1, 9, 9)
    direct = torch.nn.functional.conv2d(padded, weight, groups=3)
    assert torch.allclose(ops.convolve(photo[0], small), direct[0], atol=1e-5)
    assert torch.allclose(ops.convolve(photo.repeat(2, 1, 1, 1), small)[1], direct[0], atol=1e-5)  # a batch as well


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


def test_sharpening_by_a_quarter_of_the_resolution_is_the_formula(shared_photos: torch.Tensor) -> None:
    kernel = kernels.bell(51, 8.0, 8.0)
    for photo in shared_photos[::5]:
        detail = photo - ops.convolve(photo, kernel)
        mask = ops.convolve((detail.abs() * 255 > 10).float(), kernel)
        exact = mask * (photo + 0.5 * detail).clamp(0, 1) + (1 - mask) * photo
        assert float((ops.sharpen(photo, RNG()) - exact).abs().mean()) < 0.1 / 255


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


@pytest.mark.parametrize("op", [name for name in OPS if name not in ("jpeg", "webp")])
def test_a_batch_is_degraded_photo_by_photo(op: str, photo: torch.Tensor) -> None:
    """The same parameters for all; noise is drawn anew for each photo, and never once for a whole batch."""
    step = next(step for step in EXAMPLES if step.op == op)
    batch = Record((step,)).apply(torch.cat([photo, photo]))
    assert torch.allclose(batch[0], Record((step,)).apply(photo)[0], atol=1e-6) or "noise" in op
    assert bool((batch[0] != batch[1]).any()) == ("noise" in op)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (31, 67)])
def test_recipes_take_photos_of_any_size(recipe: str, size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size, generator=RNG().manual_seed(0))
    for seed in range(3):
        assert bool(torch.isfinite(clareo.degrade(image, recipe, seed).tensor).all())


@pytest.mark.parametrize("recipe", ["realesrgan", "motion", "defocus", "blur+noise"])
def test_small_photos_get_small_blurs(recipe: str) -> None:
    """At 512 px nothing changes; at 64 lengths are an eighth, above their floors; noise and JPEG stay."""
    for seed in range(12):
        plain, large = (draw(name, (512, 600), seed).steps for name in (recipe, f"{recipe}-small"))
        assert plain == large
        plain, tiny = (draw(name, (64, 80), seed).steps for name in (recipe, f"{recipe}-small"))
        assert [step.op for step in plain] == [step.op for step in tiny]
        for before, after in zip(plain, tiny, strict=True):
            for name, value in before.params.items():
                if name in LENGTHS.get(before.op, {}):
                    least = {"size": 3, "length": 1, "amplitude": 0}.get(name, 0.2)
                    wanted = max(least, float(value) / 8)
                    assert float(after.params[name]) == pytest.approx(wanted, abs=1 if name == "size" else 1e-9)
                else:
                    assert after.params[name] == value


EXAMPLES = (
    Step("oversmooth", {"radius": 4, "strength": 0.1}),
    Step("overdeconvolve", {"radius": 2.0, "noise": 0.02}),
    Step("oversharpen", {"sigma": 1.2, "amount": 2.0}),
    Step("invent_texture", {"strength": 0.05, "size": 4.0, "slant": 0.5}, seed=1),
    Step.of("haze", 1, beta=1.0, air=0.8),
    Step.of("low_light", gamma=2.0),
    Step.of("rain", 2, density=0.01, strength=0.6, length=20.0, slant=0.2, veil=0.3),
    Step.of("raindrop", 3, count=20, radius=12.0),
    Step.of("object_motion", 4, exposure=0.1, amplitude=3.0),
    Step.of("layered_defocus", 5, radius=4.0),
    Step.of("bell_blur", size=9, sigma_x=1.0, sigma_y=2.0),
    Step.of("sinc_blur", size=9, cutoff=1.5),
    Step.of("disk_blur", radius=2.0),
    Step.of("line_blur", length=6.0, angle=0.3),
    Step.of("shake_blur", 6, exposure=0.1, amplitude=2.0),
    Step.of("gaussian_noise", 7, sigma=20.0, grey=True),
    Step.of("poisson_noise", 8, scale=1.0, grey=True),
    Step.of("shot_noise", 8, scale=1.0, grey=True),
    Step.of("sensor_noise", 9, shot=1e-2, read=1e-4),
    Step.of("resize", height=32, width=40, mode="area"),
    Step.of("sharpen"),
    Step.of("quantise"),
)


def test_second_order_ends_at_a_quarter(photo: torch.Tensor) -> None:
    for seed in range(10):
        assert clareo.degrade(photo, "realesrgan", seed).tensor.shape == (3, 32, 40)


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'realesrgan'"):
        draw("real-esrgan", (8, 8), 0)


@pytest.mark.parametrize("text", ["", "[]", '{"steps": [{"op": "rm"}]}', '{"steps": 3}', '{"steps": [{}]}'])
def test_broken_records_are_refused(text: str) -> None:
    with pytest.raises((RecipeError, UnknownNameError)):
        Record.from_json(text)


def test_the_prompt_names_actions_and_intervals(photo: torch.Tensor) -> None:
    record = clareo.degrade(photo, "noise-25").record
    assert record.prompt() == "Deblur with sigma 0~0.25, Denoise with sigma 0.75~1.0, Dejpeg with sigma 0~0.25"
    assert words.dominant_task(record) == "denoise"


@pytest.mark.parametrize("preset", PRESETS)
def test_draws_follow_the_published_tables(preset: str) -> None:
    """Chi-square at 99.9 %, over 1,500 draws; `clareo bench --degradations` takes 10,000."""
    checks = audit(preset, 1500)
    assert len(checks) == 19
    assert [check.name for check in checks if not check.passed] == []


def test_the_audit_notices_a_wrong_table(monkeypatch: pytest.MonkeyPatch) -> None:
    full = PRESETS["full"]
    wrong = replace(full, first=replace(full.first, sigma=(1, 25), blur_sigma=(0.2, 2.5)))
    drawn = second_order.second_order
    module = sys.modules[audit.__module__]
    monkeypatch.setattr(module, "second_order", lambda rng, size, _: drawn(rng, size, wrong))
    failed = {check.name for check in audit("full", 1500) if not check.passed}
    assert failed == {"first: blur sigma", "first: Gaussian noise"}
