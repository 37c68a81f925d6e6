"""Maps brought to another size, on arrays: as torch's bilinear `interpolate` does it on tensors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def resize_maps(maps: Floats, size: tuple[int, int]) -> Floats:
    """(..., h, w) to (..., height, width): bilinear, half-pixel centres, borders repeated, no antialiasing."""
    for axis, length in zip((-2, -1), size, strict=True):
        if maps.shape[axis] != length:
            maps = _along(maps, axis, length)
    return maps


def _along(maps: Floats, axis: int, length: int) -> Floats:
    side = maps.shape[axis]
    place = (
        (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(side / length) - np.float32(0.5)
    ).clip(0)
    before = np.minimum(place.astype(np.intp), side - 1)
    after = np.minimum(before + 1, side - 1)
    share = (place - before).astype(np.float32)
    share = share[:, None] if axis == -2 else share
    found: Floats = np.take(maps, after, axis=axis)
    first = np.take(maps, before, axis=axis)
    found -= first
    found *= share
    found += first
    return found
