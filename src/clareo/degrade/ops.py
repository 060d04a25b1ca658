"""Degradations as pure functions: (image, generator, parameters) -> image.

Images are float RGB, (3, H, W), [0, 1]. Nothing here touches a global random state; functions that draw take a
``torch.Generator``, the others ignore it.
"""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
import PIL.Image
import torch
from torch.nn import functional as F

from clareo.degrade import kernels

Mode = Literal["area", "bilinear", "bicubic"]
Rng = torch.Generator


def convolve(image: torch.Tensor, kernel: kernels.Kernel) -> torch.Tensor:
    """Blur with an odd kernel; borders are mirrored, or repeated where the photo is smaller than the kernel."""
    half = kernel.shape[0] // 2
    mode = "reflect" if min(image.shape[-2:]) > half else "replicate"
    padded = F.pad(image[:, None], (half,) * 4, mode=mode)
    weight = torch.from_numpy(kernel).float()
    height, width = padded.shape[-2:]
    size = (-(-height // 16) * 16, -(-width // 16) * 16)  # transforms of awkward sizes take four times as long
    spectrum = torch.fft.rfft2(padded[:, 0], s=size) * torch.fft.rfft2(weight, s=size)
    full: torch.Tensor = torch.fft.irfft2(spectrum, s=size)
    return full[:, 2 * half : height, 2 * half : width]


def bell_blur(
    image: torch.Tensor,
    rng: Rng,
    size: int,
    sigma_x: float,
    sigma_y: float,
    theta: float = 0.0,
    family: kernels.Family = "gaussian",
    beta: float = 1.0,
) -> torch.Tensor:
    """Blur with one of the six bell-shaped kernels."""
    del rng
    return convolve(image, kernels.bell(size, sigma_x, sigma_y, theta, family, beta))


def sinc_blur(image: torch.Tensor, rng: Rng, size: int, cutoff: float) -> torch.Tensor:
    """Cut off high frequencies sharply, which rings."""
    del rng
    return convolve(image, kernels.sinc(size, cutoff)).clamp(0, 1)


def disk_blur(image: torch.Tensor, rng: Rng, radius: float) -> torch.Tensor:
    """Put the whole photo out of focus."""
    del rng
    return convolve(image, kernels.disk(radius))


def line_blur(image: torch.Tensor, rng: Rng, length: float, angle: float) -> torch.Tensor:
    """Move the camera straight and evenly."""
    del rng
    return convolve(image, kernels.line(length, angle))


def shake_blur(image: torch.Tensor, rng: Rng, exposure: float, amplitude: float) -> torch.Tensor:
    """Shake the camera by hand."""
    seed = int(torch.randint(2**31, (1,), generator=rng))
    return convolve(image, kernels.shake(np.random.default_rng(seed), exposure, amplitude))


def resize(image: torch.Tensor, rng: Rng, height: int, width: int, mode: Mode) -> torch.Tensor:
    """Resize without an antialiasing filter, as the public pipelines do; exact target size."""
    del rng
    corners = {} if mode == "area" else {"align_corners": False}
    resized: torch.Tensor = F.interpolate(image[None], (height, width), mode=mode, **corners)[0]
    return resized.clamp(0, 1)


def gaussian_noise(image: torch.Tensor, rng: Rng, sigma: float, grey: bool = False) -> torch.Tensor:  # noqa: FBT001, FBT002
    """Add noise of standard deviation ``sigma`` (in 1/255); grey noise is the same in all colours."""
    shape = (1, *image.shape[1:]) if grey else image.shape
    return (image + sigma / 255 * torch.randn(shape, generator=rng)).clamp(0, 1)


def poisson_noise(image: torch.Tensor, rng: Rng, scale: float, grey: bool = False) -> torch.Tensor:  # noqa: FBT001, FBT002
    """Count photons: n = Poisson(x V)/V - x, V = 2^ceil(log2(#levels)); out = x + scale n."""
    exact = (image.clamp(0, 1) * 255).round() / 255
    if grey:
        exact = (exact * LUMA[:, None, None]).sum(0, keepdim=True)
    levels = 1 << math.ceil(math.log2(max(2, int(torch.unique(exact).numel()))))
    noise = torch.poisson(exact * levels, generator=rng) / levels - exact
    return (image + scale * noise).clamp(0, 1)


LUMA = torch.tensor([0.299, 0.587, 0.114])  # BT.601


def to_linear(image: torch.Tensor) -> torch.Tensor:
    """Undo the sRGB curve."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def to_srgb(image: torch.Tensor) -> torch.Tensor:
    """Apply the sRGB curve."""
    safe = image.clamp_min(0.0031308)
    bright: torch.Tensor = 1.055 * safe ** (1 / 2.4) - 0.055
    return torch.where(image <= 0.0031308, image * 12.92, bright)


def sensor_noise(image: torch.Tensor, rng: Rng, shot: float, read: float, grain: float = 0.0) -> torch.Tensor:
    """Add shot and read noise in linear light: variance = shot x + read; demosaicing correlates it (``grain`` > 0).

    The correlated noise is brought back to the variance that was asked for.
    """
    linear = to_linear(image)
    noise = torch.randn(image.shape, generator=rng)
    if grain:
        kernel = kernels.bell(3, grain, grain)
        noise = convolve(noise, kernel) / float(np.sqrt((kernel**2).sum()))
    return to_srgb((linear + (shot * linear + read).sqrt() * noise).clamp(0, 1))


def jpeg(image: torch.Tensor, rng: Rng, quality: int, subsampling: Literal[0, 1, 2] = 2) -> torch.Tensor:
    """Encode and decode with a real codec; subsampling 0, 1, 2 = 4:4:4, 4:2:2, 4:2:0."""
    del rng
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return from_pil(PIL.Image.open(buffer))


def quantise(image: torch.Tensor, rng: Rng) -> torch.Tensor:
    """Round to 8 bit, as a file would."""
    del rng
    return (image.clamp(0, 1) * 255).round() / 255


def sharpen(
    image: torch.Tensor, rng: Rng, amount: float = 0.5, radius: int = 51, threshold: float = 10.0
) -> torch.Tensor:
    """Unsharp-mask where the detail exceeds ``threshold`` (in 1/255), with a soft mask (Real-ESRGAN's USM)."""
    del rng
    sigma = 0.3 * ((radius - 1) / 2 - 1) + 0.8
    kernel = kernels.bell(radius, sigma, sigma)
    detail = image - convolve(image, kernel)
    mask = convolve((detail.abs() * 255 > threshold).float(), kernel)
    return mask * (image + amount * detail).clamp(0, 1) + (1 - mask) * image


def to_pil(image: torch.Tensor) -> PIL.Image.Image:
    """Convert (3, H, W), [0, 1] to an 8-bit picture."""
    array = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return PIL.Image.fromarray(array, "RGB")


def from_pil(picture: PIL.Image.Image) -> torch.Tensor:
    """Convert an 8-bit picture to (3, H, W), [0, 1]."""
    array = np.array(picture.convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255
