"""Optics, sampling, sensor and codecs as pure functions: (image, generator, parameters) -> image.

Images are float RGB, (..., 3, H, W), [0, 1], on any device. Nothing here touches a global random state: functions that
draw take a ``torch.Generator`` of the CPU, so that every device gets the same pixels; the others ignore it. In a batch
every photo has the same parameters and its own noise.
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
from clareo.types import LUMA

Mode = Literal["area", "bilinear", "bicubic"]
Rng = torch.Generator


def convolve(image: torch.Tensor, kernel: kernels.Kernel) -> torch.Tensor:
    """Blur with an odd kernel; borders are mirrored, or repeated where the photo is smaller than the kernel."""
    half = kernel.shape[0] // 2
    mode = "reflect" if min(image.shape[-2:]) > half else "replicate"
    height, width = image.shape[-2:]
    padded = F.pad(image.reshape(1, -1, height, width), (half,) * 4, mode=mode)[0]
    weight = torch.from_numpy(kernel).to(image)
    size = tuple(_fast_length(extent + 2 * half) for extent in (height, width))
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(weight, s=size)
    full: torch.Tensor = torch.fft.irfft2(spectrum, s=size)
    return full[:, 2 * half : height + 2 * half, 2 * half : width + 2 * half].reshape(image.shape)


def _fast_length(least: int) -> int:
    """Return the next multiple of 4 without prime factors above 5: other transforms take up to four times as long."""
    length = -(-least // 4) * 4
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 4


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
    flat = image.reshape(1, -1, *image.shape[-2:])
    resized: torch.Tensor = F.interpolate(flat, (height, width), mode=mode, **corners)
    return resized.reshape(*image.shape[:-2], height, width).clamp(0, 1)


def gaussian_noise(image: torch.Tensor, rng: Rng, sigma: float, grey: bool = False) -> torch.Tensor:  # noqa: FBT001, FBT002
    """Add noise of standard deviation ``sigma`` (in 1/255); grey noise is the same in all colours."""
    return (image + sigma / 255 * _normal(image, rng, grey=grey)).clamp(0, 1)


def _normal(image: torch.Tensor, rng: Rng, *, grey: bool = False) -> torch.Tensor:
    """Draw unit noise for every photo of a batch; grey noise once for its three colours."""
    shape = (*image.shape[:-3], 1, *image.shape[-2:]) if grey else image.shape
    return torch.randn(shape, generator=rng).to(image.device)


def poisson_noise(image: torch.Tensor, rng: Rng, scale: float, grey: bool = False) -> torch.Tensor:  # noqa: FBT001, FBT002
    """Count photons: n = Poisson(x V)/V - x, V = 2^ceil(log2(#levels)); out = x + scale n."""
    exact = _counted(image, grey=grey)
    one_by_one = exact.reshape(-1, *exact.shape[-3:]).cpu()
    noise = torch.stack([_poisson(photo, rng) for photo in one_by_one]).reshape(exact.shape)
    return (image + scale * noise.to(image.device)).clamp(0, 1)


def shot_noise(image: torch.Tensor, rng: Rng, scale: float, grey: bool = False) -> torch.Tensor:  # noqa: FBT001, FBT002
    """Poisson noise of 256 levels, nearly: normal, and with one draw a pixel whatever the photo.

    How many numbers `torch.poisson` takes depends on what is counted: one pixel changed, and the noise of all that
    follow is another. Where photos are compared that differ in one damage, the noise has to stay as it is.
    """
    spread = (_counted(image, grey=grey) / 256).sqrt()
    return (image + scale * spread * _normal(image, rng, grey=grey)).clamp(0, 1)


def _counted(image: torch.Tensor, *, grey: bool) -> torch.Tensor:
    """Return the levels that photons are counted for: of each colour, or of brightness."""
    exact = (image.clamp(0, 1) * 255).round() / 255
    return (exact * exact.new_tensor(LUMA)[:, None, None]).sum(-3, keepdim=True) if grey else exact


def _poisson(exact: torch.Tensor, rng: Rng) -> torch.Tensor:
    levels = 1 << math.ceil(
        math.log2(max(2, int(torch.bincount((exact * 255).round().int().flatten()).count_nonzero())))
    )
    return torch.poisson(exact * levels, generator=rng) / levels - exact


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
    noise = _normal(image, rng)
    if grain:
        kernel = kernels.bell(3, grain, grain)
        noise = convolve(noise, kernel) / float(np.sqrt((kernel**2).sum()))
    return to_srgb((linear + (shot * linear + read).sqrt() * noise).clamp(0, 1))


def jpeg(image: torch.Tensor, rng: Rng, quality: int, subsampling: Literal[0, 1, 2] = 2) -> torch.Tensor:
    """Encode and decode with a real codec; subsampling 0, 1, 2 = 4:4:4, 4:2:2, 4:2:0."""
    del rng
    return _coded(image, "JPEG", quality=quality, subsampling=subsampling)


def webp(image: torch.Tensor, rng: Rng, quality: int) -> torch.Tensor:
    """Encode and decode as WebP: smooth where JPEG has blocks."""
    del rng
    return _coded(image, "WEBP", quality=quality)


def _coded(image: torch.Tensor, codec: str, **options: int) -> torch.Tensor:
    """Pass every photo of a batch through a codec."""
    photos = []
    for photo in image.reshape(-1, *image.shape[-3:]):
        buffer = io.BytesIO()
        to_pil(photo).save(buffer, codec, **options)
        photos.append(from_pil(PIL.Image.open(buffer)))
    return torch.stack(photos).reshape(image.shape).to(image.device)


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
    detail = image - _wide_blur(image, sigma)
    mask = _wide_blur((detail.abs() > threshold / 255).to(image.dtype), sigma)
    return torch.lerp(image, torch.add(image, detail, alpha=amount).clamp_(0, 1), mask)


def _wide_blur(image: torch.Tensor, sigma: float, shrink: int = 4) -> torch.Tensor:
    """Blur by a Gaussian so wide that a quarter of the resolution holds all of it, in a third of the time.

    Variances add up: of the means over blocks (s^2 - 1) / 12, of the Gaussian between, of the enlarging s^2 / 6.
    """
    border = shrink * math.ceil(3 * sigma / shrink)
    height, width = image.shape[-2:]
    if sigma < 1.5 * shrink or min(height, width) <= border + shrink:
        side = 2 * math.ceil(3 * sigma) + 1
        return convolve(image, kernels.bell(side, sigma, sigma))
    flat = image.reshape(1, -1, height, width)
    padded = F.pad(flat, (border, border + -width % shrink, border, border + -height % shrink), mode="reflect")
    between = math.sqrt(sigma**2 - (shrink**2 - 1) / 12 - shrink**2 / 6) / shrink
    kernel = kernels.bell(2 * math.ceil(3 * between) + 1, between, between)
    blurred = convolve(F.avg_pool2d(padded, shrink), kernel)
    enlarged = F.interpolate(blurred, padded.shape[-2:], mode="bilinear", align_corners=False)
    return enlarged[..., border : border + height, border : border + width].reshape(image.shape)


def to_pil(image: torch.Tensor) -> PIL.Image.Image:
    """Convert (3, H, W), [0, 1] to an 8-bit picture."""
    array = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return PIL.Image.fromarray(array, "RGB")


def from_pil(picture: PIL.Image.Image) -> torch.Tensor:
    """Convert an 8-bit picture to (3, H, W), [0, 1]."""
    array = np.array(picture.convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255
