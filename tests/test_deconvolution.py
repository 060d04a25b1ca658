"""Blind deconvolution: given the right kernel it undoes a blur; the embedded model reads kernels off photos."""

from __future__ import annotations

import math

import pytest
import torch

from clareo.backbones.deconvolution import Blur, Deconvolution, DeconvolutionSettings
from clareo.degrade import kernels, ops
from clareo.degrade.record import Record, Step
from clareo.diffusion import losses
from clareo.quality.reference import psnr
from clareo.system import load_system
from clareo.types import Condition

SMALL = DeconvolutionSettings(window=64, kernel=17, channels=(4, 4), hidden=8, bands=4)


def told(layer: Deconvolution, kernel: torch.Tensor, windows: tuple[int, int], noise: float) -> Blur:
    """Return the blur that a layer would have read, had it been told."""
    logits = torch.log(kernel.flatten().float() + 1e-9).expand(1, *windows, -1)
    said = torch.cat([logits, torch.full((1, *windows, layer.settings.bands), math.log(noise))], dim=-1)
    return Blur(torch.empty(0), logits, layer.wiener(said))


def point(side: int) -> torch.Tensor:
    kernel = torch.zeros(side, side)
    kernel[side // 2, side // 2] = 1
    return kernel


@pytest.mark.parametrize("size", [(20, 30), (64, 64), (100, 131), (192, 160)])
def test_no_blur_and_no_noise_leave_photos_of_any_size_alone(size: tuple[int, int]) -> None:
    layer, photo = Deconvolution(SMALL, width=8), torch.rand(2, 3, *size)
    windows = tuple(layer.read(photo, torch.zeros(2, 8)).kernels.shape[1:3])
    out = layer(photo, told(layer, point(17), windows, 1e-9))
    assert out.shape == photo.shape
    assert torch.allclose(out, photo, atol=1e-4)


@pytest.mark.parametrize("kernel", [kernels.disk(2.5), kernels.line(7, 0.6)], ids=["disk", "line"])
def test_the_right_kernel_undoes_the_blur(kernel: kernels.Kernel, photo: torch.Tensor) -> None:
    layer = Deconvolution(SMALL, width=8)
    blurred = ops.convolve(photo[0], kernel)[None]
    half = kernel.shape[0] // 2
    whole = torch.nn.functional.pad(torch.from_numpy(kernel), (8 - half,) * 4)
    windows = tuple(layer.read(blurred, torch.zeros(1, 8)).kernels.shape[1:3])
    out = layer(blurred, told(layer, whole, windows, 3e-3))
    inner = (..., slice(16, -16), slice(16, -16))  # borders were mirrored before the blur
    assert float(psnr(out[inner], photo[inner])) > float(psnr(blurred[inner], photo[inner])) + 3


def test_the_reading_learns_and_the_photo_passes_no_gradient() -> None:
    layer = Deconvolution(SMALL, width=8)
    photo = torch.rand(1, 3, 96, 96)
    blur = layer.read(photo, torch.zeros(1, 8))
    assert not layer(photo, blur).requires_grad
    layer.filtered(blur).square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in layer.enter.parameters() if p.grad is not None)
    assert layer.filtered(blur).shape == layer.unfiltered(photo).shape


def test_records_tell_their_kernel() -> None:
    line = Step("line_blur", {"length": 9.0, "angle": 0.5})
    noise = Step("gaussian_noise", {"sigma": 9.0})
    shrink = Step("resize", {"height": 8, "width": 8, "mode": "area"})
    expected = torch.from_numpy(kernels.line(9.0, 0.5)).float()
    half = expected.shape[0] // 2
    inner = slice(16 - half, 17 + half)
    assert torch.allclose(Record((line, noise)).kernel(33)[inner, inner], expected, atol=1e-6)
    assert torch.equal(Record((noise,)).kernel(33), point(33))
    assert Record((line, shrink)).kernel(33).isnan().all()
    twice = Record((line, Step("disk_blur", {"radius": 2.0}))).kernel(33)
    assert float(twice.sum()) == pytest.approx(1)
    assert float(twice.max()) < float(expected.max())


def test_unknown_kernels_do_not_count() -> None:
    logits = torch.randn(3, 5)
    shares = torch.softmax(torch.randn(3, 5), dim=-1)
    unknown = shares.clone()
    unknown[1] = torch.nan
    kept = torch.tensor([0, 2])
    expected = losses.cross_entropy(logits[kept], shares[kept])
    assert float(losses.cross_entropy(logits, unknown)) == pytest.approx(float(expected))
    assert float(losses.cross_entropy(logits[1:2], unknown[1:2])) == 0


def test_slight_and_heavy_damage_count_alike() -> None:
    target = torch.zeros(2, 3, 4, 4)
    given = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.5)])
    assert float(losses.relative_l1(given, target, given)) == pytest.approx(1, abs=0.02)
    assert float(losses.relative_l1(given / 2, target, given)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("angle", [0.0, 0.8, 2.2])
def test_the_embedded_model_reads_the_direction_of_a_motion(angle: float, photo: torch.Tensor) -> None:
    """Second moments along and across: what it read is longer along the motion, by far."""
    system = load_system("unires")
    blurred = ops.convolve(photo[0], kernels.line(13, angle))[None]
    said = system.condition(blurred, system.perceive(blurred))["motion"]
    backbone = system.network.get_submodule("backbone")
    read = backbone.read_blur(system.codec.encode(blurred), torch.ones(1), Condition(text=said.text))
    side = backbone.settings.deconvolution.kernel
    kernel = read.kernels.softmax(-1).mean((0, 1, 2)).reshape(side, side)
    axis = torch.arange(side) - side // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along = (kernel * (math.cos(angle) * x + math.sin(angle) * y) ** 2).sum()
    across = (kernel * (math.cos(angle) * y - math.sin(angle) * x) ** 2).sum()
    assert float(along) > 2 * float(across)
