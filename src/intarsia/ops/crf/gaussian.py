"""The smoothness kernel exp(-|p_i - p_j|² / (2 sigma²)) over pixel positions: a separable Gaussian, cut off at 4 sigma.

It is exact up to what is cut off (3e-4 of the value at the centre), where a lattice would be approximate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

REACH = 4.0
"""Standard deviations at which it is cut off."""


def gaussian_taps(std: float, longest: int) -> Tensor:
    """(2 r + 1,) float64 exp(-t² / (2 std²)) for t = -r..r, r = ceil(4 std), or longest - 1 if an image is smaller."""
    radius = max(0, min(math.ceil(REACH * std), longest - 1))
    return torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu") / std) ** 2)


def inverse_root(taps: Tensor, size: int) -> Tensor:
    """(size,) float64 1 / sqrt of the sum of taps that lie inside a row, for the symmetric normalisation."""
    radius = len(taps) // 2
    ones = torch.ones(1, 1, size, dtype=torch.float64, device="cpu")
    return F.conv1d(ones, taps.reshape(1, 1, -1), padding=radius)[0, 0].rsqrt()


def smoothed(map_KHW: Tensor, std: float) -> Tensor:
    """D^-1/2 G D^-1/2 of each map, G the Gaussian and D its sums over the image; differentiable, any device."""
    height, width = map_KHW.shape[-2:]
    taps = gaussian_taps(std, max(height, width))
    scale_HW = inverse_root(taps, height).unsqueeze(1) * inverse_root(taps, width)
    kernel, scale_HW = taps.to(map_KHW), scale_HW.to(map_KHW)
    radius = len(taps) // 2
    x = (map_KHW * scale_HW).unsqueeze(1)
    x = F.conv2d(x, kernel.reshape(1, 1, -1, 1), padding=(radius, 0))
    x = F.conv2d(x, kernel.reshape(1, 1, 1, -1), padding=(0, radius))
    return x.squeeze(1) * scale_HW
