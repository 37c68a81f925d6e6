"""Stored numbers as pixels; and pixels without a value: where they are, and what stands in their place in every window."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Read = Callable[[int, int, int, int], NDArray[Any]]
"""(h, w, C) of top, left, height, width."""


def as_pixels(stored: NDArray[Any]) -> NDArray[Any]:
    """uint8 and uint16 as they are, in this machine's order of bytes; all other kinds as float32."""
    if stored.dtype.kind == "u" and stored.dtype.itemsize <= 2:
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return stored.astype(np.float32)


def without_value(planes_HWC: NDArray[Any], nodata: float | None) -> NDArray[np.bool_] | None:
    """(H, W) where a band is not finite, or all are the number that stands for no value; None where no pixel is so."""
    there: NDArray[np.bool_] = np.zeros(planes_HWC.shape[:2], bool)
    if planes_HWC.dtype.kind == "f":
        there |= ~np.isfinite(planes_HWC).all(axis=2)
    if nodata is not None and np.isfinite(nodata):
        with np.errstate(over="ignore"):
            there |= (planes_HWC == (np.float32(nodata) if planes_HWC.dtype.kind == "f" else nodata)).all(axis=2)
    return there if there.any() else None


def spread_mean(read: Read, size: tuple[int, int], nodata: float | None) -> NDArray[np.float64]:
    """(C,) mean of each band where there is a value, over 8 x 8 windows spread evenly; over all of an image up to 2048 x 2048.

    It fills what has no value, so that a pixel is the same in each window that holds it.
    """
    total, count = np.zeros(1), 0
    for top, left in product(*(_spread(side) for side in size)):
        planes = read(top, left, min(256, size[0] - top), min(256, size[1] - left))
        there = without_value(planes, nodata)
        values = planes.reshape(-1, planes.shape[2]) if there is None else planes[~there]
        total, count = total + values.sum(axis=0, dtype=np.float64), count + len(values)
    return total / max(count, 1)


def _spread(side: int) -> list[int]:
    """Where up to 8 windows of 256 begin, without overlap."""
    if side <= 8 * 256:
        return list(range(0, side, 256))
    return [int(place) for place in np.linspace(0, side - 256, 8)]
