"""Blur kernels as NumPy arrays: odd, square, non-negative where physics says so, sum 1, centroid at the centre."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kernel: TypeAlias = NDArray[np.float64]
Family = Literal["gaussian", "generalized", "plateau"]


def _grid(size: int) -> tuple[Kernel, Kernel]:
    axis = np.arange(size, dtype=np.float64) - (size - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def _unit(kernel: Kernel) -> Kernel:
    """Scale to sum 1."""
    scaled: Kernel = kernel / kernel.sum()
    return scaled


def bell(
    size: int, sigma_x: float, sigma_y: float, theta: float = 0.0, family: Family = "gaussian", beta: float = 1.0
) -> Kernel:
    """Return a Gaussian, generalized Gaussian or plateau kernel, isotropic when both sigmas agree.

    m = x' S^-1 x with S = R diag(sigma_x^2, sigma_y^2) R';  exp(-m/2),  exp(-m^beta/2),  1/(1 + m^beta).
    """
    y, x = _grid(size)
    along = math.cos(theta) * x + math.sin(theta) * y
    across = -math.sin(theta) * x + math.cos(theta) * y
    m = (along / sigma_x) ** 2 + (across / sigma_y) ** 2
    kernel = 1 / (1 + m**beta) if family == "plateau" else np.exp(-0.5 * m ** (beta if family == "generalized" else 1))
    return _unit(kernel)


def sinc(size: int, cutoff: float) -> Kernel:
    """Return a circular low-pass, k(r) = w / (2 pi r) J1(w r) with centre w^2 / (4 pi): it rings, as codecs do."""
    y, x = _grid(size)
    r = np.hypot(x, y)
    safe = np.where(r == 0, 1.0, r)
    kernel = np.where(r == 0, cutoff**2 / (4 * math.pi), cutoff * _bessel_j1(cutoff * safe) / (2 * math.pi * safe))
    return _unit(kernel)


def _bessel_j1(x: Kernel) -> Kernel:
    """Return J1 by its integral, (1/pi) int_0^pi cos(a - x sin a) da; the midpoint rule converges geometrically."""
    angles = (np.arange(64) + 0.5) * math.pi / 64
    values: Kernel = np.cos(angles - x[..., None] * np.sin(angles)).mean(-1)
    return values


def disk(radius: float) -> Kernel:
    """Return a lens out of focus: a filled circle with an anti-aliased edge."""
    size = 2 * math.ceil(radius) + 1
    oversample = 8
    y, x = _grid(size * oversample)
    inside = (np.hypot(x, y) <= max(1, radius * oversample)).astype(np.float64)  # a point at the least
    kernel = inside.reshape(size, oversample, size, oversample).mean((1, 3))
    return _unit(kernel)


def line(length: float, angle: float) -> Kernel:
    """Return straight, even motion over ``length`` pixels at ``angle`` radians."""
    s = np.linspace(-0.5, 0.5, 16 * math.ceil(length) + 1) * length
    return _splat(s * math.sin(angle), s * math.cos(angle))


def shake(rng: np.random.Generator, exposure: float, amplitude: float) -> Kernel:
    """Return camera shake: hand tremor with 1/f drift and a bump near 10 Hz (after Delbracio & Sapiro).

    ``exposure`` in seconds; the rms excursion is ``amplitude * sqrt(exposure / 0.1)`` pixels.
    """
    samples = max(32, round(exposure * 1000))
    path = np.stack([_tremor(rng, samples), _tremor(rng, samples)])
    path[0] *= rng.uniform(0.3, 1.0)
    turn = rng.uniform(0, 2 * math.pi)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    path = rotation @ (path - path.mean(1, keepdims=True))
    path *= amplitude * math.sqrt(exposure / 0.1) / max(float(np.sqrt((path**2).sum(0).mean())), 1e-9)
    kernel = _splat(path[0], path[1])
    return _soften(kernel, rng.uniform(0.3, 0.6))


def _tremor(rng: np.random.Generator, samples: int) -> Kernel:
    """White noise shaped by 1/f from 0.5 to 30 Hz plus a tremor bump; drawn over 2 s, so that slow drift is there."""
    total = max(2048, samples)
    f = np.fft.rfftfreq(total, 1e-3)
    drift = np.where((f >= 0.5) & (f <= 30), 1 / np.maximum(f, 0.5), 0.0)
    bump = rng.uniform(0.2, 1.0) * np.exp(-(((f - rng.uniform(7, 12)) / 2) ** 2)) / 10
    spectrum = (drift + bump) * (rng.standard_normal(f.size) + 1j * rng.standard_normal(f.size))
    signal: Kernel = np.fft.irfft(spectrum, total)[:samples]
    return signal


LARGEST = 61  # pixels; longer paths are cut


def _splat(y: Kernel, x: Kernel) -> Kernel:
    """Draw a path with bilinear weights on the smallest odd grid that holds it, centroid in the middle."""
    y, x = y - y.mean(), x - x.mean()
    half = min(LARGEST // 2, math.ceil(max(np.abs(y).max(), np.abs(x).max())) + 1)
    inside = (np.abs(y) < half) & (np.abs(x) < half)
    y, x = y[inside], x[inside]
    size = 2 * half + 1
    kernel = np.zeros((size, size))
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - np.abs(y - top - dy)) * (1 - np.abs(x - left - dx))
            np.add.at(kernel, (top + dy + half, left + dx + half), weight)
    return _unit(kernel)


def _soften(kernel: Kernel, sigma: float) -> Kernel:
    """Blur a kernel a little: sensors have no infinitely thin traces."""
    small = bell(3, sigma, sigma)
    padded = np.pad(kernel, 2)
    out = np.zeros((kernel.shape[0] + 2, kernel.shape[1] + 2))
    for dy in range(3):
        for dx in range(3):
            out += small[dy, dx] * padded[dy : dy + out.shape[0], dx : dx + out.shape[1]]
    return _unit(out)
