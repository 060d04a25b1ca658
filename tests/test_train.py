"""Training: it learns, it repeats, and it survives kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

import clareo
from clareo.degrade import ops
from clareo.errors import CheckpointError, ClareoError, PhotoError, RecipeError
from clareo.system import Batch
from clareo.systems import unires
from clareo.train.data import batches, load_photos
from clareo.train.loop import rate_at, train
from clareo.train.recipe import Optimiser, Recipe, Stage, parse_recipe, read_recipe

ROOT = Path(__file__).parent.parent
LAYER = {"window": 32, "kernel": 9, "channels": [4, 4], "hidden": 16, "bands": 4}
TINY = {
    "network": {"channels": [8, 12], "blocks": [1, 1], "width": 16, "text_width": 8, "deconvolution": LAYER},
}


def tiny(**changes: object) -> Recipe:
    plain = {
        "system": "unires",
        "stages": [{"steps": 4, "crop": 32, "batch": 2, "far_share": 1.0}, {"steps": 4, "crop": 32, "batch": 3}],
        "options": TINY,
        "optimiser": {"warmup": 2},
        "workers": 0,
        "margin": 8,
        "log_every": 2,
        "checkpoint_every": 3,
        "validate_every": 4,
    }
    return parse_recipe({**plain, **changes})


@pytest.fixture
def photos(astronaut: NDArray[np.uint8], tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(3):
        PIL.Image.fromarray(astronaut[k * 8 : k * 8 + 96, k * 8 : k * 8 + 96]).save(folder / f"{k}.png")
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core
def test_the_same_recipe_gives_the_same_weights_whatever_the_workers(photos: Path, tmp_path: Path) -> None:
    paths = [train(tiny(workers=count), photos, tmp_path / f"run{count}") for count in (0, 1, 2)]
    first, *others = (weights(path) for path in paths)
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    assert any(float(value.abs().sum()) for name, value in first.items() if "leave" in name)  # it did learn


def test_a_run_leaves_everything_behind_that_explains_it(photos: Path, tmp_path: Path) -> None:
    path = train(tiny(), photos, tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["recipe"]["stages"][0]["crop"] == 32
    assert {"commit", "torch", "threads"} <= set(settings)
    assert len((tmp_path / "run" / "loss.csv").read_text().splitlines()) == 5
    assert (tmp_path / "run" / "validation.csv").read_text().startswith("step,Gaussian noise 25/255,")
    out = clareo.restore(torch.rand(3, 20, 30), preset=str(tmp_path / "run"), steps=1)
    assert out.image.size == (30, 20)
    assert clareo.load_system("unires", str(path)).fingerprint
    with pytest.raises(CheckpointError, match="--resume"):
        train(tiny(), photos, tmp_path / "run")


def test_stopped_and_resumed_is_the_same_as_never_stopped(photos: Path, tmp_path: Path) -> None:
    whole = weights(train(tiny(), photos, tmp_path / "whole"))
    half = tiny(
        stages=[{"steps": 4, "crop": 32, "batch": 2, "far_share": 1.0}], optimiser={"warmup": 2, "cosine": False}
    )
    rest = tiny(optimiser={"warmup": 2, "cosine": False})
    straight = weights(train(rest, photos, tmp_path / "straight"))
    train(half, photos, tmp_path / "run")
    resumed = weights(train(rest, photos, tmp_path / "run", resume=True))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert whole.keys() == resumed.keys()


@pytest.mark.slow
def test_kill_9_changes_nothing(photos: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'system = "unires"\nworkers = 0\nmargin = 8\nlog_every = 5\ncheckpoint_every = 5\nvalidate_every = 100\n'
        "[optimiser]\nwarmup = 5\n[options.network]\nchannels = [8, 12]\nblocks = [1, 1]\nwidth = 16\ntext_width = 8\n"
        "[[stages]]\nsteps = 60\ncrop = 32\nbatch = 2\n"
    )
    undisturbed = weights(train(read_recipe(recipe), photos, tmp_path / "undisturbed"))
    command = [
        sys.executable,
        "-m",
        "clareo.cli",
        "train",
        str(recipe),
        "--data",
        str(photos),
        "-o",
        str(tmp_path / "run"),
    ]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "run" / "last.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "run" / "weights.safetensors").exists(), "it was not killed in time"
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    resumed = weights(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


def agreement(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Return the share of numbers that agree, in the layer that moves first."""
    name = "backbone.leave.weight"
    return float((a[name].float() - b[name].float()).abs().lt(1e-4).float().mean())


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(photos: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    text = (
        'system = "unires"\nworkers = 0\nmargin = 8\nprecision = "fp32"\n[optimiser]\nwarmup = 2\n'
        "[options.network]\nchannels = [8, 12]\nblocks = [1, 1]\nwidth = 16\ntext_width = 8\n"
        "[[stages]]\nsteps = 2\ncrop = 32\nfar_share = 1.0\nbatch = "
    )
    recipe.write_text(text + "4\n")
    alone = weights(train(read_recipe(recipe), photos, tmp_path / "alone"))
    recipe.write_text(text + "2\n")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["-m", "clareo.cli", "train", str(recipe), "--data", str(photos), "-o", str(tmp_path / "run")]
    subprocess.run([*launch, *command], check=True, capture_output=True, timeout=300)
    together = weights(tmp_path / "run" / "weights.safetensors")
    recipe.write_text(text + "2\n")
    half = weights(train(read_recipe(recipe), photos, tmp_path / "half"))
    assert agreement(alone, together) > 0.98  # AdamW turns the rounding of a vanishing gradient into a full step
    assert agreement(alone, half) < 0.9  # half the batch is another run


def test_batches_are_a_function_of_their_number(photos: Path) -> None:
    loaded = load_photos(photos, 48)
    every = list(batches(loaded, tiny(), 0))
    late = list(batches(loaded, tiny(), 5))
    assert len(every) == 8
    assert [batch.reference.shape[0] for batch in every] == [2, 2, 2, 2, 3, 3, 3, 3]
    for a, b in zip(every[5:], late, strict=True):
        assert torch.equal(a.degraded, b.degraded)
        assert a.prompts == b.prompts
    assert every[0].far_share == 1.0


def test_the_task_mix_is_the_papers() -> None:
    clean, mix = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), unires.TaskMix()
    prompts = [unires.draw_example(clean, np.random.default_rng(k), mix).prompt for k in range(1500)]
    shares = {
        task: prompts.count(unires.PROMPTS[task]) / 1500 for task in ("blind", "sr", "motion", "defocus", "denoise")
    }
    wanted = {"blind": 0.1, "sr": 0.32 * 0.9, "motion": 0.28 * 0.9, "defocus": 0.18 * 0.9, "denoise": 0.22 * 0.9}
    for task, share in wanted.items():
        assert shares[task] == pytest.approx(share * 0.98, abs=0.035), task
    assert prompts.count(unires.POSITIVE) + prompts.count(unires.NEGATIVE) == pytest.approx(30, abs=16)


