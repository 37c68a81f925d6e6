"""The border weights of U-Net (Ronneberger, Fischer, Brox, arXiv:1505.04597, equation 2), compiled (border.c)
or by scipy, which is imported where it is used."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from intarsia.compiled import Compiled, Unfit
from intarsia.errors import ConfigError, DataError

NEGLIGIBLE = 1e-7
"""A weight below this is 0: it ends the reach of an object."""
FAR = 1 << 29
"""A squared distance that is none."""
LONGEST = 1 << 14
"""Beyond this reach border.c does not count."""

Squares = NDArray[np.int32]
Slices = tuple[slice, slice]


def border_weight_map(instances: NDArray[Any], *, w0: float = 10.0, sigma: float = 5.0) -> NDArray[np.float32]:
    """w0 exp(-(d1 + d2)² / (2 sigma²)), the second term of equation 2, (H, W); all 0 with fewer than two objects.

    In the paper d1 is "the distance to the border of the nearest cell", d2 that of the second nearest, at every pixel. Here
    the distance to a cell is the Euclidean one to its nearest pixel. Between cells both are the same. Inside a cell d1 = 0
    and d2 is the distance to the nearest other cell, so both sides of a border that touches weigh 9.80 of 10; measured to the
    cell's own outline, d1 + d2 would be the same at that border and larger, thus the weight smaller, further in. The map
    covers cells and background, as the paper's sum does. w_c, the first term, is the loss's class weight.

    Args:
        instances: (H, W) integers, 0 background, any other number one object, of one part or several.
        w0: the weight at d1 + d2 = 0.
        sigma: how fast it falls, in pixels.

    Raises:
        ConfigError: w0 is negative, or sigma not positive.
        DataError: instances are not (H, W) integers from 0 on.
    """
    if not (0 <= w0 < math.inf and 0 < sigma < math.inf):
        raise ConfigError(f"border weights need w0 >= 0 and sigma > 0, both finite, got w0={w0}, sigma={sigma}.")
    numbers = _numbered(instances)
    if not numbers.size or w0 <= NEGLIGIBLE:
        return np.zeros(numbers.shape, np.float32)
    reach = min(2 * sum(numbers.shape), math.ceil(sigma * math.sqrt(2 * math.log(w0 / NEGLIGIBLE))))
    library = LIBRARY.load() if reach <= LONGEST else None
    if library:
        return _compiled(library, numbers, reach, w0, sigma)
    return _plain(numbers, reach, w0, sigma)


def weight_at(distance: NDArray[np.float64], *, w0: float = 10.0, sigma: float = 5.0) -> NDArray[np.float64]:
    """w0 exp(-d² / (2 sigma²)) of d = d1 + d2."""
    weights: NDArray[np.float64] = w0 * np.exp(np.square(distance / sigma) / -2)
    return weights


def _numbered(instances: NDArray[Any]) -> NDArray[np.int32]:
    """Object numbers, contiguous and not larger than there are pixels."""
    if instances.ndim != 2 or instances.dtype.kind not in "iub":
        met = f"{instances.shape} of {instances.dtype}"
        raise DataError(
            f"instances must be (height, width) integers, got {met}. Give one number an object, 0 elsewhere."
        )
    if instances.size and instances.min() < 0:
        raise DataError(f"instances hold {instances.min()}; objects are numbered from 1, and 0 is the background.")
    if instances.size and instances.max() > max(instances.size, 65535):
        values, places = np.unique(instances, return_inverse=True)
        return (places.reshape(instances.shape) + int(values[0] > 0)).astype(np.int32)
    return np.ascontiguousarray(instances, np.int32)


def _compiled(
    library: ctypes.CDLL, numbers: NDArray[np.int32], reach: int, w0: float, sigma: float
) -> NDArray[np.float32]:
    height, width = numbers.shape
    room, weights = np.empty(4 * (numbers.size + width), np.int32), np.empty((height, width), np.float32)
    settings = height, width, reach, w0, sigma, NEGLIGIBLE
    library.border_weights(numbers.ctypes.data, *settings, room.ctypes.data, weights.ctypes.data)
    return weights


def _plain(numbers: NDArray[np.int32], reach: int, w0: float, sigma: float) -> NDArray[np.float32]:
    nearest, second = _two_nearest(numbers, reach)
    near = np.flatnonzero(second < min(reach**2, FAR))
    d1, d2 = (np.sqrt(squares.ravel()[near], dtype=np.float64) for squares in (nearest, second))
    found = weight_at(d1 + d2, w0=w0, sigma=sigma)
    weights = np.zeros(numbers.shape, np.float32)
    weights.ravel()[near] = np.where(found < NEGLIGIBLE, 0, found)
    return weights


def _two_nearest(numbers: NDArray[np.int32], reach: int) -> tuple[Squares, Squares]:
    """Squared distances to the nearest object and to the nearest other one; of no use from `reach` on."""
    windows = _windows(numbers)
    if len(windows) < 2:
        return np.full(numbers.shape, FAR, np.int32), np.full(numbers.shape, FAR, np.int32)
    wide = {number: _widened(window, reach, numbers.shape) for number, window in windows.items()}
    bits = (len(windows) - 1).bit_length()
    if sum(_area(window) for window in wide.values()) <= 2 * bits * numbers.size:
        return _nearest_by_windows(numbers, wide)
    return _nearest_by_bits(numbers, list(windows), bits)


def _windows(numbers: NDArray[np.int32]) -> dict[int, Slices]:
    """Object to the rectangle that holds it."""
    from scipy import ndimage

    found = ndimage.find_objects(numbers) if numbers.size else []
    return {number: cast("Slices", window) for number, window in enumerate(found, 1) if window is not None}


def _widened(window: Slices, reach: int, shape: tuple[int, ...]) -> Slices:
    rows, columns = (
        slice(max(0, part.start - reach), min(side, part.stop + reach))
        for part, side in zip(window, shape, strict=True)
    )
    return rows, columns


def _area(window: Slices) -> int:
    return math.prod(int(part.stop - part.start) for part in window)


def _squared_distances(outside: NDArray[np.bool_]) -> Squares:
    """Squared distance of each pixel to the nearest one that is not outside."""
    from scipy import ndimage

    row, column = ndimage.distance_transform_edt(outside, return_distances=False, return_indices=True)
    row -= np.arange(outside.shape[0], dtype=np.int32)[:, None]
    column -= np.arange(outside.shape[1], dtype=np.int32)
    squared = np.square(row, dtype=np.float32) + np.square(column, dtype=np.float32)
    found: Squares = np.minimum(squared, FAR).astype(np.int32)
    return found


def _nearest_by_windows(numbers: NDArray[np.int32], windows: dict[int, Slices]) -> tuple[Squares, Squares]:
    """Each object seen in its window only."""
    nearest, second = (np.full(numbers.shape, FAR, np.int32) for _ in range(2))
    for number, window in windows.items():
        squared, first = _squared_distances(numbers[window] != number), nearest[window]
        np.minimum(second[window], np.maximum(first, squared), out=second[window])
        np.minimum(first, squared, out=first)
    return nearest, second


def _nearest_by_bits(numbers: NDArray[np.int32], present: list[int], bits: int) -> tuple[Squares, Squares]:
    """The same over the whole map, in 2 bits transforms however many objects there are: for windows that overlap much.

    Two objects differ in some bit of their number. In that bit the nearer one is on one side and the other on the other side,
    so the larger of the distances to the two sides, least over all bits, is that of the second nearest.
    """
    order = np.zeros(numbers.max() + 1, np.int32)
    order[present] = np.arange(len(present))
    ranks, background = order[numbers], numbers == 0
    nearest, second = (np.full(numbers.shape, FAR, np.int32) for _ in range(2))
    for bit in range(bits):
        one = (ranks >> bit & 1).astype(bool)
        sides = [_squared_distances(background | (one if side else ~one)) for side in range(2)]
        np.minimum(nearest, np.minimum(*sides), out=nearest)
        np.minimum(second, np.maximum(*sides), out=second)
    return nearest, second


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, held against the plain form on drawn objects."""
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    numbers = size, size, ctypes.c_int32, ctypes.c_double, ctypes.c_double, ctypes.c_double
    library.border_weights.argtypes, library.border_weights.restype = [pointer, *numbers, pointer, pointer], None
    rng = np.random.default_rng(0)
    drawn = np.where(rng.random((47, 83)) < 0.02, rng.integers(1, 9, (47, 83)), 0).astype(np.int32)
    if not np.allclose(_compiled(library, drawn, 40, 10, 5), _plain(drawn, 40, 10, 5), rtol=1e-6, atol=1e-6):
        raise Unfit("border.c, compiled, gives other weights than scipy")
    return library


LIBRARY = Compiled(Path(__file__).with_name("border.c"), _checked)
