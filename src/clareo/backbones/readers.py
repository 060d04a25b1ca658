"""What networks read off a photo beside their convolutions: spectra, the grid of a codec, tones, local contrast.

Each says at a glance what convolutions learn slowly, and costs next to nothing.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.layers import pad_to

TONES = 16


class Spectrum(nn.Module):
    """Logarithm of the power of small windows, its mean and spread over the photo, read by convolutions."""

    FLOOR = 1e-3  # about the power of 8-bit rounding in a window
    taper: torch.Tensor

    def __init__(self, window: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        taper = torch.hann_window(window)
        self.register_buffer("taper", torch.outer(taper, taper), persistent=False)
        layers: list[nn.Module] = []
        rows, columns = window, window // 2 + 1
        for before, after in zip((2, *channels), channels, strict=False):
            layers += [nn.Conv2d(before, after, 5 if before == 2 else 3, 2, 2 if before == 2 else 1), nn.SiLU()]
            rows, columns = -(-rows // 2), -(-columns // 2)
        self.read = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * rows * columns, width))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Brightness (B, 1, H, W) -> (B, width)."""
        side = self.taper.shape[-1]
        y = pad_to(y, side) if min(y.shape[-2:]) < side else y
        with torch.autocast(y.device.type, enabled=False):
            windows = y.float()[:, 0].unfold(1, side, side // 2).unfold(2, side, side // 2).flatten(1, 2)
            windows = windows - windows.mean((2, 3), keepdim=True)
            power = torch.log(torch.fft.rfft2(windows * self.taper).abs().square() + self.FLOOR)
            spread = power.std(1) if power.shape[1] > 1 else torch.zeros_like(power[:, 0])
            seen = torch.fft.fftshift(torch.stack([power.mean(1) / 4, spread - 1], 1), dim=-2)
        read: torch.Tensor = self.read(seen)
        return read.float()


class Grid(nn.Module):
    """What a codec leaves behind: steps between blocks of 8 px, and how many coefficients of the blocks are nothing.

    The phase of the grid is where steps are largest; a photo that was cut or never coded has one as well, and no steps.
    """

    SIDE = 8
    NOTHING = 1 / 255
    basis: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        place, side = torch.arange(self.SIDE), self.SIDE
        waves = torch.cos((2 * place + 1) * place[:, None] * torch.pi / (2 * side)) * (2 / side) ** 0.5
        waves[0] /= 2**0.5
        basis = torch.einsum("iy,jx->ijyx", waves, waves).reshape(side**2, 1, side, side)
        self.register_buffer("basis", basis, persistent=False)
        self.read = nn.Sequential(nn.Linear(2 * side**2 + 2 * side, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Brightness (B, 1, H, W) -> (B, width)."""
        with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
            steps = [self._steps(part.float()) for part in (y, y.transpose(2, 3))]
            columns, rows = ((profile.argmax(1) + 1) % self.SIDE for profile in steps)
            found = [
                self._coefficients(photo[None, :, int(top) :, int(left) :].float())
                for photo, top, left in zip(y, rows, columns, strict=True)
            ]
            turned = [torch.stack([p.roll(-int(k)) for p, k in zip(s, s.argmax(1), strict=True)]) for s in steps]
            seen = torch.cat([torch.stack(found), *turned], 1)
        read: torch.Tensor = self.read(seen)
        return read.float()

    def _steps(self, y: torch.Tensor) -> torch.Tensor:
        """Return the mean step between columns by its place in a grid of 8, less the mean of all: (B, 8)."""
        step = (y[..., 1:] - y[..., :-1]).abs().clamp_max(0.1).mean((1, 2))
        step = F.pad(step, (0, -step.shape[1] % self.SIDE), mode="replicate")
        profile: torch.Tensor = step.reshape(len(step), -1, self.SIDE).mean(1)
        return 100 * (profile - profile.mean(1, keepdim=True))

    def _coefficients(self, y: torch.Tensor) -> torch.Tensor:
        """Return per frequency the logarithm of the mean size, and the share that is next to nothing: (128,)."""
        sizes = F.conv2d(y, self.basis, stride=self.SIDE).abs().flatten(2)[0]
        nothing = torch.exp(-((sizes / self.NOTHING) ** 2)).mean(1)
        return torch.cat([torch.log(sizes.mean(1) + 1e-4) / 2 + 2, 2 * nothing - 1])


def contrast_normalised(y: torch.Tensor) -> torch.Tensor:
    """(y - mean) / (deviation + a trace) in windows of 7 px: texture as loud in the dark as in the light."""
    padded = F.pad(y, (3, 3, 3, 3), mode="replicate")
    mean, square = (F.avg_pool2d(F.avg_pool2d(x, (7, 1), 1), (1, 7), 1) for x in (padded, padded**2))
    return (y - mean) / ((square - mean**2).clamp_min(0).sqrt() + 4 / 255)


def tones(y: torch.Tensor) -> torch.Tensor:
    """Return how much of the photo lies at each of 16 brightnesses: (B, 1, H, W) -> (B, 16)."""
    small = F.avg_pool2d(y, 8).flatten(1)
    centres = torch.linspace(0, 1, TONES, device=y.device)
    return (1 - (small[..., None] - centres).abs() * (TONES - 1)).clamp_min(0).mean(1) * 4
