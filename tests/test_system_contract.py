"""What every system promises. A sixth one is tested the day it lands."""

from __future__ import annotations

import pytest
import torch

import clareo
from clareo.checkpoints import packaged
from clareo.errors import CheckpointError
from clareo.planning import complete
from clareo.system import System
from clareo.types import Percept

SYSTEMS = clareo.list_systems()
EMBEDDED = sorted({entry.system for entry in packaged().values()} & set(SYSTEMS))


@pytest.mark.parametrize("name", sorted(set(SYSTEMS) - set(EMBEDDED)))
def test_a_system_without_an_embedded_model_says_so(name: str) -> None:
    with pytest.raises(CheckpointError, match="no embedded model"):
        clareo.load_system(name)


@pytest.fixture(scope="module", params=EMBEDDED)
def system(request: pytest.FixtureRequest) -> System:
    return clareo.load_system(request.param)


def crop(photo: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return photo[..., :height, :width]


def test_names_agree(system: System) -> None:
    assert system.name in SYSTEMS
    assert system.preset == "nano"
    assert len(system.fingerprint) == 64
    assert abs(sum(system.weights.values()) - 1) < 1e-6


def test_branches_match_the_experts(system: System, photo: torch.Tensor) -> None:
    branches = system.condition(crop(photo, 64, 64), Percept())
    assert list(branches) == [*system.experts, *system.extras]
    assert set(system.weights) <= set(branches)
    for _, expert in system.cases.values():
        assert expert in system.experts


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 23), (64, 64), (101, 67)])
@pytest.mark.parametrize("upscale", [1, 2])
def test_any_size_comes_back(system: System, photo: torch.Tensor, size: tuple[int, int], upscale: int) -> None:
    out = clareo.restore(crop(photo, *size), system=system, upscale=upscale, steps=1)
    assert out.tensor.shape == (1, 3, size[0] * upscale, size[1] * upscale)
    assert out.image.size == (size[1] * upscale, size[0] * upscale)
    assert float(out.tensor.min()) >= 0
    assert float(out.tensor.max()) <= 1


def test_the_same_seed_gives_the_same_bytes(system: System, photo: torch.Tensor) -> None:
    image = crop(photo, 64, 80)
    first, second = (clareo.restore(image, system=system, steps=3, seed=4) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert torch.equal(first.tensor, second.tensor)
    again = clareo.restore(image, system=system, plan=first.plan)
    assert torch.equal(first.tensor, again.tensor)


def test_nothing_shared_is_changed(system: System, photo: torch.Tensor) -> None:
    image = crop(photo, 64, 80).clone()
    weights = {name: value.clone() for name, value in system.network.state_dict().items()}
    state = torch.random.get_rng_state()
    clareo.restore(image, system=system, steps=2)
    assert torch.equal(image, crop(photo, 64, 80))
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value in system.network.state_dict().items():
        assert torch.equal(value, weights[name])


def test_tiles_and_the_whole_agree(system: System, photo: torch.Tensor) -> None:
    """The seam: difference below 1/255 on average, and no worse along the tile borders than elsewhere."""
    whole = clareo.restore(photo, system=system, steps=2, tile=512).tensor
    tiled = clareo.restore(photo, system=system, steps=2, tile=128).tensor
    difference = (whole - tiled).abs()
    assert float(difference.mean()) < 1 / 255
    assert float(difference.max()) < 0.1


def test_defaults_make_a_plan(system: System) -> None:
    plan = complete(system)
    assert plan.steps == system.steps
    assert dict(plan.weights) == dict(system.weights)


def test_blending_one_step_is_linear_in_pixels(system: System, photo: torch.Tensor) -> None:
    """With a lossless codec and one step, a blend of restorations is the restoration of the blend."""
    canvas = crop(photo, 64, 64)
    branches = system.condition(canvas, Percept())
    x, t = system.codec.encode(canvas), torch.ones(1)
    with torch.inference_mode():
        first, second = list(branches.values())[:2]
        a, b = (system.codec.decode(system.denoiser(x, t, branch)) for branch in (first, second))
        blended = system.codec.decode(1.2 * system.denoiser(x, t, first) - 0.2 * system.denoiser(x, t, second))
    assert torch.allclose(1.2 * a - 0.2 * b, blended, atol=1e-5)
