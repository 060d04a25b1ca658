"""Instances: painted and read back, under the tokens of a network, and the losses and measures that ask for them."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clareo.diffusion.losses import alignment, instance_scale
from clareo.errors import UsageError
from clareo.perceive.instances import instances_of, mean_iou, paint, scales, token_ids, visible
from clareo.perceive.regions import as_masks, calmed, components, renumbered
from clareo.perceive.scenes import compose
from clareo.quality.awareness import affinity, border_miou, fit_probe, kind_miou, label_miou, neighbours, norm_variance


def square(top: int, left: int, side: int, size: int = 32) -> torch.Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- label maps ------------------------------------------------------------------------------------------------------


def test_components_agree_with_other_people() -> None:
    label = pytest.importorskip("skimage.measure").label
    for seed in range(4):
        labels = np.random.default_rng(seed).integers(0, 3, (40, 57))
        ours, theirs = components(labels), label(labels, background=-1, connectivity=1)
        pairs = set(zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(ours)) == len(np.unique(theirs))
    spiral = np.zeros((9, 9), dtype=np.int64)
    spiral[1, 1:8] = spiral[1:8, 7] = spiral[7, 1:8] = spiral[3:8, 1] = spiral[3, 1:6] = 1
    assert components(spiral).max() == 1
    assert components(np.zeros((1, 1), dtype=np.int64)).tolist() == [[0]]


def test_label_maps_and_masks() -> None:
    labels = np.array([[-1, 2], [5, 5]])
    assert renumbered(labels).tolist() == [[-1, 0], [1, 1]]
    assert as_masks(renumbered(labels)).tolist() == [[[False, True], [False, False]], [[False, False], [True, True]]]
    assert as_masks(np.full((2, 3), -1)).shape == (0, 2, 3)
    spotted = torch.zeros(16, 16, dtype=torch.int64)
    spotted[:, 8:], spotted[4, 4] = 3, -1
    assert calmed(spotted, 3)[4, 4] == 0
    assert torch.equal(calmed(spotted, 3)[:, 8:], spotted[:, 8:])


# --- painting --------------------------------------------------------------------------------------------------------


def test_colours_say_where_and_how_large() -> None:
    """Right of the middle red, below chartreuse (a quarter of the circle), and so on; the largest brightest."""
    right, below, left = square(12, 22, 9), square(22, 12, 8), square(12, 2, 7)
    painted = paint(torch.stack([right, below, left]))
    assert painted.shape == (3, 32, 32)
    hues = {"right": (16, 26), "below": (26, 16), "left": (15, 5)}
    seen = {name: painted[:, row, column] for name, (row, column) in hues.items()}
    assert [float(colour.max()) for colour in seen.values()] == pytest.approx([1.0, 0.7, 0.4])
    assert all(float(colour.min()) == 0 for colour in seen.values())  # saturation 1
    assert seen["right"].argmax() == 0
    assert seen["below"][0] / seen["below"][1] == pytest.approx(0.5, abs=0.1)
    assert seen["left"][1] == pytest.approx(float(seen["left"][2]), abs=0.1)  # cyan
    assert float(painted[:, 0, 0].max()) == 0


def test_every_hue_is_hsv_s() -> None:
    colorsys = pytest.importorskip("colorsys")
    for place in range(24):
        angle = 2 * math.pi * place / 24
        row, column = round(50 + 40 * math.sin(angle)), round(50 + 40 * math.cos(angle))
        mask = torch.zeros(101, 101, dtype=torch.bool)
        mask[row, column] = True
        hue = math.atan2(row - 50, column - 50) / (2 * math.pi) % 1
        assert paint(mask[None])[:, row, column].tolist() == pytest.approx(colorsys.hsv_to_rgb(hue, 1, 1), abs=1e-6)


def test_painting_depends_on_geometry_alone() -> None:
    masks = compose(np.random.default_rng(3), 64, 96).masks
    painted = paint(masks)
    assert torch.equal(paint(masks.flip(0)), painted)
    assert torch.equal(paint(torch.cat([masks, torch.zeros(1, 64, 96, dtype=torch.bool)])), painted)
    twins = torch.stack([square(2, 2, 5), square(20, 20, 5)])
    assert torch.equal(paint(twins.flip(0)), paint(twins))
    assert not paint(torch.zeros(0, 8, 8, dtype=torch.bool)).any()


def test_small_ones_lie_on_top() -> None:
    masks = torch.stack([square(10, 10, 4), square(4, 4, 20)])
    assert visible(masks)[12, 12] == 0
    assert visible(masks)[5, 5] == 1
    assert visible(masks)[0, 0] == -1
    assert not torch.equal(paint(masks)[:, 12, 12], paint(masks)[:, 5, 5])


def test_painted_maps_are_read_back() -> None:
    exact, worn = [], []
    for seed in range(12):
        masks = compose(np.random.default_rng(seed), 128, 128).masks
        painted = paint(masks)
        noisy = painted + 0.08 * torch.randn(painted.shape, generator=generator(seed))
        blurred = F.avg_pool2d(F.pad(noisy[None], (2, 2, 2, 2), mode="replicate"), 5, 1)[0]
        exact.append(mean_iou(instances_of(painted), masks))
        worn.append(mean_iou(instances_of(blurred), masks))
        assert int(instances_of(blurred).sum(0).max()) == 1
    assert np.mean(exact) > 0.85
    assert np.mean(worn) > 0.7


def test_noise_and_nothing_hold_no_instances() -> None:
    assert len(instances_of(torch.zeros(3, 40, 50))) == 0
    assert len(instances_of(0.03 * torch.randn(3, 40, 50, generator=generator()))) == 0
    speck = torch.zeros(3, 100, 100)
    speck[0, 5:9, 5:9] = 1
    assert len(instances_of(speck)) == 0
    found = instances_of(paint(torch.stack([square(2, 2, 9), square(18, 12, 12)])))
    assert found.flatten(1).sum(1).tolist() == sorted(found.flatten(1).sum(1).tolist(), reverse=True)


def test_mean_iou() -> None:
    true = torch.stack([square(0, 0, 8), square(16, 16, 8)])
    assert mean_iou(true, true) == 1
    assert mean_iou(true.flip(0), true) == 1
    assert mean_iou(true[:1], true) == 0.5
    assert mean_iou(torch.zeros(0, 32, 32, dtype=torch.bool), true) == 0
    shifted = torch.stack([square(0, 4, 8), square(16, 16, 8)])
    assert mean_iou(shifted, true) == pytest.approx((1 + 32 / 96) / 2)
    both = true.any(0)[None]  # one found mask serves one true one only
    assert mean_iou(both, true) == pytest.approx(0.25)
    assert mean_iou(true, torch.cat([true, torch.zeros(1, 32, 32, dtype=torch.bool)])) == 1
    assert math.isnan(mean_iou(true, true[:0]))


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_tokens_take_the_majority() -> None:
    masks = torch.stack([square(0, 0, 10), square(8, 14, 4)])
    ids = token_ids(masks, 8)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[0, -1, -1, -1]] + 3 * [[-1] * 4]
    half = torch.zeros(1, 8, 16, dtype=torch.bool)
    half[:, :, :4] = True
    assert token_ids(half, 8).tolist() == [[0, -1]]  # a half is enough
    half[:, 0, 3] = False
    assert token_ids(half, 8).tolist() == [[-1, -1]]
    nested = torch.stack([square(0, 0, 32), square(0, 0, 8)])
    assert token_ids(nested, 8)[0].tolist() == [1, 0, 0, 0]
    assert token_ids(masks[:0], 8).tolist() == [[-1] * 4] * 4
    with pytest.raises(UsageError, match="does not fit"):
        token_ids(masks, 33)


def test_targets_by_area_and_at_random() -> None:
    ids = torch.tensor([[0, 0, 0, 0], [1, 1, 2, -1]])
    area = scales(ids, "area", 0, generator())
    assert area[0, 0] == pytest.approx(0.5 + 2.5 / 3)
    assert area[1, 0] == pytest.approx(1.0)
    assert area[1, 2] == pytest.approx(0.5 + 0.5 / 3)
    assert math.isnan(area[1, 3])
    assert scales(torch.zeros(2, 2, dtype=torch.int64), "area", 0, generator()).unique().tolist() == [1.0]
    for mode in ("random", "fixed", "area"):
        made = scales(ids, mode, 5, generator(1))
        assert made.shape == ids.shape
        assert (made[ids >= 0] >= 0.5).all()
        assert (made[ids >= 0] <= 1.5).all()
        assert len(made[0].unique()) == 1
        assert torch.isnan(scales(torch.full((2, 2), -1), mode, 0, generator())).all()
    drawn = [scales(ids, "random", 5, generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0].nan_to_num(), drawn[1].nan_to_num())
    assert drawn[0][0, 0] != drawn[2][0, 0]
    rng = generator()
    assert scales(ids, "random", 5, rng)[0, 0] != scales(ids, "random", 5, rng)[0, 0]  # anew for every sample
    many = scales(torch.arange(4000).view(40, 100), "fixed", 1, generator())
    assert float(many.mean()) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(UsageError, match="random, fixed, area"):
        scales(ids, "size", 0, generator())


def test_fixed_targets_are_the_same_in_another_process() -> None:
    ids = torch.tensor([[0, 1, 7]])
    here = scales(ids, "fixed", 12, generator())
    code = (
        "import torch; from clareo.perceive.instances import scales;"
        "print(scales(torch.tensor([[0, 1, 7]]), 'fixed', 12, torch.Generator()).tolist())"
    )
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert there.strip() == str(here.tolist())
    assert torch.equal(scales(ids, "fixed", 12, generator(9)), here)
    assert not torch.equal(scales(ids, "fixed", 13, generator()), here)
    assert len(here.unique()) == 3


# --- losses ----------------------------------------------------------------------------------------------------------


def test_alignment_is_minus_the_mean_cosine() -> None:
    tokens = torch.randn(2, 5, 8, generator=generator())
    assert float(alignment(tokens, 3 * tokens)) == pytest.approx(-1)
    assert float(alignment(tokens, -tokens)) == pytest.approx(1)
    one, other = torch.tensor([[[1.0, 0], [1, 0]]]), torch.tensor([[[1.0, 1], [0, 2]]])
    assert float(alignment(one, other)) == pytest.approx(-(2**-0.5) / 2)


def test_instance_scale_is_of_tokens_with_a_target() -> None:
    tokens = torch.full((1, 3, 4), 2.0, requires_grad=True)  # |f| / sqrt(D) = 2
    loss = instance_scale(tokens, torch.tensor([[1.0, 0.5, torch.nan]]))
    assert loss.item() == pytest.approx((1 + 2.25) / 2)
    loss.backward()
    assert tokens.grad is not None
    assert torch.equal(tokens.grad[0, 2], torch.zeros(4))
    assert tokens.grad[0, 0].tolist() == pytest.approx([2 * 1 / 2 * 0.25 * 1.0] * 4, rel=1e-4)


def test_instance_scale_is_safe_without_targets_and_without_tokens() -> None:
    for tokens in (torch.zeros(2, 3, 4), torch.randn(2, 3, 4, generator=generator())):
        for targets in (torch.full((2, 3), torch.nan), torch.ones(2, 3)):
            features = tokens.clone().requires_grad_()
            loss = instance_scale(features, targets)
            loss.backward()
            assert features.grad is not None
            assert torch.isfinite(features.grad).all()
            assert (loss.item() == 0) == bool(torch.isnan(targets).all())


# --- what tokens know ------------------------------------------------------------------------------------------------


def test_a_probe_agrees_with_other_people() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = generator()
    labels = torch.randint(3, (300,), generator=rng)
    features = torch.randn(300, 6, generator=rng) + 0.8 * F.one_hot(labels, 6)
    probe = fit_probe(features, labels)
    shares = (1 / labels.bincount())[labels].double() / 3
    theirs = linear.Ridge(alpha=1e-2, fit_intercept=False)
    there = F.pad((features.double() - probe.mean) / probe.spread, (0, 1), value=1.0)
    theirs.fit(there, F.one_hot(labels).double(), sample_weight=shares)
    assert np.allclose(theirs.coef_.T, probe.weights, atol=1e-6)
    assert float((probe(features) == labels).float().mean()) > 0.5


def test_probes_find_what_is_there_and_nothing_else() -> None:
    rng = generator(1)
    kinds = torch.randint(-1, 4, (8, 36), generator=rng)
    telling = torch.randn(8, 36, 12, generator=rng) + 6 * F.one_hot(kinds.clamp_min(0), 12)
    silent = torch.randn(8, 36, 12, generator=rng)
    assert kind_miou((telling[:4], kinds[:4]), (telling[4:], kinds[4:])) > 0.95
    assert kind_miou((silent[:4], kinds[:4]), (silent[4:], kinds[4:])) < 0.25
    halves = (torch.arange(36) % 6 >= 3).long().expand(8, 36)
    fields = 5 * F.one_hot(halves, 12) + 0.3 * silent
    assert border_miou((fields[:4], halves[:4]), (fields[4:], halves[4:]), (6, 6)) > 0.95
    assert border_miou((silent[:4], halves[:4]), (silent[4:], halves[4:]), (6, 6)) < 0.55
    assert label_miou(torch.tensor([2, 2]), torch.tensor([1, 2])) == pytest.approx(0.25)


def test_neighbours_are_side_by_side() -> None:
    ids = torch.tensor([[0, 0, 1, 0, -1, 1]])
    apart, different = neighbours(torch.eye(6)[None], ids, (2, 3))
    assert different.tolist() == [0, 1, 0, 0]  # 0-0, 0-1 on top; 0-0 and 1-1 downwards
    assert apart.sum(1).tolist() == [2.0] * 4


def test_affinity_is_the_area_under_the_curve() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    tokens, ids = torch.randn(1, 20, 5, generator=generator()), torch.randint(3, (1, 20), generator=generator())
    unit = F.normalize(tokens[0], dim=-1)
    upper = torch.ones(20, 20, dtype=torch.bool).triu(1)
    theirs = metrics.roc_auc_score((ids[0][:, None] == ids[0])[upper], (unit @ unit.T)[upper])
    assert affinity(tokens, ids) == pytest.approx(theirs, abs=1e-6)
    perfect = F.one_hot(ids, 3).float() + 0.01 * tokens[..., :3]
    assert affinity(perfect, ids) == 1
    assert affinity(torch.cat([perfect, perfect]), torch.cat([ids, torch.zeros_like(ids)])) == 1  # one has one only


def test_variances_of_norms_add_up() -> None:
    ids = torch.tensor([[0, 0, 1, 1], [0, 1, 1, -1]])
    tokens = torch.randn(2, 4, 9, generator=generator())
    within, between = norm_variance(tokens, ids)
    sizes = (tokens.norm(dim=-1) / 3)[ids >= 0]
    assert within + between == pytest.approx(float(sizes.var(unbiased=False)))
    per_instance = torch.tensor([[1.0, 1, 2, 2], [3, 4, 4, 9]])[..., None] * torch.ones(9)
    within, between = norm_variance(per_instance, ids)
    assert within == 0  # instance 0 of one photo is not that of the other
    assert between == pytest.approx(float(torch.tensor([1.0, 1, 2, 2, 3, 4, 4]).var(unbiased=False)))
