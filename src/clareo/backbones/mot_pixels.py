"""A mixture of transformers on unshuffled pixels: what it says is added to what a frozen prior makes of the photo.

A token is 8 x 8 px. Of each the generation expert says a correction, in the coefficients of its blocks, how much of the
prior's own change is taken back, and a curve: light and haze change everything at once, and a few roots of a colour say
more about that than thousands of coefficients. A curve for the whole photo comes straight from the gist of what was
seen and said: whoever saw and heard nothing draws none. Untrained it returns what the prior says, to the bit.

    concat   keys and values of the clean latent, and where each token lies in its window
    image    keys and values of views and words, and their gist (`mot_context`)
    text     what the prior is told
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from clareo.backbones.dit import Grid, TimeEmbedding, positions, thousandths
from clareo.backbones.dit_pixels import GREY, Finish, gains
from clareo.backbones.layers import zeroed
from clareo.backbones.mot import MoT
from clareo.backbones.mot_context import Context
from clareo.backbones.mot_windows import Pair, Place, pass_windows
from clareo.backbones.unet import BlockTransform
from clareo.types import Condition

if TYPE_CHECKING:
    from clareo.backbones.prior import Prior
    from clareo.types import Latent

SIDE, BLOCK = 8, 4  # photo pixels along a token, and along a block of the prior's latent
COEFFICIENTS = 3 * SIDE**2  # numbers in a token
GIVEN = (1.0, 8.0)  # what brings a block's mean, and the rest of it, to unit size
CHANGED = (4.0, 16.0)  # the same of what the prior changes
ADDED = (0.3, 0.05)  # and back: light and haze are large, and have no texture
CURVED = 0.2  # brings what is said of curves to size
DARKEST = 1e-3  # roots of less than that would be nothing but noise
CURVE = 4  # a constant, the colour itself, its root, and the root of that
GATES = 3 * CURVE + 1
CLEAN, NOISED = 0, 256  # positions: in front of all that is seen and said, and behind it


class PixelMoT(nn.Module):
    """The backbone; `prior` stays as it is, or there is none, and the photo itself takes its place."""

    def __init__(self, mot: MoT, prior: Prior | None, window: int) -> None:
        super().__init__()
        width = mot.settings.width
        self.mot, self.prior, self.window = mot, prior, window
        self.transform = BlockTransform(BLOCK)
        self.enter = nn.Linear(2 * COEFFICIENTS, width)
        self.time = TimeEmbedding(width, late=0)
        self.brief = nn.Linear(width, width)
        self.light = _light(width)
        self.leave = zeroed(nn.Linear(width, COEFFICIENTS + GATES))
        self.finish = Finish(3 * BLOCK**2, 1)
        for layer in (self.time.first, self.time.second):
            nn.init.normal_(layer.weight, std=0.02)
        self.register_buffer("places", positions((window, window), width).reshape(window, window, width), False)  # noqa: FBT003

    def trained(self) -> nn.ModuleDict:
        """Return what learns."""
        names = ("mot", "enter", "time", "brief", "light", "leave", "finish")
        return nn.ModuleDict({name: self.get_submodule(name) for name in names})

    def forward(self, x: Latent, t: torch.Tensor, condition: Condition) -> Latent:
        """(B, 192, h, w), (B,), three doors -> (B, 192, h, w)."""
        if condition.concat is None or condition.image is None or condition.text is None:
            msg = "a mixture of transformers needs a photo, what was seen and said of it, and words for its prior"
            raise ValueError(msg)
        clean, phase = self._recalled(condition.concat)
        base = self.base(x, t, condition.text)
        context = Context.of(condition.image, self.mot.settings)
        place, gist = Place(NOISED, _first(phase), context, clean), context.gist()
        tokens = self._tokens(x, base, phase, t) + self.brief(gist)[:, None, None]
        said = self.leave(pass_windows(self.mot, tokens, place, self.window)[0])
        light = t[:, None] * self.light(gist).float()  # of what is wrong with the photo, x_t has the share t
        return base + self._change(x, base, said.permute(0, 3, 1, 2).float(), light)

    def base(self, x: Latent, t: torch.Tensor, text: torch.Tensor) -> Latent:
        """Return what the prior makes of x_t; without one, x_t."""
        if self.prior is None:
            return x
        return _coarse(self.prior.backbone(_fine(x), t, Condition(text=text)))

    def remember(self, photo: Latent, start: Grid = (0, 0)) -> torch.Tensor:
        """Read a clean latent (B, 192, h, w), t = 0: a door (B, 2 layers groups head + 2, h, w).

        ``start`` says where in its window the first token lies.
        """
        extents = zip(start, photo.shape[-2:], strict=True)
        phase = [torch.arange(first, first + extent, device=photo.device) % self.window for first, extent in extents]
        grid = torch.stack(torch.meshgrid(*phase, indexing="ij")).expand(len(photo), -1, -1, -1)
        tokens = self._tokens(photo, photo, grid, torch.zeros(len(photo), device=photo.device))
        pairs = pass_windows(self.mot, tokens, Place(CLEAN, start), self.window)[1]
        kept = [each.flatten(3).permute(0, 3, 1, 2) for pair in pairs for each in pair]
        return torch.cat([*kept, grid.to(kept[0])], dim=1)

    def remember_nothing(self, like: Latent, start: Grid = (0, 0)) -> torch.Tensor:
        """Return what `remember` makes of grey, for a photo that is dropped: one window of it, again and again."""
        one = self.remember(torch.full_like(like[:1, :, :1, :1], GREY).expand(-1, -1, self.window, self.window))
        ends = [first + extent for first, extent in zip(start, like.shape[-2:], strict=True)]
        times = [-(-end // self.window) for end in ends]
        return one.repeat(len(like), 1, *times)[..., start[0] : ends[0], start[1] : ends[1]]

    def _recalled(self, door: torch.Tensor) -> tuple[list[Pair], torch.Tensor]:
        """Unpack what `remember` packed."""
        shape = self.mot.settings
        split = (shape.depth, 2, shape.groups, shape.head)
        parts = door[:, :-2].reshape(len(door), *split, *door.shape[2:]).permute(1, 2, 0, 5, 6, 3, 4)
        return [(keys, values) for keys, values in parts], door[:, -2:].round().long()

    def _tokens(self, x: Latent, base: Latent, phase: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        given = torch.cat([_scaled(self.transform(_fine(x) - GREY), GIVEN), self._changed(x, base)], 1)
        entered = self.enter(_coarse(given).permute(0, 2, 3, 1))
        places = self.get_buffer("places")[phase[:, 0], phase[:, 1]]
        tokens: torch.Tensor = entered + places + self.time(thousandths(t))[:, None, None]
        return tokens

    def _changed(self, x: Latent, base: Latent) -> torch.Tensor:
        return _scaled(self.transform(_fine(base.detach() - x)), CHANGED)

    def _change(self, x: Latent, base: Latent, said: torch.Tensor, light: torch.Tensor) -> Latent:
        """Turn what is said of tokens, (B, 205, h, w), and of the whole, (B, 12), into what is added to the prior's."""
        corrections, gates = said[:, :COEFFICIENTS], said[:, COEFFICIENTS:]
        blocks = _per_colour(self.finish(_fine(corrections)))
        added = self.transform.inverse(blocks * gains(blocks, ADDED))
        smooth = F.interpolate(gates, scale_factor=SIDE // BLOCK, mode="bilinear", align_corners=False)
        fine, found = _fine(base), _fine(base - x)
        curves = CURVED * smooth[:, :-1] + light[..., None, None]
        return _coarse(added + smooth[:, -1:] * found + _curved(fine, curves))


def _light(width: int) -> nn.Sequential:
    """Build what draws a curve for the whole photo; without biases, so that nothing comes of nothing."""
    first, last = nn.Linear(width, width, bias=False), nn.Linear(width, 3 * CURVE, bias=False)
    return nn.Sequential(nn.LayerNorm(width, bias=False), first, nn.SiLU(), zeroed(last))


def _first(phase: torch.Tensor) -> Grid:
    """Return where in its window the first token lies, the same in all rows: (B, 2, h, w) -> two numbers."""
    down, across = phase[0, :, 0, 0].tolist()
    return down, across


def _curved(fine: Latent, weights: torch.Tensor) -> Latent:
    """Add up powers of every colour, (B, 48, h, w), as (B, 12, h, w) say."""
    colours = _per_colour(fine.float()).clamp(DARKEST, 1)
    powers = (torch.ones_like(colours), colours, colours.sqrt(), colours.sqrt().sqrt())
    each = weights.reshape(len(weights), CURVE, 3, 1, *weights.shape[2:]).unbind(1)
    return torch.stack([power * weight for power, weight in zip(powers, each, strict=True)]).sum(0).flatten(1, 2)


def _per_colour(fine: Latent) -> torch.Tensor:
    return fine.reshape(len(fine), 3, BLOCK**2, *fine.shape[2:])


def _scaled(coefficients: torch.Tensor, sizes: tuple[float, float]) -> torch.Tensor:
    """(B, 3, n, h, w) -> (B, 3 n, h, w)."""
    return (coefficients * gains(coefficients, sizes)).flatten(1, 2)


def _fine(x: Latent) -> Latent:
    """Tokens of 8 px to blocks of 4 px, any number of channels of them."""
    return F.pixel_unshuffle(F.pixel_shuffle(x, SIDE), BLOCK)


def _coarse(x: Latent) -> Latent:
    """Blocks of 4 px to tokens of 8 px."""
    return F.pixel_unshuffle(F.pixel_shuffle(x, BLOCK), SIDE)
