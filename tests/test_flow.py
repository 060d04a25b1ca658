"""Rectified flow: times that look longer where there is noise, slopes, and guidance that never makes them larger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from clareo.diffusion.denoiser import Denoiser
from clareo.diffusion.guidance import Guidance, Spread, guide
from clareo.diffusion.process import DDPM, Flow
from clareo.diffusion.renormalise import Mode, Renormalised, text_and_image
from clareo.diffusion.samplers import sample_euler
from clareo.diffusion.shift import draw_shifted, shifted, shifted_times
from clareo.errors import UsageError, WeightsError
from clareo.types import Condition, Latent

NAMES = ("full", "no_text", "no_image")
TIME = torch.tensor([0.7, 0.7])


# --- times -----------------------------------------------------------------------------------------------------------


def test_a_grid_of_points_is_one_step_shorter() -> None:
    points = torch.linspace(1, 0, 50, dtype=torch.float64)
    wanted = 4 * points / (1 + 3 * points)
    assert torch.allclose(shifted_times(49, 4.0), wanted)
    assert shifted_times(1, 4.0).tolist() == [1.0, 0.0]
    assert torch.allclose(shifted(points, 1.0), points)


def test_times_to_train_at_are_a_shifted_logit_normal() -> None:
    t = draw_shifted(40_000, 4.0, torch.Generator().manual_seed(0))
    u = torch.logit(t / (4 - 3 * t))  # undone
    assert abs(float(u.mean())) < 0.02
    assert abs(float(u.std()) - 1) < 0.02
    assert abs(float(t.median()) - 0.8) < 0.01


# --- slopes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [Flow(), DDPM.dit()])
def test_the_slope_gives_the_clean_latent_back(process: Flow | DDPM) -> None:
    clean, noise = torch.randn(2, 2, 3, 4, 4).unbind(0)
    denoiser = Denoiser(lambda *_: noise - clean, process, "slope")
    assert torch.equal(denoiser.target(clean, noise, TIME), noise - clean)
    x = denoiser.mix(clean, noise, TIME)
    assert torch.allclose(denoiser(x, TIME, Condition()), clean, atol=1e-5)


def test_a_walk_is_eulers_method_on_velocities() -> None:
    def velocity(x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        del condition
        return torch.sin(3 * x) + t[:, None, None, None]

    denoiser, start = Denoiser(velocity, Flow(), "slope"), torch.randn(2, 3, 4, 4)
    walked = sample_euler(
        lambda x, t: denoiser(x, t, Condition()), start, shifted_times(5, 4.0), Flow(), torch.Generator()
    )
    x = start
    for now, following in zip(shifted_times(5, 4.0)[:-1], shifted_times(5, 4.0)[1:], strict=True):
        x = x - velocity(x, now.float().expand(2), Condition()) * float(now - following)
    assert torch.allclose(walked, x, atol=1e-5)


# --- guidance --------------------------------------------------------------------------------------------------------


def branches() -> dict[str, Condition]:
    rng = torch.Generator().manual_seed(0)
    return {name: Condition(control=torch.randn(1, 4, 6, 8, generator=rng)) for name in NAMES}


class Counted:
    """Velocities that conditions name; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        del t
        assert condition.control is not None
        self.asked += 1
        return condition.control * torch.arange(1, len(x) + 1)[:, None, None, None] + 0.1 * x


def blend(mode: Mode, text: float, image: float, t: torch.Tensor = TIME) -> tuple[Latent, dict[str, Latent], Counted]:
    """Return the guided velocity, those of the branches, and who was asked."""
    counted, x = Counted(), torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    denoiser = Denoiser(counted, Flow(), "slope")
    wrapped = Renormalised(NAMES[0], NAMES[1], mode, patch=2)
    denoise = wrapped(denoiser, branches(), Guidance(text_and_image(text, image, NAMES)))
    said = (x - denoise(x, t)) / t[:, None, None, None]
    alone = {name: Counted()(x, t, condition.expand(2)) for name, condition in branches().items()}
    return said, alone, counted


def norms(v: Latent, mode: Mode) -> torch.Tensor:
    """Norms as BAGEL takes them: of tokens of 2 x 2 latent pixels with all their channels, or of everything."""
    tokens = v.reshape(2, 4, 3, 2, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(2, 12, 16)
    if mode == "global":
        return tokens.flatten(1).norm(dim=1)[:, None, None, None]
    each = tokens.norm(dim=-1).reshape(2, 1, 3, 4)
    return each.repeat_interleave(2, 2).repeat_interleave(2, 3)


def published(v: Mapping[str, Latent], mode: Mode, text: float, image: float) -> Latent:
    """The equations of BAGEL's sheet, one after the other."""
    full, no_text, no_image = (v[name] for name in NAMES)
    v_a = no_text + text * (full - no_text)
    if mode == "text_channel":
        v_a = v_a * (norms(full, mode) / (norms(v_a, mode) + 1e-8)).clamp(0, 1)
        return no_image + image * (v_a - no_image)
    v_b = no_image + image * (v_a - no_image)
    return v_b * (norms(full, mode) / (norms(v_b, mode) + 1e-8)).clamp(0, 1)


@pytest.mark.parametrize("mode", ["global", "channel", "text_channel"])
@pytest.mark.parametrize(("text", "image"), [(4.0, 1.5), (4.0, 1.0), (1.0, 2.0)])
def test_guidance_is_what_the_equations_say(mode: Mode, text: float, image: float) -> None:
    said, alone, counted = blend(mode, text, image)
    assert torch.allclose(said, published(alone, mode, text, image), atol=1e-4)
    assert counted.asked == len(text_and_image(text, image, NAMES))  # every branch once
    if mode != "text_channel":
        assert bool((norms(said, mode) <= norms(alone["full"], mode) * 1.001).all())


@pytest.mark.parametrize(("t", "guided"), [(0.4, False), (0.41, True), (1.0, True)])
def test_late_steps_go_without(t: float, guided: bool) -> None:
    said, alone, counted = blend("global", 4.0, 1.5, torch.full((2,), t))
    assert torch.allclose(said, alone["full"], atol=1e-4) is not guided
    assert counted.asked == (3 if guided else 1)


def test_without_anything_to_renormalise_it_is_plain_guidance() -> None:
    x, denoiser = torch.randn(2, 4, 6, 8), Denoiser(Counted(), Flow(), "slope")
    weights = Guidance({"no_text": 0.5, "no_image": 0.5})
    wrapped, spread = Renormalised("full"), Spread()
    said = wrapped(denoiser, branches(), weights, spread=spread)(x, TIME)
    assert torch.allclose(said, guide(denoiser, branches(), weights, together=False)(x, TIME), atol=1e-6)
    assert spread.variance is not None
    assert spread.variance.shape == (2, 1, 6, 8)
    with pytest.raises(WeightsError, match="no such expert: more"):
        wrapped(denoiser, branches(), Guidance({"more": 1.0}))


@pytest.mark.parametrize("changes", [{"mode": "some"}, {"patch": 0}, {"mode": "text_channel"}])
def test_impossible_renormalisations_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="impossible"):
        replace(Renormalised("full"), **changes)
