"""Samplers against a Gaussian, whose denoiser is known in closed form: their order can be measured."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from clareo.diffusion.process import DDPM, DirectIteration, Flow, Process
from clareo.diffusion.samplers import even_times, sample_ddim, sample_ddpm, sample_euler, sample_heun
from clareo.types import Denoise

MEAN, STD = 0.3, 0.5


def gaussian_denoiser(process: Process) -> Denoise:
    """E[clean | x_t] for clean ~ N(MEAN, STD^2) and far ~ N(0, 1)."""

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = process.alpha(t.double())[0], process.sigma(t.double())[0]
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return MEAN + gain * (x - alpha * MEAN)

    return denoise


def exact(process: Process, x: torch.Tensor) -> torch.Tensor:
    """The probability flow keeps quantiles: x_1 -> the same quantile of the clean distribution."""
    one = torch.ones(1, dtype=torch.float64)
    alpha, sigma = float(process.alpha(one)), float(process.sigma(one))
    spread = (alpha**2 * STD**2 + sigma**2) ** 0.5
    return MEAN + STD * (x - alpha * MEAN) / spread


def error(sampler, process: Process, steps: int) -> float:
    x = torch.linspace(-2, 2, 41, dtype=torch.float64).reshape(1, 1, 1, -1)
    rng = torch.Generator()
    found = sampler(gaussian_denoiser(process), x, straight_times(process, steps), process, rng)
    return float((found - exact(process, x)).abs().max())


def straight_times(process: Process, steps: int) -> torch.Tensor:
    """Times at which u = sigma / (alpha + sigma) is even; DDPM's u runs like sqrt(t) near 0, which hides the order."""
    low, high = torch.zeros(steps + 1, dtype=torch.float64), torch.ones(steps + 1, dtype=torch.float64)

    def place(t: torch.Tensor) -> torch.Tensor:
        return process.sigma(t) / (process.alpha(t) + process.sigma(t))

    wanted = torch.linspace(1, 0, steps + 1, dtype=torch.float64) * place(torch.ones(1, dtype=torch.float64))
    for _ in range(60):
        middle = (low + high) / 2
        below = place(middle) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    low[0], low[-1] = 1, 0
    return low


@pytest.mark.parametrize("process", [Flow(), DDPM.dit(), DDPM.stable_diffusion()])
@pytest.mark.parametrize(("sampler", "order"), [(sample_euler, 1), (sample_ddim, 1), (sample_heun, 2)])
def test_halving_the_step_divides_the_error(sampler, order: int, process: Process) -> None:
    coarse, fine = error(sampler, process, 100), error(sampler, process, 200)
    ratio = coarse / fine
    assert 2**order * 0.85 < ratio < 2**order * 1.25, ratio


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_draws_the_right_distribution_for_any_eta(eta: float) -> None:
    process = DDPM.dit()
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 100, 200, generator=rng, dtype=torch.float64)
    drawn = sample_ddim(gaussian_denoiser(process), x, even_times(200), process, rng, eta)
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(STD, abs=0.02)


def test_ancestral_sampling_is_the_posterior_of_ddpm() -> None:
    """One step of all 1,000: mean and variance against Ho et al.'s formulas (6) and (7)."""
    process = DDPM.stable_diffusion()
    bars = process.alpha_bar
    step = 600
    beta = 1 - bars[step] / bars[step - 1]
    clean, x = 0.2, 0.9
    mean = (bars[step - 1].sqrt() * beta * clean + (1 - beta).sqrt() * (1 - bars[step - 1]) * x) / (1 - bars[step])
    variance = (1 - bars[step - 1]) / (1 - bars[step]) * beta
    times = torch.tensor([step / 1000, (step - 1) / 1000], dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    start = torch.full((1, 1, 300, 300), x, dtype=torch.float64)
    drawn = sample_ddpm(lambda x, t: torch.full_like(x, clean), start, times, process, rng)  # noqa: ARG005
    assert float(drawn.mean()) == pytest.approx(float(mean), abs=1e-3)
    assert float(drawn.var()) == pytest.approx(float(variance), rel=0.02)


def test_direct_iteration_is_indis_formula() -> None:
    """x_s = (s/t) x_t + (1 - s/t) clean."""
    process = DirectIteration()
    x = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    guesses = iter([torch.zeros_like(x), torch.ones_like(x)])
    found = sample_ddim(lambda x, t: next(guesses), x, even_times(2), process, torch.Generator())  # noqa: ARG005
    assert torch.equal(found, torch.ones_like(x))
    seen = []

    def watch(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x.clone(), float(t[0])))
        return torch.full_like(x, 0.25)

    sample_ddim(watch, x, even_times(4), process, torch.Generator())
    for (x_t, t), (x_s, s) in pairwise(seen):
        assert torch.allclose(x_s, s / t * x_t + (1 - s / t) * 0.25, atol=1e-6)


@pytest.mark.parametrize("sampler", [sample_ddim, sample_ddpm, sample_euler, sample_heun])
def test_the_start_is_left_alone_and_noise_comes_from_the_generator(sampler) -> None:
    process = DDPM.dit()
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = x.clone()
    first, second = (
        sampler(gaussian_denoiser(process), x, even_times(5), process, torch.Generator().manual_seed(3)) for _ in "ab"
    )
    assert torch.equal(x, before)
    assert torch.equal(first, second)
