"""Guidance that may turn a velocity, and make it smaller, but never larger (BAGEL, Deng et al. 2025).

A wrapper around `guidance.guide`: the weighted sum is the same, and what comes of it is scaled by
clamp(|v| / |v_b|, 0, 1), where v is what the plain branch says and v_b the blend, as velocities (x - clean) / t.

    global         one norm for the whole latent
    channel        one norm a token: all channels of a patch
    text_channel   a norm a token, of the blend of `plain` and its like without words, before images are led away from
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from clareo.diffusion.guidance import TOLERANCE, Conditioned, Guidance, Spread, guide
from clareo.errors import UsageError
from clareo.types import Condition, Denoise, Latent

Mode = Literal["global", "channel", "text_channel"]
MODES = ("global", "channel", "text_channel")


def text_and_image(text: float, image: float, names: tuple[str, str, str]) -> dict[str, float]:
    """Return the weights of two guidances in a row, of the branches (with both, without words, without the image).

    v_a = v_without_words + text (v - v_without_words), v_b = v_without_image + image (v_a - v_without_image).

    >>> text_and_image(3.0, 1.5, ("full", "no_text", "no_image"))
    {'full': 4.5, 'no_text': -3.0, 'no_image': -0.5}
    """
    weights = zip(names, (image * text, image * (1 - text), 1 - image), strict=True)
    return {name: weight for name, weight in weights if weight}


@dataclass(frozen=True)
class Renormalised:
    """Guide, and renormalise; called like `guidance.guide`, and a system's ``guide`` where it wants this."""

    plain: str  # the branch that hears and sees everything, which speaks alone at times that are not active
    wordless: str = ""  # the branch without words, for "text_channel"
    mode: Mode = "global"
    patch: int = 1  # latent pixels along a token
    active: tuple[float, float] = (0.4, 1.0)  # times above the first and up to the second

    def __post_init__(self) -> None:
        if self.mode not in MODES or self.patch < 1 or (self.mode == "text_channel" and not self.wordless):
            msg = f"impossible renormalisation: {self}"
            raise UsageError(msg)

    def __call__(
        self,
        denoiser: Conditioned,
        branches: Mapping[str, Condition],
        guidance: Guidance,
        *,
        together: bool = True,
        spread: Spread | None = None,
    ) -> Denoise:
        """Blend the branches one by one, whatever ``together`` says: they are not built alike."""
        del together
        alone = Guidance({self.plain: 1.0})
        guide(denoiser, branches, guidance)  # says which expert is not there

        def denoise(x: Latent, t: torch.Tensor) -> Latent:
            active = self.active[0] + TOLERANCE < float(t[0]) <= self.active[1] + TOLERANCE  # t is in single precision
            weights = guidance if active or self.plain not in guidance.weights else alone
            named = weights.at(float(t[0]))
            seen = {name: denoiser(x, t, branches[name].expand(len(x))) for name in named}
            known = {name: Condition(known=estimate) for name, estimate in seen.items()}
            if self.mode == "text_channel" and self.wordless in named and self.plain in named:
                known[self.plain] = Condition(known=self._for_words(named, seen, x))
            blend = guide(denoiser, known, weights, together=False, spread=spread)(x, t)
            if self.plain not in named or len(named) == 1 or self.mode == "text_channel":
                return blend
            return x - self._shrunk(x - seen[self.plain], x - blend)

        return denoise

    def _for_words(self, named: Mapping[str, float | torch.Tensor], seen: Mapping[str, Latent], x: Latent) -> Latent:
        """Return the plain estimate that makes the sum over all branches one with v_a renormalised."""
        with_words, without = (torch.as_tensor(named[name]).to(x) for name in (self.plain, self.wordless))
        both = with_words + without
        blend = (with_words * seen[self.plain] + without * seen[self.wordless]) / both
        wanted = x - self._shrunk(x - seen[self.plain], x - blend)
        return (both * wanted - without * seen[self.wordless]) / with_words

    def _shrunk(self, plain: Latent, blend: Latent) -> Latent:
        """Scale a blended velocity down to the norm of the plain one; t cancels out."""
        before, after = (self._norm(velocity.float()) for velocity in (plain, blend))
        return blend * (before / (after + 1e-8)).clamp(0, 1).to(blend)

    def _norm(self, velocity: Latent) -> torch.Tensor:
        """Return norms that multiply (B, C, h, w); in fp32, a sample each."""
        power = velocity.square().sum(1, keepdim=True)
        if self.mode == "global":
            return power.sum((2, 3), keepdim=True).sqrt()
        tokens = F.avg_pool2d(power, self.patch) * self.patch**2
        return F.interpolate(tokens, scale_factor=self.patch, mode="nearest").sqrt()
