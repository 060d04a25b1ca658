"""What networks read off a photo beside their convolutions: spectra, what a codec left behind, tones, local contrast.

Each says at a glance what convolutions learn slowly, and costs next to nothing.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.layers import pad_to

TONES = 16
SIDE = 8  # px of a codec's blocks
LUMA_STEPS = (  # of brightness at quality 50, row by row: ITU-T T.81, table K.1
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


# --- spectra ----------------------------------------------------------------------------------------------------------


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


# --- codecs -----------------------------------------------------------------------------------------------------------


def luma_steps(quality: int) -> torch.Tensor:
    """Return the steps that libjpeg rounds brightness to at a quality from 1 to 100, of 255: (64,).

    >>> luma_steps(50)[:3].tolist()
    [16.0, 11.0, 10.0]
    """
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(LUMA_STEPS).flatten() * percent + 50) // 100).clamp(1, 255).float()


def block_cosines() -> torch.Tensor:
    """Return the 64 waves of a block's cosine transform, (64, 1, 8, 8), rows before columns."""
    place = torch.arange(SIDE)
    waves = torch.cos((2 * place + 1) * place[:, None] * torch.pi / (2 * SIDE)) * (2 / SIDE) ** 0.5
    waves[0] /= 2**0.5
    return torch.einsum("iy,jx->ijyx", waves, waves).reshape(SIDE**2, 1, SIDE, SIDE)


def block_steps(y: torch.Tensor) -> list[torch.Tensor]:
    """Return the mean step between columns by its place in a grid of 8, less that of all, and between rows: (B, 8)."""
    return [_steps(part.float()) for part in (y, y.transpose(2, 3))]


def _steps(y: torch.Tensor) -> torch.Tensor:
    step = (y[..., 1:] - y[..., :-1]).abs().clamp_max(0.1).mean((1, 2))
    step = F.pad(step, (0, -step.shape[1] % SIDE), mode="replicate")
    profile = step.reshape(len(step), -1, SIDE).mean(1)
    return 100 * (profile - profile.mean(1, keepdim=True))


def coefficients(y: torch.Tensor, basis: torch.Tensor, phase: tuple[int, int]) -> torch.Tensor:
    """Return the coefficients (K, N) of the blocks of a photo (1, H, W), whose grid begins at a row and a column."""
    top, left = phase
    return F.conv2d(y[None, :, top:, left:].float(), basis, stride=SIDE).flatten(2)[0]


