"""The adapter to pyiqa, with a stand-in for it: what is run, under which name, and what is said when it cannot be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import pytest
import torch

from clareo.errors import UnknownNameError
from clareo.quality import published
from clareo.quality.published import VARIANTS, WEIGHTS, load_published


@dataclass
class Asked:
    """What the stand-in was asked for."""

    metrics: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    inputs: list[tuple[Any, ...]] = field(default_factory=list)
    hubs: list[str] = field(default_factory=list)


@pytest.fixture(autouse=True)
def no_weights_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(WEIGHTS, raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    for name in ("pyiqa", "pyiqa.utils", "pyiqa.utils.download_util"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    published._show_terms.cache_clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Put a tiny pyiqa where the real one would be imported from."""
    seen = Asked()

    def create_metric(name: str, device: torch.device, **options: object) -> Callable[..., Any]:
        sys.stdout.write("Loading pretrained model")
        seen.metrics.append((name, options))
        seen.hubs.append(torch.hub.get_dir())
        assert device == torch.device("cpu")

        def run(*inputs: Any, **_ignored: object) -> Any:
            seen.inputs.append(inputs)
            return 7.5 if name == "fid" else inputs[0].mean().reshape(1, 1)

        return run

    install(monkeypatch, create_metric)
    return seen


def install(monkeypatch: pytest.MonkeyPatch, create_metric: Callable[..., Any]) -> None:
    module = ModuleType("pyiqa")
    module.__version__ = "0.1.14"
    module.create_metric = create_metric
    monkeypatch.setitem(sys.modules, "pyiqa", module)


