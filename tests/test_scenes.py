"""Procedural scenes: pictures whose masks are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clareo.perceive import scenes
from clareo.perceive.scenes import compose, draw_scene
from clareo.perceive.shapes import KINDS, OUTLINES, SURFACES, ground, surface

SEEDS = range(40)


def test_a_scene_is_a_function_of_its_seed() -> None:
    (photo, masks), (again, others), (another, _) = (
        draw_scene(np.random.default_rng(seed), 96, 128) for seed in (5, 5, 6)
    )
    assert torch.equal(photo, again)
    assert torch.equal(masks, others)
    assert not torch.equal(photo, another)
    assert photo.shape == (3, 96, 128)
    assert masks.shape[1:] == (96, 128)


def test_scenes_are_what_they_say() -> None:
    kinds, counts = set(), set()
    for seed in SEEDS:
        scene = compose(np.random.default_rng(seed), 128, 96)
        assert scene.photo.dtype == torch.float32
        assert 0 <= float(scene.photo.min()) < float(scene.photo.max()) <= 1
        assert scene.masks.dtype == torch.bool
        assert 3 <= len(scene.masks) == len(scene.kinds) <= 8
        assert int(scene.masks.sum(0).max()) == 1  # every pixel is in one at most
        assert int(scene.masks.sum((1, 2)).min()) >= scenes.LEFTOVER * 128 * 96
        kinds |= set(scene.kinds)
        counts.add(len(scene.masks))
    assert kinds == set(range(len(KINDS)))
    assert len(counts) >= 4


def test_masks_are_exact_before_and_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """With flat surfaces in flat light every pixel well inside a mask has its colour, and no other thing has."""
    monkeypatch.setattr(scenes, "surface", lambda _rng, place, colour: _flat(place, colour))
    monkeypatch.setattr(scenes, "_light", lambda _rng, _place: np.float32(1))
    monkeypatch.setattr(scenes, "_colours", lambda _rng, count: np.arange(count)[:, None] / 16 * np.ones(3))
    for seed in SEEDS:
        scene = compose(np.random.default_rng(seed), 96, 96)
        levels = scene.photo[0] * 16
        for number, mask in enumerate(scene.masks, 1):
            full = (levels - number).abs() < 1e-4
            assert int((full & ~mask).sum()) <= 3  # an edge may mix to the same level
            assert float((full & mask).sum() / mask.sum()) > 0.5
        inside = _shrunk(torch.cat([~scene.masks.any(0)[None], scene.masks]))
        owners = (inside * torch.arange(len(inside))[:, None, None]).sum(0)
        wrong = ((levels - owners).abs() > 1e-4)[inside.any(0)]
        assert float(wrong.float().mean()) < 0.005  # tips too thin to own a pixel


def _flat(place: tuple[np.ndarray, np.ndarray], colour: np.ndarray) -> np.ndarray:
    return np.broadcast_to(colour, (*place[0].shape, 3)).astype(np.float32)


def _shrunk(masks: torch.Tensor) -> torch.Tensor:
    """Take a pixel off the rim of masks: edges are antialiased."""
    outside = torch.nn.functional.max_pool2d((~masks).float()[None], 3, 1, 1)[0]
    return outside == 0


def test_the_foremost_wins_from_half_of_a_pixel_on() -> None:
    covers = [np.array([[1, 1, 1, 0]], dtype=np.float32), np.array([[0, 0.5, 0.4, 0.49]], dtype=np.float32)]
    assert scenes._foremost(covers).tolist() == [[0, 1, 0, -1]]


def test_leftovers_are_taken_away_and_what_was_behind_gains() -> None:
    behind, hidden, front = np.zeros((3, 10, 10), dtype=np.float32)
    behind[:, :5], hidden[0, 4:8], front[0, 5:] = 1, 1, 1
    assert scenes._seen([behind, hidden, front], 5) == [0, 2]
    assert scenes._seen([behind, hidden, front], 1) == [0, 1, 2]
    assert scenes._seen([hidden], 5) == []


@pytest.mark.parametrize("kind", KINDS)
def test_outlines_lie_around_the_middle(kind: str) -> None:
    for seed in range(20):
        points = np.concatenate(OUTLINES[kind](np.random.default_rng(seed)))
        reach = np.linalg.norm(points, axis=1)
        assert 0.5 < reach.max() < 2
        assert (np.abs(points.mean(0)) < 0.6).all()


@pytest.mark.parametrize("number", range(len(SURFACES)))
def test_surfaces_lie_between_two_colours(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clareo.perceive.shapes.SURFACES", (SURFACES[number],))
    for seed in range(5):
        share = SURFACES[number](np.random.default_rng(seed), ground(48, 64))
        assert share.shape == (48, 64)
        assert share.dtype == np.float32
        assert 0 <= share.min() <= share.max() <= 1
        made = surface(np.random.default_rng(seed), ground(48, 64), np.array([0.4, 0.5, 0.6]))
        assert made.shape == (48, 64, 3)
        assert made.dtype == np.float32
        assert np.isfinite(made).all()


def test_edges_are_antialiased() -> None:
    angles = np.linspace(0, 2 * np.pi, 100)
    cover = scenes._cover([np.stack([np.cos(angles), np.sin(angles)], 1) * 10 + (20, 16)], (32, 40))
    assert float(cover.sum()) == pytest.approx(100 * np.pi, rel=0.03)
    rows, columns = np.mgrid[:32, :40] + 0.5
    reach = np.hypot(columns - 20, rows - 16)
    assert (cover[reach < 9.2] == 1).all()
    assert (cover[reach > 11] == 0).all()
    assert len(np.unique(cover)) > 8
