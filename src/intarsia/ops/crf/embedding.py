"""Where pixels lie in the permutohedral lattice: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral
Lattice", Eurographics 2010, section 3; as Krähenbühl and Koltun use it, arXiv:1210.5644, section 3.2.

A feature is (column / sigma_alpha, row / sigma_alpha, channels / sigma_beta), d = 2 + C numbers; the kernel is
exp(-|f_i - f_j|² / 2). The lattice lives in the hyperplane of d + 1 numbers that sum to 0. Positions are integers, with
2^bits for one cell, so that every form of this code, on every device, finds the same simplices and the same vertices.

A vertex is known by a key, the sum of its coordinates times fixed steps: mixed radix where 62 bits are enough for the image's
range, so that keys differ wherever vertices do; else random numbers, where two of a million vertices meet with a chance of
3e-8. A neighbour's key is a vertex's key plus a constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from intarsia.errors import ConfigError

BITS = 20
"""Binary digits below a cell, at most."""
LEAST_BITS = 8
MARGIN = 8
"""Cells around the image's range that corners, neighbours and rounding may reach."""


@dataclass(frozen=True)
class Embedding:
    """How an image's pixels are brought into the lattice."""

    factors: tuple[float, ...]
    """d: of column, row and channels, to 2^-bits of a cell."""
    steps: tuple[int, ...]
    """d + 1: a vertex's key is the sum of coordinate times step, modulo 2^64; the last is 0."""
    bits: int

    @property
    def dimensions(self) -> int:
        return len(self.factors)

    def neighbour_steps(self) -> tuple[int, ...]:
        """d + 1: what to add to a key for the neighbour that is one step further in each direction."""
        whole, size = sum(self.steps), self.dimensions + 1
        return tuple(_signed(whole - size * step) for step in self.steps)

    @staticmethod
    def of(image_CHW: Tensor, position_std: float, colour_std: float) -> Embedding:
        """The embedding for the size of an image and the range of its values.

        Raises:
            ConfigError: the standard deviations are too small for the range of the image.
        """
        channels, height, width = image_CHW.shape
        flat = image_CHW.reshape(channels, -1)
        lows = [0.0, 0.0, *flat.amin(1).tolist()]
        highs = [width - 1.0, height - 1.0, *flat.amax(1).tolist()]
        d = channels + 2
        stds = [position_std] * 2 + [colour_std] * channels
        # Blurring and interpolating in the lattice adds a variance of 2 / 3 (d + 1)^2 in each direction: Adams, section 3.1.
        cells = [math.sqrt(2 / 3 / (j * (j + 1))) / std for j, std in enumerate(stds, 1)]
        low = [a * cell for a, cell in zip(lows, cells, strict=True)]
        high = [b * cell for b, cell in zip(highs, cells, strict=True)]
        size = [max(abs(a), abs(b)) for a, b in zip(low, high, strict=True)]
        reach = sum(size) + max(j * each for j, each in enumerate(size, 1)) + d + 2
        bits = min(BITS, 30 - math.ceil(math.log2(reach)))
        if bits < LEAST_BITS:
            raise ConfigError(
                f"crf: standard deviations of {position_std:g} pixels and {colour_std:g} grey values are too small for an "
                f"image of {height} x {width} with values up to {max(map(abs, (*lows[2:], *highs[2:]))):g}; use larger ones."
            )
        ranges = []
        for j in range(d):
            lowest = sum(low[j:]) - (j * high[j - 1] if j else 0)
            highest = sum(high[j:]) - (j * low[j - 1] if j else 0)
            ranges.append((d + 1) * (math.ceil(highest) - math.floor(lowest) + MARGIN))
        return Embedding(tuple(math.ldexp(cell, bits) for cell in cells), (*_steps(ranges), 0), bits)


def _steps(ranges: list[int]) -> list[int]:
    if math.prod(ranges) < 1 << 62:
        return [math.prod(ranges[:j]) for j in range(len(ranges))]
    return [_signed(_mixed(j + 1) | 1) for j in range(len(ranges))]


def _mixed(number: int) -> int:
    """64 bits without pattern: splitmix64, Steele, Lea, Flood, OOPSLA 2014."""
    z = number * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def _signed(number: int) -> int:
    """Modulo 2^64, as int64 holds it."""
    return (number + 2**63) % 2**64 - 2**63