class Grid(nn.Module):
    """What a codec leaves behind: steps between blocks of 8 px, and how many coefficients of the blocks are nothing.

    A photo that was cut or never coded has a grid as well, and no steps.
    """

    NOTHING = 1 / 255
    basis: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("basis", block_cosines(), persistent=False)
        self.read = nn.Sequential(nn.Linear(2 * SIDE**2 + 2 * SIDE, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Brightness (B, 1, H, W) -> (B, width)."""
        with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
            steps = block_steps(y)
            columns, rows = ((profile.argmax(1) + 1) % SIDE for profile in steps)
            found = [
                self._coefficients(coefficients(photo, self.basis, (int(top), int(left))))
                for photo, top, left in zip(y, rows, columns, strict=True)
            ]
            turned = [torch.stack([p.roll(-int(k)) for p, k in zip(s, s.argmax(1), strict=True)]) for s in steps]
            seen = torch.cat([torch.stack(found), *turned], 1)
        read: torch.Tensor = self.read(seen)
        return read.float()

    def _coefficients(self, blocks: torch.Tensor) -> torch.Tensor:
        """Return per frequency the logarithm of the mean size, and the share that is next to nothing: (128,)."""
        sizes = blocks.abs()
        nothing = torch.exp(-((sizes / self.NOTHING) ** 2)).mean(1)
        return torch.cat([torch.log(sizes.mean(1) + 1e-4) / 2 + 2, 2 * nothing - 1])


class Ladder(nn.Module):
    """At which quality a photo was last rounded as JPEG: how near coefficients lie to multiples of every rung's steps.

    Whatever texture a photo has or lost, what is left of it sits on the steps of its table, until it is resized. Photos
    that were turned since sit on the steps of the table on its side.
    """

    RUNGS = tuple(range(10, 100, 5))  # qualities
    SUMS = range(1, 6)  # of the frequencies down and across that are held against the steps
    SHARP = 5  # the sum of those that are nothing on the grid and something beside it
    ENOUGH = 20.0  # coefficients that are not nothing, before a rung is believed
    MIDDLE = 192  # px a side that show where the grid is
    MOST = 512  # blocks that are held against the steps, spread over the photo
    low: torch.Tensor
    sharp: torch.Tensor
    steps: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        waves, place = block_cosines(), torch.arange(SIDE**2)
        down, across = place // SIDE, place % SIDE
        low = torch.isin(down + across, torch.tensor(self.SUMS))
        tables = torch.stack([luma_steps(quality) for quality in self.RUNGS])
        turned = tables[:, SIDE * across + down]
        self.register_buffer("low", waves[low], persistent=False)
        self.register_buffer("sharp", waves[down + across == self.SHARP], persistent=False)
        self.register_buffer("steps", torch.stack([tables[:, low], turned[:, low]]), persistent=False)
        rungs = len(self.RUNGS)
        self.read = nn.Sequential(nn.Linear(2 * rungs, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Brightness (B, 1, H, W) -> (B, width)."""
        with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
            seen = torch.stack([self.nearness(coefficients(photo, self.low, self.phase(photo))) for photo in y])
        read: torch.Tensor = self.read(seen)
        return read.float()

    def phase(self, y: torch.Tensor) -> tuple[int, int]:
        """Return the row and the column at which the grid of a photo (1, H, W) begins: where most is nothing.

        Steps between blocks tell that in four of five photos that were coded and cut, and this in all of 160.
        """
        top, left = (max(0, extent - self.MIDDLE) // 2 // SIDE * SIDE for extent in y.shape[1:])
        middle = y[:, top : top + self.MIDDLE, left : left + self.MIDDLE].float()
        nothing = torch.exp(-((255 * F.conv2d(middle[None], self.sharp)[0]) ** 2)).mean(0)
        rows, columns = (extent // SIDE for extent in nothing.shape)
        if not rows or not columns:
            return 0, 0
        shares = nothing[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE).mean((0, 2))
        down, across = divmod(int(shares.argmax()), SIDE)
        return down, across

    def nearness(self, blocks: torch.Tensor) -> torch.Tensor:
        """Return per rung the mean cosine of coefficients in turns of its step, and how many there are: (2 rungs,).

        Of a table as it is and on its side the one that fits better.
        """
        levels = 255 * blocks[:, _spread(blocks.shape[1], self.MOST).to(blocks.device)]
        near, count = torch.stack([self._held_against(levels, steps) for steps in self.steps]).unbind(1)
        better = near.argmax(0, keepdim=True)
        return torch.cat([near.gather(0, better)[0], count.gather(0, better)[0]])

    def _held_against(self, levels: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
        near, counts = [], []
        for steps in tables:  # one rung at a time: all of them at once are slower than memory
            turns = levels / steps[:, None]
            loud = turns.abs() > 0.5  # what is nothing lies on every rung
            near.append((torch.cos(2 * torch.pi * turns) * loud).sum())
            counts.append(loud.sum())
        count = torch.stack(counts)
        return torch.stack([torch.stack(near) / (count + self.ENOUGH), count / levels.numel()])


def _spread(count: int, most: int) -> torch.Tensor:
    """Choose up to ``most`` of so many places, spread by the golden ratio: no stride would fall on few columns."""
    if count <= most:
        return torch.arange(count)
    return (torch.arange(most, dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1 * count).long()


# --- tones ------------------------------------------------------------------------------------------------------------


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
