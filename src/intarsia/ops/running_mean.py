"""A running mean of overlapping maps, compiled (tiles.c) or by NumPy, or by torch for tensors."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.compiled import Compiled, Unfit
from intarsia.ops.pieces import array_of, pieces, share

LIGHT = 4
"""Logits that are mixed while a loss computes one."""
Maps = Any
"""(K, h, w) float32: an array, or a tensor."""


def mix(mean_KHW: Maps, logits_KHW: Maps, shares: NDArray[np.float32]) -> None:
    """logits <- mean + shares (logits - mean), in place: equal numbers stay what they are to the bit.

    Args:
        shares: (h, 1), of each row, or (1, w), of each column.
    """
    mean, logits = array_of(mean_KHW), array_of(logits_KHW)
    if mean is None or logits is None:
        _by_torch(mean_KHW, logits_KHW, shares)
        return
    library = LIBRARY.load()
    if library is None or not logits.size:
        _by_numpy(mean, logits, shares)
    else:
        _compiled(library, mean, logits, shares)


def room_like(maps: Maps, height: int, width: int) -> Maps:
    """(K, height, width) to be filled, of the same kind and in the same order of memory."""
    count = maps.shape[0]
    if isinstance(maps, np.ndarray):
        return np.empty((count, height, width), maps.dtype)
    if maps.stride(0) == 1:
        return maps.new_empty(height, width, count).permute(2, 0, 1)
    return maps.new_empty(count, height, width)


def _by_torch(mean_KHW: Maps, logits_KHW: Maps, shares: NDArray[np.float32]) -> None:
    import torch

    with torch.inference_mode():
        given = torch.from_numpy(shares).to(logits_KHW.device, logits_KHW.dtype)
        torch.lerp(mean_KHW, logits_KHW, given, out=logits_KHW)


def _by_numpy(mean_KHW: NDArray[Any], logits_KHW: NDArray[Any], shares: NDArray[np.float32]) -> None:
    logits_KHW -= mean_KHW
    logits_KHW *= shares
    logits_KHW += mean_KHW


def _compiled(
    library: ctypes.CDLL, mean_KHW: NDArray[Any], logits_KHW: NDArray[Any], shares: NDArray[np.float32]
) -> None:
    count, height, width = logits_KHW.shape
    parts = pieces(height, logits_KHW.size // LIGHT)
    by_row, by_pixel = (0 if length == 1 else 1 for length in shares.shape)
    shares = np.ascontiguousarray(shares)
    steps = [(ctypes.c_int64 * 3)(*(step // 4 for step in each.strides)) for each in (mean_KHW, logits_KHW)]
    share_steps = (ctypes.c_int64 * 2)(by_row, by_pixel)

    def work(index: int) -> None:
        part = parts[index]
        first = [each.ctypes.data + part.start * each.strides[1] for each in (mean_KHW, logits_KHW)]
        weights = shares.ctypes.data + 4 * by_row * part.start
        library.mix(first[0], steps[0], first[1], steps[1], weights, share_steps, count, len(part), width)

    share(work, len(parts))


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, held against NumPy in both orders of memory."""
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.mix.argtypes, library.mix.restype = [pointer] * 6 + [size] * 3, None
    rng = np.random.default_rng(0)
    mean, logits = rng.normal(size=(2, 5, 37, 41)).astype(np.float32)
    last = [np.moveaxis(np.ascontiguousarray(np.moveaxis(each, 0, -1)), -1, 0) for each in (mean, logits)]
    for shares in (rng.random((37, 1), np.float32), rng.random((1, 41), np.float32)):
        right = mean + shares * (logits - mean)
        for given, other in ((mean, logits), (last[0], last[1]), (mean, last[1]), (last[0], logits)):
            found = other.copy(order="K")
            _compiled(library, given, found, shares)
            if not np.allclose(found, right, atol=1e-6, rtol=0):
                raise Unfit("tiles.c, compiled, gives other means than NumPy")
    return library


LIBRARY = Compiled(Path(__file__).with_name("tiles.c"), _checked)
