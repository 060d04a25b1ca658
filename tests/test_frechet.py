"""The distance between two crowds of photos, by the judge's eyes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torchvision.utils import save_image

from clareo.bench.measures import find_measures
from clareo.degrade import degrade
from clareo.errors import PhotoError
from clareo.quality.frechet import distance, frechet_judge
from clareo.quality.judge import load_judge


def test_the_distance_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)), rng.normal(1, 2, size=(30, 5))
    means, spreads = [p.mean(0) for p in (first, second)], [np.cov(p.T) for p in (first, second)]
    root = np.real(scipy.linalg.sqrtm(spreads[0] @ spreads[1]))
    wanted = np.square(means[0] - means[1]).sum() + np.trace(spreads[0] + spreads[1] - 2 * root)
    assert float(distance(torch.tensor(first), torch.tensor(second))) == pytest.approx(wanted, rel=1e-6)
    assert float(distance(torch.tensor(first), torch.tensor(first))) == pytest.approx(0, abs=1e-6)


def test_damage_drives_crowds_apart(shared_photos: torch.Tensor) -> None:
    clean = list(shared_photos.split(1))
    damaged = [degrade(photo, "noise-25", seed=place).tensor[None] for place, photo in enumerate(clean)]
    near, far = (frechet_judge(crowd, clean[1::2]) for crowd in (clean[::2], damaged[::2]))
    assert frechet_judge(clean, clean) == pytest.approx(0, abs=1e-3)
    assert far > 2 * near
    with pytest.raises(PhotoError, match="no crowd"):
        frechet_judge(clean[:1], clean)


def test_answers_are_made_of_what_is_seen(photo: torch.Tensor) -> None:
    network = load_judge()
    with torch.inference_mode():
        means = network.answer(network.see(photo)).chunk(2, 1)[0]
    assert torch.equal(network(photo).degrees, means[:, 1:].sigmoid())


def test_the_bench_takes_both_of_the_judge(shared_photos: torch.Tensor, tmp_path: Path) -> None:
    judged, crowd = find_measures(["judge", "frechet-judge"])
    for folder, part in (("a", shared_photos[:4]), ("b", shared_photos[4:8])):
        (tmp_path / folder).mkdir()
        for place, piece in enumerate(part):
            save_image(piece, tmp_path / folder / f"{place}.png")
    value, note = judged.take(shared_photos[:1], None)
    assert value is not None
    assert 1 < value < 5
    assert not note
    assert judged.take(torch.zeros(1, 3, 8, 8), None)[1].startswith("not run: a photo of 8x8")
    assert crowd.take_folders is not None
    apart, same = (crowd.take_folders(tmp_path / "a", tmp_path / other)[0] for other in "ba")
    assert apart is not None
    assert same is not None
    assert apart > same + 0.1