def put_weights(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_metric_is_asked_for_by_its_exact_name_and_tells_its_version(asked: Asked, photo: torch.Tensor) -> None:
    both = torch.cat([photo, photo * 0.5])
    score = load_published("musiq")(both)
    assert asked.metrics == [("musiq", {})]
    assert score.protocol == "musiq/pyiqa-0.1.14"
    assert score.values is not None
    assert score.values.tolist() == pytest.approx(both.mean((1, 2, 3)).tolist(), abs=0.002)
    assert str(score) == f"musiq/pyiqa-0.1.14 {float(score.values.mean()):.4f}"


def test_the_variants_are_those_of_the_papers() -> None:
    names = ("psnry", "ssim", "lpips", "dists", "fid", "niqe", "liqe", "musiq", "maniqa", "maniqa-pipal")
    assert set(VARIANTS) == {*names, "topiq_nr", "clipiqa"}
    lower = {name for name, variant in VARIANTS.items() if not variant.higher_is_better}
    assert lower == {"lpips", "dists", "fid", "niqe"}
    assert {name for name, v in VARIANTS.items() if v.needs_reference} == {"psnry", "ssim", "lpips", "dists"}
    assert all(variant.low < variant.high and variant.citation for variant in VARIANTS.values())


def test_options_are_passed_and_told(asked: Asked, photo: torch.Tensor) -> None:
    score = load_published("psnry")(photo, photo)
    assert asked.metrics == [("psnry", {"color_space": "ycbcr"})]
    assert score.protocol == "psnry(color_space=ycbcr)/pyiqa-0.1.14"


def test_photos_go_in_one_by_one_as_8_bit_files_hold_them(asked: Asked) -> None:
    load_published("lpips")(torch.full((2, 3, 8, 8), 0.501), torch.full((2, 3, 8, 8), 1.2))
    assert len(asked.inputs) == 2
    for degraded, reference in asked.inputs:
        assert degraded.shape == (1, 3, 8, 8)
        assert float(degraded.flatten()[0] * 255) == pytest.approx(128)
        assert float(reference.max()) == 1


def test_terms_are_shown_once_and_stdout_stays_clean(
    asked: Asked, photo: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("musiq", "clipiqa"):
        load_published(name)(photo)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("non-commercial use only") == 1
    assert len(asked.metrics) == 2


@pytest.mark.parametrize(("name", "least"), [("liqe", 224), ("maniqa", 225), ("maniqa-pipal", 225), ("niqe", 96)])
def test_small_photos_are_not_enlarged(name: str, least: int, asked: Asked) -> None:
    metric = load_published(name)
    assert metric(torch.zeros(1, 3, least, 400)).values is not None
    small = metric(torch.zeros(1, 3, least - 1, 400))
    assert small.values is None
    assert f"not run: needs {least} px a side, not 400x{least - 1}" in str(small)
    assert len(asked.inputs) == 1


def test_what_a_metric_cannot_be_asked_is_said(asked: Asked, photo: torch.Tensor) -> None:
    lpips, fid = load_published("lpips"), load_published("fid")
    assert lpips(photo).reason == "needs a reference"
    assert "one size" in lpips(photo, photo[..., :-1]).reason
    assert "NaN" in lpips(photo, photo * torch.nan).reason
    assert "(B, 3, H, W)" in lpips(photo[0]).reason
    assert "folders" in fid(photo).reason
    assert "not folders" in lpips.of_folders(Path(), Path()).reason
    assert asked.inputs == []


def test_fid_compares_two_folders(asked: Asked, tmp_path: Path) -> None:
    ours, theirs = (put_weights(tmp_path / name, "1.png", "2.png") for name in ("ours", "theirs"))
    metric = load_published("fid")
    score = metric.of_folders(ours, theirs)
    assert score.values is not None
    assert score.values.tolist() == [7.5]
    assert asked.inputs == [(str(ours), str(theirs))]
    assert "fewer than two photos in" in metric.of_folders(ours, tmp_path / "none").reason


def test_without_pyiqa_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, photo: torch.Tensor) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(published.importlib, "import_module", missing)
    score = load_published("clipiqa")(photo)
    assert score.values is None
    assert str(score) == "clipiqa/pyiqa not run: this needs pyiqa: pip install 'clareo[iqa]'"


def test_a_broken_pyiqa_is_told_apart_from_a_missing_one(monkeypatch: pytest.MonkeyPatch, photo: torch.Tensor) -> None:
    def broken(_name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(published.importlib, "import_module", broken)
    assert "cannot be imported (ModuleNotFoundError: No module named 'timm')" in load_published("lpips")(photo).reason


def test_offline_one_metric_is_not_run_and_the_others_are(monkeypatch: pytest.MonkeyPatch, photo: torch.Tensor) -> None:
    def create_metric(name: str, **_ignored: object) -> Callable[..., Any]:
        if name == "musiq":
            raise URLError("no route to host")
        if name == "dists":
            raise ModuleNotFoundError("No module named 'timm'")
        return lambda *_inputs: torch.zeros(1)

    install(monkeypatch, create_metric)
    scores = {name: load_published(name)(photo, photo) for name in ("musiq", "dists", "lpips")}
    assert scores["musiq"].values is None
    assert "weights cannot be had (URLError: <urlopen error no route to host>)" in scores["musiq"].reason
    assert scores["dists"].reason == "a package is missing (ModuleNotFoundError: No module named 'timm')"
    assert scores["musiq"].protocol == "musiq/pyiqa-0.1.14"
    assert scores["lpips"].values is not None


@pytest.mark.parametrize("named_by", ["parameter", "environment"])
def test_weights_from_a_folder(named_by: str, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, before = put_weights(tmp_path / "weights", "clip/ViT-B-32.pt"), torch.hub.get_dir()
    if named_by == "environment":
        monkeypatch.setenv(WEIGHTS, str(folder))
    given = folder if named_by == "parameter" else None
    assert load_published("liqe", given).reason == f"{folder} lacks pyiqa/liqe_koniq.pt"
    assert asked.metrics == []
    put_weights(folder, "pyiqa/liqe_koniq.pt")
    metric = load_published("liqe", given)
    assert metric(torch.zeros(1, 3, 224, 224)).values is not None
    assert asked.hubs == [str(folder)]
    assert set(metric.weights) == {"clip/ViT-B-32.pt", "pyiqa/liqe_koniq.pt"}
    assert all(len(sha256) == 64 for sha256 in metric.weights.values())
    assert torch.hub.get_dir() == before


def test_a_folder_named_too_late_is_not_passed_over(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = ModuleType("pyiqa.utils.download_util")
    settled.DEFAULT_CACHE_DIR = str(tmp_path / "first" / "pyiqa")
    monkeypatch.setitem(sys.modules, "pyiqa.utils.download_util", settled)
    first, second = (put_weights(tmp_path / name, "clip/RN50.pt") for name in ("first", "second"))
    assert load_published("clipiqa", first).reason == ""
    assert f"already takes pyiqa's weights from {first}" in load_published("clipiqa", second).reason
    assert len(asked.metrics) == 1


def test_a_metric_that_fails_says_how(monkeypatch: pytest.MonkeyPatch, photo: torch.Tensor) -> None:
    def create_metric(name: str, **_ignored: object) -> Callable[..., Any]:
        def run(image: torch.Tensor) -> torch.Tensor:
            if name == "musiq":
                raise RuntimeError("out of memory")
            return image.mean() * torch.nan

        return run

    install(monkeypatch, create_metric)
    assert load_published("musiq")(photo).reason == "RuntimeError: out of memory"
    assert load_published("clipiqa")(photo).reason == "gave no number (NaN)"


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'musiq'"):
        load_published("musik")
