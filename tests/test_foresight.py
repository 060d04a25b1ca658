"""Foresight is learned from what is known of damage that we did ourselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from skimage import data

from clareo.bench.planning import Forest
from clareo.checkpoints import entry_of, load_checkpoint
from clareo.errors import CheckpointError, UsageError
from clareo.planning.foresight import ForesightNetwork, ForesightSettings, build_foresight
from clareo.system import System
from clareo.train import foresight as learning
from clareo.train.foresight import ROUNDING, Lessons, every_gain, examine, fit, shortlist, write

EXPERTS = ("a", "b", "c")


def made_up(count: int, inputs: int = 202, experts: int = 3) -> Lessons:
    """Lessons in which the first features say which blend is right: it leaves nothing but a trace."""
    rng = torch.Generator().manual_seed(count)
    changes = torch.randn(count, experts, 400, generator=rng) * 0.1
    right = torch.randn(count, experts, generator=rng) * 0.5 + 0.3
    missing = torch.einsum("nk,nkp->np", right, changes) + 0.01 * torch.randn(count, 400, generator=rng)
    features = torch.cat([right, torch.randn(count, inputs - experts, generator=rng)], 1)
    return Lessons(
        features,
        changes @ changes.mT / 400,
        torch.einsum("nkp,np->nk", changes, missing) / 400,
        missing.square().mean(1),
    )


def test_errors_of_blends_are_those_of_pictures() -> None:
    changes, missing, weights = torch.randn(5, 3, 400), torch.randn(5, 400), torch.randn(5, 3)
    lessons = Lessons(
        torch.zeros(5, 1),
        changes @ changes.mT / 400,
        torch.einsum("nkp,np->nk", changes, missing) / 400,
        missing.square().mean(1),
    )
    direct = (torch.einsum("nk,nkp->np", weights, changes) - missing).square().mean(1) + ROUNDING
    assert torch.allclose(lessons.errors(weights), direct, rtol=1e-4)
    assert torch.allclose(lessons.errors(weights[:, None].expand(-1, 4, -1)), direct[:, None].expand(-1, 4), rtol=1e-4)


def test_what_can_be_foreseen_is_learned() -> None:
    settings = ForesightSettings(EXPERTS, "", width=32, members=2)
    lessons = made_up(600, settings.inputs)
    scores = examine(fit(lessons, settings, epochs=60), made_up(200, settings.inputs), EXPERTS)
    assert scores["foreseen"] > scores["fixed"] + 3
    untaught = examine(fit(lessons.only(torch.arange(8)), settings, epochs=1), made_up(200, settings.inputs), EXPERTS)
    assert untaught["foreseen"] < scores["foreseen"] - 3


def test_fitting_is_repeatable_and_leaves_no_trace() -> None:
    settings = ForesightSettings(EXPERTS, "", width=8, members=1)
    lessons, before = made_up(130, settings.inputs), torch.random.get_rng_state()
    one, two = (fit(lessons, settings, seed=5, epochs=2).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_shortlist_covers_what_differs() -> None:
    """Half of the photos want one expert, half another: the first two blends are those, not twice a compromise."""
    eye = torch.eye(3).expand(40, 3, 3) * 0.01
    wanted = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).repeat(20, 1)
    lessons = Lessons(torch.zeros(40, 1), eye, 0.01 * wanted, torch.full((40,), 0.01))
    chosen = shortlist(lessons, EXPERTS, 3)
    assert {"a": 1.0} in chosen
    assert {"c": 1.0} in chosen
    grid, gains = every_gain(lessons, EXPERTS)
    assert gains[:, -1].abs().max() < 1e-5  # the photo as it came gains nothing
    assert len(grid) == 42 + 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("astronaut", "coffee"):
        PIL.Image.fromarray(getattr(data, name)()[:160, :160]).save(tmp_path / f"{name}.png")
    return tmp_path


def test_gathering_goes_on_where_it_stopped(folder: Path, unires: System, tmp_path: Path) -> None:
    photos = sorted(folder.glob("*.png"))
    whole = learning.gather(unires, photos, 3, 0, tmp_path / "whole.safetensors")
    learning.gather(unires, photos, 2, 0, tmp_path / "part.safetensors")
    part = learning.gather(unires, photos, 3, 0, tmp_path / "part.safetensors")
    for name in Lessons.__dataclass_fields__:
        assert torch.equal(getattr(whole, name), getattr(part, name))
    other = replace(unires, fingerprint="0" * 64)
    for system, seen, seed in ((other, photos, 0), (unires, photos[:1], 0), (unires, photos, 1)):
        with pytest.raises(UsageError, match="lessons of another"):
            learning.gather(system, seen, 3, seed, tmp_path / "part.safetensors")


@pytest.mark.slow
def test_the_command_makes_a_checkpoint(folder: Path, unires: System, tmp_path: Path) -> None:
    out = tmp_path / "foresight.safetensors"
    learning.main([str(folder), "-o", str(out), "--lessons", "12"])
    found = build_foresight(load_checkpoint(out))
    assert found.settings.experts == unires.experts
    assert found.settings.weights_sha256 == unires.fingerprint
    assert len(found.shortlist) == learning.SHORTLISTED
    lessons = load_file(out.with_suffix(".lessons.safetensors"))
    blend = Forest(out.with_suffix(".lessons.safetensors"), unires.experts).blend(lessons["features"][0])
    assert sum(blend.values()) == pytest.approx(1)


def test_another_judge_than_the_lessons_were_told_by_is_refused(tmp_path: Path, unires: System) -> None:
    known = entry_of("judge-nano")
    settings = ForesightSettings(unires.experts, unires.fingerprint, judge=known.name, judge_sha256=known.sha256)
    network = ForesightNetwork(settings)
    write(network, settings, tmp_path / "same.safetensors", "", {})
    assert build_foresight(load_checkpoint(tmp_path / "same.safetensors")).settings == settings
    other = replace(settings, judge_sha256="0" * 64)
    write(network, other, tmp_path / "other.safetensors", "", {})
    with pytest.raises(CheckpointError, match="another judge-nano"):
        build_foresight(load_checkpoint(tmp_path / "other.safetensors"))