def test_the_target_may_be_sharpened_too() -> None:
    clean = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    only = {"tasks": {"sr": 1.0}, "sr_recipes": {"realesrgan": 1.0}, "clean": 0.0, "quality_words": 0.0}
    plain, sharp = (
        unires.draw_example(clean, np.random.default_rng(0), unires.TaskMix(**only, sharp_target=wanted))
        for wanted in (False, True)
    )
    assert torch.equal(plain.degraded, sharp.degraded)
    assert torch.equal(plain.reference, clean)
    assert torch.equal(sharp.reference, ops.sharpen(clean, torch.Generator()))


def test_negative_words_swap_the_pair() -> None:
    clean = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    mix = unires.TaskMix(clean=0.0, quality_words=0.5)
    for k in range(20):
        made = unires.draw_example(clean, np.random.default_rng(k), mix)
        swapped = torch.equal(made.degraded, clean)
        assert swapped == (made.prompt == unires.NEGATIVE)


def test_loss_terms_have_gradients_for_every_parameter() -> None:
    training = unires.training(TINY)
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prompts, kernels = ["Denoise", "", "Super-resolution", "Motion-deblur"], torch.full((4, 9, 9), 1 / 81)
    batch = Batch(image, (image + 0.1).clamp(0, 1), prompts, 0.5, truth={"kernel": kernels})
    with torch.no_grad():  # layers that start at zero would hide the others
        for name in ("backbone.leave.weight", "backbone.deconvolution.answer.weight"):
            training.trained.get_parameter(name).normal_(generator=torch.Generator().manual_seed(0))
    sum(training.loss(batch, torch.Generator().manual_seed(0)).values()).backward()  # type: ignore[union-attr]
    silent = [name for name, p in training.trained.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []


def test_a_walk_of_its_own_starts_from_the_networks_estimate() -> None:
    """An untrained network gives back what it sees: mixed with that, a degraded photo stays as degraded as it was."""
    training = unires.training(TINY)
    clean = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    truth = {"kernel": torch.full((4, 9, 9), 1 / 81)}

    def error(far_share: float, own_share: float) -> float:
        batch = Batch(clean, clean * 0.8, ["Denoise"] * 4, far_share, own_share, truth=truth)
        return training.loss(batch, torch.Generator().manual_seed(0))["l1"].item()

    assert error(0.0, 1.0) == pytest.approx(error(1.0, 0.0), rel=1e-3)
    assert error(0.0, 0.0) < 0.8 * error(1.0, 0.0)


def test_drawings_replace_a_share_of_the_crops(photos: Path) -> None:
    loaded = load_photos(photos, 48)
    plain, drawn = (
        next(batches(loaded, tiny(drawn_share=share, options={**TINY, "mix": {"clean": 1.0}}), 0)).reference
        for share in (0.0, 1.0)
    )
    assert not torch.equal(plain, drawn)
    assert torch.equal(
        drawn, next(batches(loaded, tiny(drawn_share=1.0, options={**TINY, "mix": {"clean": 1.0}}), 0)).reference
    )
    flat = ((drawn[..., 1:] - drawn[..., :-1]).abs().amax(1) == 0).float().mean()
    assert flat > 2 * ((plain[..., 1:] - plain[..., :-1]).abs().amax(1) == 0).float().mean()


def test_learning_rate() -> None:
    settings = Optimiser(rate=1.0, final_rate=0.0, warmup=10)
    rates = [rate_at(step, 110, settings) for step in range(110)]
    assert rates[0] == 0.1
    assert max(rates) == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[-1] < 0.001


def test_folders_without_usable_photos(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no photo of at least 500 px"):
        load_photos(photos, 500)
    with pytest.raises(RecipeError, match="cannot read"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.name)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.steps > 0
    assert all(isinstance(stage, Stage) for stage in recipe.stages)
    changed = read_recipe(path, {"optimiser.rate": "1e-5", "precision": "fp32", "stages.0.steps": "7"})
    assert (changed.optimiser.rate, changed.precision, changed.stages[0].steps) == (1e-5, "fp32", 7)


def pairs_of(photos: Path, folder: Path) -> Path:
    for number, path in enumerate(sorted(photos.glob("*.png"))):
        for side, scale in (("blur", 2), ("sharp", 1)):
            target = folder / side / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.open(path).reduce(scale).save(target)
    return folder


def test_real_pairs_are_trained_on_beside_synthetic_ones(photos: Path, tmp_path: Path) -> None:
    folder = pairs_of(photos, tmp_path / "GoPro")
    recipe = tiny(pairs=[{"folder": str(folder), "task": "motion", "share": 0.5}])
    drawn = [batch for _, batch in zip(range(8), batches(load_photos(photos, 64), recipe, 0), strict=False)]
    prompts = [prompt for batch in drawn for prompt in batch.prompts]
    assert 4 <= prompts.count(unires.PROMPTS["motion"]) <= 16
    kernels = torch.cat([batch.truth["kernel"] for batch in drawn])
    assert bool(kernels.isnan().any())  # nobody knows the blur of a real photo
    assert bool(torch.isfinite(kernels).any())
    again = [batch for _, batch in zip(range(8), batches(load_photos(photos, 64), recipe, 0), strict=False)]
    assert all(torch.equal(one.degraded, other.degraded) for one, other in zip(drawn, again, strict=True))
    assert train(recipe, photos, tmp_path / "run").exists()


def test_real_pairs_are_cut_at_the_same_place(photos: Path, tmp_path: Path) -> None:
    folder = pairs_of(photos, tmp_path / "GoPro")
    recipe = tiny(pairs=[{"folder": str(folder), "task": "motion", "share": 1.0}])
    batch = next(batches(load_photos(photos, 64), recipe, 0))
    blurred = torch.nn.functional.avg_pool2d(batch.reference, 2)
    given = torch.nn.functional.avg_pool2d(batch.degraded, 2)
    assert float((blurred - given).abs().mean()) < 0.02


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"task": "motoin", "share": 0.5}, "did you mean 'motion'"),
        ({"task": "motion", "share": 0}, "share"),
        ({"task": "motion", "shrae": 0.5}, "did you mean 'share'"),
    ],
)
def test_wrong_paired_folders_are_told(source: dict[str, object], said: str, photos: Path, tmp_path: Path) -> None:
    folder = pairs_of(photos, tmp_path / "GoPro")
    with pytest.raises(ClareoError, match=said):
        next(batches(load_photos(photos, 64), tiny(pairs=[{"folder": str(folder), **source}]), 0))


def test_unpaired_files_are_named_before_the_first_step(photos: Path, tmp_path: Path) -> None:
    folder = pairs_of(photos, tmp_path / "GoPro")
    (folder / "sharp" / "1.png").unlink()
    with pytest.raises(PhotoError, match=r"no partner: blur/1\.png"):
        train(tiny(pairs=[{"folder": str(folder), "task": "motion", "share": 0.5}]), photos, tmp_path / "run")


def test_shards_hold_the_same_photos_as_their_folder(photos: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "000.tar", "w") as shard:
        for path in sorted(photos.glob("*.png")):
            shard.add(path, path.name)
        shard.add(__file__, "0.json")
    plain, packed = load_photos(photos, 64), load_photos(shards, 64)
    assert all(np.array_equal(one, other) for one, other in zip(plain, packed, strict=True))
    (shards / "001.tar").write_bytes(b"no tar file")
    with pytest.raises(PhotoError, match=r"001\.tar"):
        load_photos(shards, 64)
