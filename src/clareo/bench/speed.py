"""Speed: one evaluation, and ten steps of all experts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from clareo.devices import Precision, choose_device, has_fast_bf16
from clareo.restore import restore
from clareo.system import System
from clareo.types import Condition, Image, Percept


def speed(system: System, side: int = 512, repeats: int = 5) -> str:
    """Time one evaluation, and ten steps of all experts, in fp32 and bf16; medians, in one run."""
    device = choose_device()
    photo = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    even = {expert: 1 / len(system.experts) for expert in system.experts}
    lines = [
        f"{device}, {torch.get_num_threads()} threads, {side}x{side}, median of {repeats}",
        "",
        "| what | fp32 s | bf16 s |",
        "|---|---|---|",
    ]
    forms: tuple[Precision, ...] = ("fp32", "bf16") if has_fast_bf16(device) else ("fp32",)
    one = [f"{median_seconds(partial(_evaluate, system, photo, form), repeats):.3f}" for form in forms]
    work = partial(restore, photo, system=system, weights=even, steps=10, judged=False)
    ten = [f"{median_seconds(partial(work, precision=form), 1):.2f}" for form in forms]
    missing = ["not run: no matrix units"] * (2 - len(forms))  # emulated bf16 is up to 200 times slower
    lines.append("| " + " | ".join(["one evaluation", *one, *missing]) + " |")
    lines.append("| " + " | ".join([f"10 steps x {len(system.experts)} experts (once)", *ten, *missing]) + " |")
    return "\n".join(lines)


@torch.inference_mode()
def _evaluate(system: System, photo: Image, form: Precision) -> None:
    device = choose_device()
    condition: Condition = system.condition(photo.to(device), Percept())[system.experts[0]]
    with torch.autocast(device.type, torch.bfloat16, enabled=form == "bf16"):
        latent = system.codec.encode(photo.to(device))
        system.codec.decode(system.denoiser(latent, torch.ones(1, device=device), condition)).float().cpu()


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Time some work, once it is warm."""
    work()  # warm up
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
