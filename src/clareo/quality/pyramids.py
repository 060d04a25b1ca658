"""Metrics with a reference that climb a pyramid of ever smaller photos: VIF and NLPD. RGB, [0, 1]."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from clareo.quality.planes import EIGHT_BIT, Colour, Planes, gaussian, local_mean, moments, planes, root
from clareo.types import Image

# --- visual information fidelity -------------------------------------------------------------------------------------

EYE_NOISE = 2.0  # variance of what the eye adds, in 8-bit levels squared
NOTHING = 1e-8  # a variance below this is none


def vif(restored: Image, reference: Image, colour: Colour = "y-yiq") -> torch.Tensor:
    """Visual information fidelity (Sheikh & Bovik 2006) in the pixel domain, luma by default; higher is better: (B,).

    1 for equal images, and more where contrast was added. The authors' second programme, which takes four scales of
    the photo in place of the paper's wavelet bands. Of a reference without detail everything is kept: 1.
    """
    a, b = (_centred(planes(image, colour)) for image in (restored, reference))
    kept = given = NOTHING * torch.ones_like(a[:, :, 0, 0])
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        window = gaussian(size, size / 5, a)
        if scale:
            a, b = (local_mean(x, window)[..., ::2, ::2] for x in (a, b))
        more_kept, more_given = _information(a, b, window)
        kept, given = kept + more_kept, given + more_given
    return (kept / given).mean(1)


def _centred(x: Planes) -> Planes:
    """Take off the mean, which VIF does not see: variances of small numbers are exact to more digits."""
    return EIGHT_BIT * (x - x.mean((2, 3), keepdim=True))


def _information(a: Planes, b: Planes, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the eye gets from the restored photo and from the reference, in nats: (B, C) each.

    The restored photo is taken for gain x reference + noise, D = g C + V, fitted under each window by least squares.
    """
    _, _, restored, reference, covariance = moments(a, b, window)
    restored, reference = restored.clamp_min(0), reference.clamp_min(0)
    fits = (reference >= NOTHING) & (restored >= NOTHING) & (covariance >= 0)  # elsewhere all is noise
    gain = torch.where(fits, covariance / (reference + NOTHING), 0)
    noise = torch.where(fits, restored - gain * covariance, restored).clamp_min(NOTHING)
    reference = torch.where(reference >= NOTHING, reference, 0)
    kept = torch.log1p(gain**2 * reference / (noise + EYE_NOISE))  # I(C; F | s)
    return kept.sum((2, 3)), torch.log1p(reference / EYE_NOISE).sum((2, 3))  # I(C; E | s)


# --- normalized Laplacian pyramid distance ---------------------------------------------------------------------------

BLUR = (0.05, 0.25, 0.4, 0.25, 0.05)
# Neighbours (above, left, right, below) that set a coefficient's scale, and the scale where they are nothing: fitted by
# the authors to photos, finest level first; the last is the low-pass rest.
NEIGHBOURS = (
    ((0.1011, 0.1493, 0.1460, 0.1015), 0.0248),
    ((0.0757, 0.1986, 0.1846, 0.0837), 0.0185),
    ((0.0477, 0.2138, 0.2243, 0.0467), 0.0179),
    ((0.0000, 0.2503, 0.2616, 0.0000), 0.0191),
    ((0.0000, 0.2598, 0.2552, 0.0000), 0.0220),
    ((0.0000, 0.2215, 0.0717, 0.0000), 0.2782),
)


def nlpd(restored: Image, reference: Image) -> torch.Tensor:
    """Normalized Laplacian pyramid distance (Laparra et al. 2016) of YIQ luma; lower is better, 0 if equal: (B,)."""
    a, b = (_normalised_pyramid(planes(image, "y-yiq")) for image in (restored, reference))
    levels = [root((x - y).square().mean((1, 2, 3))) for x, y in zip(a, b, strict=True)]
    return torch.stack(levels).mean(0)


def _normalised_pyramid(x: Planes) -> list[Planes]:
    """Return the levels of a Laplacian pyramid, each in parts of what lies around it: y = z / (sigma + sum p |z|)."""
    levels = []
    for neighbours, least in NEIGHBOURS[:-1]:
        low = _blurred(_mirrored(x))[..., ::2, ::2]
        levels.append(_normalised(x - _enlarged(low, x.shape), neighbours, least))
        x = low
    return [*levels, _normalised(x, *NEIGHBOURS[-1])]


def _normalised(x: Planes, neighbours: tuple[float, ...], least: float) -> Planes:
    above, left, right, below = neighbours
    kernel = x.new_tensor([[0, below, 0], [right, 0, left], [0, above, 0]])  # turned round: MATLAB convolves
    return x / (least + F.conv2d(x.abs(), kernel[None, None], padding=1))


def _blurred(x: Planes) -> Planes:
    return local_mean(x, x.new_tensor(BLUR))


def _mirrored(x: Planes) -> Planes:
    """Add two pixels on every side, mirrored with the edge pixel itself; sides of 1 px repeat it."""
    for axis in (2, 3):
        length = x.shape[axis]
        order = torch.arange(-2, length + 2, device=x.device) % (2 * length)
        x = x.index_select(axis, torch.minimum(order, 2 * length - 1 - order))
    return x


def _enlarged(low: Planes, shape: torch.Size) -> Planes:
    """Double the size with zeros between, blur, and cut to a shape; the border is repeated first."""
    padded = F.pad(low, (1, 1, 1, 1), mode="replicate")
    spread = padded.new_zeros(*padded.shape[:2], 2 * padded.shape[2], 2 * padded.shape[3])
    spread[..., ::2, ::2] = 4 * padded
    return _blurred(spread)[..., : shape[2], : shape[3]]
