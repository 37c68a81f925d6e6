"""The exact Euclidean distance on a pixel grid, compiled (distance.c) or by scipy, which is imported where it is used."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intarsia.compiled import Compiled, Unfit


def distance(outside_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Of every pixel the distance in pixels to the nearest one that is not outside; infinite where there is none."""
    library = LIBRARY.load()
    if library is None:
        return _by_scipy(outside_HW)
    squared = _squared(library, outside_HW)
    return np.sqrt(squared, out=squared)


def _by_scipy(outside_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    from scipy import ndimage

    if outside_HW.all():
        return np.full(outside_HW.shape, np.inf, np.float32)
    found: NDArray[np.float32] = ndimage.distance_transform_edt(outside_HW).astype(np.float32)
    return found


def _squared(library: ctypes.CDLL, outside_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    outside_HW = np.ascontiguousarray(outside_HW, np.bool_)
    height, width = outside_HW.shape
    out, room = np.empty((height, width), np.float32), np.empty(3 * width, np.int32)
    library.squared_distance(outside_HW.ctypes.data, height, width, room.ctypes.data, out.ctypes.data)
    return out


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, held against scipy on drawn pixels."""
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.squared_distance.argtypes, library.squared_distance.restype = [pointer, size, size, pointer, pointer], None
    outside = np.random.default_rng(0).random((47, 83)) > 0.02
    if not np.allclose(np.sqrt(_squared(library, outside)), _by_scipy(outside), rtol=1e-6, atol=0):
        raise Unfit("distance.c, compiled, gives other distances than scipy")
    return library


LIBRARY = Compiled(Path(__file__).with_name("distance.c"), _checked)
