"""Blind deconvolution as a layer: read the blur off the spectrum of each window of a photo, and divide it out.

A blur multiplies a photo's spectrum: its zeros and its fall say what the kernel was, and Wiener's filter undoes it.
Convolutions alone found neither within hours; this finds both within minutes, because all that is learned is to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.layers import keep_size
from clareo.types import LUMA

if TYPE_CHECKING:
    from clareo.types import Image

FLOOR = 1e-2  # power of 8-bit rounding in a window of 128: below it there is nothing to read


@dataclass(frozen=True)
class DeconvolutionSettings:
    """Shape of the layer."""

    window: int = 128  # photo pixels along a window; windows overlap by half
    kernel: int = 33  # photo pixels along a blur kernel
    channels: tuple[int, ...] = (24, 48, 96, 96)  # of the convolutions that read a spectrum, each halving it
    hidden: int = 512
    width: int = 96  # of what a window asks its neighbours: a flat one cannot know by itself
    bands: int = 8  # radial frequency bands of the noise level


@dataclass(frozen=True)
class Blur:
    """What was read, per window that reaches over no border: (B, windows down, windows across, ...)."""

    spectra: torch.Tensor  # of the photo's brightness
    kernels: torch.Tensor  # (..., kernel * kernel): logarithms, up to a constant
    gains: torch.Tensor  # Wiener's filter


class Deconvolution(nn.Module):
    """Estimate a kernel h and a noise level n per window; filter by G = conj(H) / (|H|^2 + n)."""

    window: torch.Tensor
    bands: torch.Tensor

    def __init__(self, settings: DeconvolutionSettings, width: int) -> None:
        super().__init__()
        self.settings = settings
        taper = torch.hann_window(settings.window).sqrt()  # on the way in and out: overlapping squares sum to one
        self.register_buffer("window", torch.outer(taper, taper), persistent=False)
        self.register_buffer("bands", _radial_bands(settings.window, settings.bands), persistent=False)
        layers: list[nn.Module] = []
        for before, after in zip((1, *settings.channels), settings.channels, strict=False):
            side = 5 if before == 1 else 3
            layers += [nn.Conv2d(before, after, side, stride=2, padding=side // 2), nn.GroupNorm(4, after), nn.SiLU()]
        self.look = nn.Sequential(*layers, nn.Flatten())
        rows, columns = settings.window, settings.window // 2 + 1
        for _ in settings.channels:
            rows, columns = -(-rows // 2), -(-columns // 2)
        self.enter = nn.Linear(settings.channels[-1] * rows * columns + 2, settings.hidden)
        self.hear = nn.Linear(width, settings.hidden)
        self.ask = nn.Sequential(nn.Linear(settings.hidden, settings.width), nn.SiLU())
        self.answer = nn.Linear(settings.width, settings.hidden)
        self.think = nn.Sequential(nn.SiLU(), nn.Linear(settings.hidden, settings.hidden), nn.SiLU())
        self.leave = nn.Linear(settings.hidden, settings.kernel**2 + settings.bands)
        keep_size(self.hear)
        keep_size(self.answer, gain=0.0)
        with torch.no_grad():
            self.leave.bias[settings.kernel**2 :] = -4.0

    def forward(self, photo: Image, blur: Blur) -> Image:
        """Divide a blur out of (B, 3, H, W). No gradient flows: what is read is judged by `filtered`, at less cost."""
        height, width = photo.shape[-2:]
        with torch.no_grad(), torch.autocast(photo.device.type, enabled=False):
            spectra = torch.fft.rfft2(self._windows(photo.float(), ring=True) * self.window)
            windows = torch.fft.irfft2(spectra * _with_ring(blur.gains)[:, None], s=self.window.shape) * self.window
            return self._overlap_add(windows)[..., :height, :width]

    def read(self, photo: Image, vector: torch.Tensor) -> Blur:
        """(B, 3, H, W), (B, width) -> the blur of each window."""
        with torch.autocast(photo.device.type, enabled=False):
            spectra = torch.fft.rfft2(self._brightness(photo) * self.window)
        said = self._estimate(spectra, vector)
        with torch.autocast(photo.device.type, enabled=False):
            return Blur(spectra, said[..., : self.settings.kernel**2], self.wiener(said.float()))

    def filtered(self, blur: Blur) -> torch.Tensor:
        """Return the brightness of each window with its blur divided out, faded to the window's border."""
        with torch.autocast(blur.gains.device.type, enabled=False):
            windows: torch.Tensor = torch.fft.irfft2(blur.spectra * blur.gains, s=self.window.shape)
            return windows * self.window

    def unfiltered(self, photo: Image) -> torch.Tensor:
        """Return the same windows of a photo as they are."""
        return self._brightness(photo) * self.window**2

    def _brightness(self, photo: Image) -> torch.Tensor:
        luma = torch.einsum("bchw,c->bhw", photo.float(), photo.new_tensor(LUMA, dtype=torch.float32))
        return self._windows(luma[:, None], ring=False)[:, 0]

    def _windows(self, photo: Image, *, ring: bool) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, windows down, windows across, side, side), maybe with a ring over the border."""
        side, step = self.settings.window, self.settings.window // 2
        bottom, right = (max(side - extent, 0) or -extent % step for extent in photo.shape[-2:])
        border = step if ring else 0
        padded = F.pad(photo, (border, right + border, border, bottom + border), mode="replicate")
        return padded.unfold(2, side, step).unfold(3, side, step)

    def _overlap_add(self, windows: torch.Tensor) -> Image:
        """Invert `_windows` with a ring, for windows that sum to one: four tilings, each without overlap, added up."""
        side, step = self.settings.window, self.settings.window // 2
        batch, colours, down, across = windows.shape[:4]
        image = windows.new_zeros(batch, colours, (down + 1) * step, (across + 1) * step)
        for top in (0, 1):
            for left in (0, 1):
                tiles = windows[:, :, top::2, left::2].transpose(3, 4)
                tiled = tiles.reshape(batch, colours, tiles.shape[2] * side, -1)
                image[..., top * step :, left * step :][..., : tiled.shape[-2], : tiled.shape[-1]] += tiled
        return image[..., step:-step, step:-step]

    def _estimate(self, spectra: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Spectra (B, h, w, side, side / 2 + 1) -> kernels and noise levels (B, h, w, n)."""
        batch, down, across = spectra.shape[:3]
        power = torch.log(spectra.abs().square() + FLOOR).flatten(0, 2)
        centred = torch.fft.fftshift(power, dim=-2)
        mean, spread = centred.mean((1, 2), keepdim=True), centred.std((1, 2), keepdim=True)
        features = self.look(((centred - mean) / (spread + 1e-3))[:, None])
        level = torch.cat([mean, spread], dim=1).flatten(1)  # lost by standardising, and it is the noise level
        hidden = self.enter(torch.cat([features, level.to(features.dtype)], dim=1))
        heard = hidden.reshape(batch, down, across, -1) + self.hear(vector)[:, None, None]
        agreed = heard + self.answer(_neighbours(self.ask(heard)))
        said: torch.Tensor = self.leave(self.think(agreed))
        return said

    def wiener(self, said: torch.Tensor) -> torch.Tensor:
        """Kernels and noise levels (B, h, w, n) -> Wiener's filters (B, h, w, side, side / 2 + 1)."""
        side, kernel = self.settings.window, self.settings.kernel
        spread = torch.softmax(said[..., : kernel**2], dim=-1).reshape(*said.shape[:-1], kernel, kernel)
        placed = F.pad(spread, (0, side - kernel, 0, side - kernel)).roll((-(kernel // 2),) * 2, dims=(-2, -1))
        transfer = torch.fft.rfft2(placed)
        noise = torch.exp(said[..., kernel**2 :] @ self.bands).reshape(transfer.shape)
        gains: torch.Tensor = transfer.conj() / (transfer.abs().square() + noise)
        return gains


def _with_ring(gains: torch.Tensor) -> torch.Tensor:
    """Give windows over the border, (B, h + 2, w + 2, ...), the filter of their neighbour inside."""
    down, across = (torch.arange(-1, n + 1, device=gains.device).clamp(0, n - 1) for n in gains.shape[1:3])
    return gains[:, down][:, :, across]


def _neighbours(windows: torch.Tensor) -> torch.Tensor:
    """Average (B, h, w, n) over the 3x3 windows around each, as far as there are any."""
    means = F.avg_pool2d(windows.permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False)
    return means.permute(0, 2, 3, 1)


def _radial_bands(side: int, bands: int) -> torch.Tensor:
    """Weights (bands, bins) that interpolate linearly in the logarithm of the frequency."""
    rows, columns = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    octave = torch.log2((side * torch.hypot(rows, columns)).clamp_min(1))
    centres = torch.linspace(0, float(octave.max()), bands)
    nearness = 1 - (octave[..., None] - centres).abs() / (centres[1] - centres[0])
    return nearness.clamp_min(0).flatten(0, 1).T.contiguous()
