"""UARE learns at paper scale: both losses, what is dropped, stages that warm up and resume, several processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import bagel
import clareo
from clareo.backbones.mot_model import Piece, words
from clareo.backbones.mot_published import Bagel
from clareo.system import Batch, System
from clareo.systems import uare
from clareo.systems.uare.paper import build_paper
from clareo.systems.uare.paper_learning import Teller, unified_loss
from clareo.systems.uare.settings import PaperSettings
from clareo.systems.uare.telling import Telling
from clareo.train.loop import rate_at, rise_at, train
from clareo.train.recipe import Recipe, parse_recipe, read_recipe
from clareo.types import Condition

pytest.importorskip("transformers")
pytest.importorskip("diffusers")
slow = pytest.mark.slow
RECIPE = Path(__file__).parents[1] / "recipes" / "uare-paper.toml"
KEPT = {"drop_text": 0.0, "drop_clean": 0.0, "drop_view": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bagel.write_bagel(tmp_path_factory.mktemp("bagel"))


@pytest.fixture(scope="module")
def built(folder: Path) -> tuple[System, Bagel]:
    return build_paper(PaperSettings(base=str(folder), **KEPT), learning=True)


def batch_of(*tellings: Telling) -> Batch:
    rng = torch.Generator().manual_seed(4)
    count = len(tellings)
    reference, degraded = torch.rand(2, count, 3, 32, 32, generator=rng).unbind(0)
    shown = torch.rand(count, 2, 3, 32, 32, generator=rng)
    return Batch(reference, degraded, [each.to_prompt() for each in tellings], 1.0, truth={"shown": shown})


RESTORE = Telling("restore", "remove the noise")
PLANNED = Telling("interleaved", "fix it", "There is noise. Plan: remove it.")
OBEYED = Telling("restore", "fix it", "Plan: remove the noise.")
SCORED = Telling("score", "rate this photo", "Clean. The score is 4.870.")
COMPARED = Telling("compare", "which is better", "Photo A.\nConclusion: A")


def terms(built: tuple[System, Bagel], batch: Batch, seed: int = 0, **changes: float) -> dict[str, torch.Tensor]:
    system, parts = built
    settings = PaperSettings(**{**KEPT, **changes})
    teller = Teller(parts.model, parts.words, settings)
    return unified_loss(system, teller, batch, torch.Generator().manual_seed(seed))


# --- losses ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_squared_error_is_that_of_the_velocity(built: tuple[System, Bagel]) -> None:
    """Written out: x_t = (1 - t) x_0 + t eps, v = eps - x_0, t = s sigma(u) / (1 + (s - 1) sigma(u))."""
    system, parts = built
    batch = batch_of(RESTORE, RESTORE)
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, generator=rng)
    noise = torch.randn(2, 16, 16, 16, generator=rng)
    t = 4 * torch.sigmoid(logits) / (1 + 3 * torch.sigmoid(logits))
    clean, source = (system.codec.encode(photo) for photo in (batch.reference, batch.degraded))
    mixed = (1 - t)[:, None, None, None] * clean + t[:, None, None, None] * noise
    ids = parts.model.marks.around(parts.words.ids(RESTORE.ask))
    said = Condition(control=source, pixels=batch.degraded, text=torch.tensor([ids, ids]))
    wanted = (system.denoiser.predict(mixed, t, said) - (noise - clean)).square().mean()
    found = terms(built, batch)
    assert torch.allclose(found["mse"], wanted, atol=1e-5)
    assert float(found["ce"]) == 0


@torch.no_grad()
def test_the_cross_entropy_counts_the_words_of_answers_alone(built: tuple[System, Bagel]) -> None:
    parts = built[1]
    model, around = parts.model, parts.model.marks.around
    batch = batch_of(SCORED, COMPARED)
    surprises: list[torch.Tensor] = []
    for row, telling in enumerate((SCORED, COMPARED)):
        shown = list(batch.truth["shown"][row]) if telling is COMPARED else []
        views = [Piece("view", F.interpolate(p[None], (378, 378), mode="bicubic", antialias=True)[0].clamp(0, 1))
                 for p in (*shown, batch.degraded[row])]  # fmt: skip
        answer = around(parts.words.ids(telling.answer))
        reading = model.read([[*views, words(around(parts.words.ids(telling.ask))), words(answer)]])
        logits = torch.log_softmax(model.mot.speak(reading.hidden[-len(answer) :]), dim=-1)
        surprises += [-logits[place, answer[place + 1]] for place in range(len(answer) - 1)]
    found = terms(built, batch)
    assert torch.allclose(found["ce"], 0.25 * torch.stack(surprises).mean(), atol=1e-5)
    assert float(found["mse"]) == 0


@torch.no_grad()
def test_a_packed_batch_is_its_samples_each_loss_by_its_own_tokens(built: tuple[System, Bagel]) -> None:
    """However many words there are beside a photo, 0.25 to 1 stays 0.25 to 1; a plan of a person is not learned."""
    alone = terms(built, batch_of(RESTORE))
    beside = terms(built, batch_of(OBEYED))
    assert float(beside["ce"]) == 0
    assert not torch.allclose(alone["mse"], beside["mse"])  # but it is heard
    both = terms(built, batch_of(PLANNED, SCORED, RESTORE))
    assert all(float(both[name]) > 0 for name in ("ce", "mse"))
    doubled = terms(built, batch_of(PLANNED, SCORED, RESTORE), words=0.5, velocities=3.0)
    assert torch.allclose(doubled["ce"], 2 * both["ce"])
    assert torch.allclose(doubled["mse"], 3 * both["mse"])


@torch.no_grad()
@pytest.mark.parametrize(("dropped", "kept"), [("clean", 2), ("view", 2), ("text", 2)])
def test_what_is_dropped_is_not_there(built: tuple[System, Bagel], dropped: str, kept: int) -> None:
    parts = built[1]
    teller = Teller(parts.model, parts.words, PaperSettings(**{**KEPT, f"drop_{dropped}": 1.0}))
    noised = Piece("noised", torch.zeros(16, 16, 16), torch.tensor(0.5))
    told = teller.restored(torch.rand(3, 32, 32), torch.zeros(16, 16, 16), noised, RESTORE, torch.Generator())
    _, packing, _ = parts.model.packed([told])
    kinds = [span.split.kind for span in packing.spans]
    assert dropped not in kinds
    assert len(kinds) == kept + 1
    last = packing.positions[-1]
    words_told = 0 if dropped == "text" else len(RESTORE.ask) + 2
    assert int(last) == 2 + words_told  # images keep their places, words do not


# --- stages ----------------------------------------------------------------------------------------------------------


def test_the_recipe_is_the_papers() -> None:
    recipe = read_recipe(RECIPE)
    assert [stage.steps for stage in recipe.stages] == [10_000, 20_000, 1_500, 10_000]
    assert [stage.warmup for stage in recipe.stages] == [250, 250, 250, 500]
    assert [stage.ema for stage in recipe.stages] == [0.990, 0.995, 0.995, 0.995]
    assert recipe.stages[-1].options["lessons"]["tasks"] == {
        "assess": 0.25, "single": 0.05, "multi": 0.10, "high-order": 0.20, "interleaved": 0.40,
    }  # fmt: skip
    assert (recipe.optimiser.betas, recipe.optimiser.epsilon, recipe.optimiser.weight_decay) == ((0.9, 0.95), 1e-15, 0)
    settings = PaperSettings.from_json({k: v for k, v in recipe.options.items() if k != "lessons"})
    assert (settings.shift, settings.words, settings.velocities) == (4.0, 0.25, 1.0)
    for stage in recipe.stages:
        uare.lessons({**recipe.options, **stage.options})  # refuses tasks that nobody knows


def test_rates_rise_at_the_start_of_every_stage() -> None:
    recipe = read_recipe(RECIPE)
    rates = {
        step: rate_at(step, recipe.steps, recipe.optimiser) * rise_at(step, recipe)
        for step in (0, 124, 249, 9_999, 10_000, 31_499, 31_500, 32_000, 41_499)
    }
    parts = {step: rate / 2e-5 for step, rate in rates.items()}
    assert parts == pytest.approx(
        {0: 1 / 250, 124: 0.5, 249: 1, 9_999: 1, 10_000: 1 / 250, 31_499: 1, 31_500: 1 / 500, 32_000: 1, 41_499: 1}
    )
    assert recipe.at(31_500) == (recipe.stages[3], 0)
    assert recipe.at(41_500)[1] == 10_000


# --- runs ------------------------------------------------------------------------------------------------------------

STAGES: list[Mapping[str, Any]] = [
    {"steps": 2, "options": {"lessons": {"tasks": {"single": 1.0}}}},
    {"steps": 2, "warmup": 2, "ema": 0.5, "options": {"lessons": {"tasks": {"interleaved": 0.5, "assess": 0.5}}}},
]


def recipe_of(folder: Path, first: int = 2, second: int = 2) -> Recipe:
    steps = zip(STAGES, (first, second), strict=True)
    return parse_recipe(
        {
            "system": "uare",
            "stages": [{**stage, "steps": count, "crop": 64, "batch": 2} for stage, count in steps if count],
            "optimiser": {"rate": 1e-3, "warmup": 0, "cosine": False, "epsilon": 1e-15},
            "options": {"preset": "paper", "base": str(folder), "most_words": 4, "steps": 1},
            "workers": 0,
            "margin": 0,
            "validate_every": 100,
            "precision": "fp32",
        }
    )


@slow
def test_stopped_in_the_first_stage_and_resumed_is_the_same_as_never_stopped(
    folder: Path, photos: Path, photo: torch.Tensor, tmp_path: Path
) -> None:
    straight = load_file(train(recipe_of(folder), photos, tmp_path / "straight"))
    train(recipe_of(folder, 2, 0), photos, tmp_path / "run")
    path = train(recipe_of(folder), photos, tmp_path / "run", resume=True)
    resumed = load_file(path)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    start = load_file(folder / "ema.safetensors")
    for ours, theirs in (
        ("model.ends.leave.weight", "llm2vae.weight"),
        ("model.mot.layers.0.generate.gate.weight", "language_model.model.layers.0.mlp_moe_gen.gate_proj.weight"),
        ("model.vision.enter.weight", "vit_model.vision_model.embeddings.patch_embedding.weight"),
        ("model.mot.speak.weight", "language_model.lm_head.weight"),
    ):
        assert float((resumed[ours].float() - start[theirs]).abs().max()) > 3e-4  # all of it learns
    table = resumed["model.ends.table.places"].float()
    assert torch.allclose(table, start["latent_pos_embed.pos_embed"], atol=1e-3)  # and places do not
    trained = clareo.load_system("uare", str(path))
    assert trained.answer is not None
    assert isinstance(trained.answer([photo], "What is wrong?"), str)
    out = clareo.restore(photo[..., :32, :32], system=trained, weights="fixed", judged=False)
    assert out.tensor.shape == (1, 3, 32, 32)


def launch(folder: Path, photos: Path, run: Path, steps: int, *, sharded: bool) -> dict[str, torch.Tensor]:
    """Train in two processes, a sample each; now and then one has only words, and the other only a photo."""
    file = run.with_suffix(".toml")
    file.write_text(
        'system = "uare"\nworkers = 0\nmargin = 0\nprecision = "fp32"\n'
        f"sharded = {str(sharded).lower()}\n[optimiser]\nwarmup = 0\ncosine = false\n"
        f'[options]\npreset = "paper"\nbase = "{folder}"\nmost_words = 4\nsteps = 1\n'
        f"[[stages]]\nsteps = {steps}\ncrop = 64\nbatch = 1\n"
        "options = { lessons = { tasks = { assess = 0.5, interleaved = 0.5 } } }\n"
    )
    processes = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["-m", "clareo.cli", "train", str(file), "--data", str(photos), "-o", str(run)]
    more = ["--resume"] if run.exists() else []
    done = subprocess.run([*processes, *command, *more], check=False, capture_output=True, timeout=400)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return load_file(run / "weights.safetensors")


@slow
def test_two_processes_learn_together_and_spread_over_both_they_learn_the_same(
    folder: Path, photos: Path, tmp_path: Path
) -> None:
    together = launch(folder, photos, tmp_path / "whole", 3, sharded=False)
    launch(folder, photos, tmp_path / "spread", 2, sharded=True)
    spread = launch(folder, photos, tmp_path / "spread", 3, sharded=True)
    start = load_file(folder / "ema.safetensors")
    moved = together["model.mot.speak.weight"].float() - start["language_model.lm_head.weight"]
    assert float(moved.abs().mean()) > 3e-4
    apart = [float((together[name].float() - spread[name].float()).abs().mean()) for name in together]
    assert together.keys() == spread.keys()
    assert max(apart) < 1e-5
    trained = clareo.load_system("uare", str(tmp_path / "spread"))
    assert trained.fingerprint


def test_layers_are_spread_one_by_one(folder: Path) -> None:
    shards = uare.training({"preset": "paper", "base": str(folder)}).shards
    assert shards is not None
    whole = sum(value.numel() for value in shards.root.parameters())
    layers = sum(value.numel() for layer in shards.layers for value in layer.parameters())
    assert 0.2 < layers / whole < 1  # nine tenths of BAGEL, less of this one, whose tables are as large as it is
    assert all(callable(getattr(shards.root, call)) for call in shards.calls)
