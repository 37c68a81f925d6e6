"""The class of the largest logit of every pixel, compiled (class_map.c) or by NumPy, or by torch for tensors."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intarsia.compiled import Compiled, Unfit
from intarsia.ops.pieces import pieces, readable, share

if TYPE_CHECKING:
    from torch import Tensor

LIGHT = 8
"""Logits that are compared while a loss computes one, and a thread wakes."""
Classes = NDArray[np.uint8]


def class_map(logits_NKHW: Tensor) -> Tensor:
    """(N, H, W) uint8: the class of the largest logit; the first of equals, and NaN counts as the largest."""
    import torch

    kinds = {torch.float32: torch.float32, torch.bfloat16: torch.int16}  # NumPy has no bf16: C is given its bits
    fits = logits_NKHW.ndim == 4 and logits_NKHW.numel() > 0 and logits_NKHW.dtype in kinds
    library = LIBRARY.load() if fits and readable(logits_NKHW) else None
    if library is None:  # `max` with indices instead of `argmax`, which takes up to ten times as long on processors
        return logits_NKHW.max(dim=1)[1].to(torch.uint8)
    numbers = logits_NKHW.detach().view(kinds[logits_NKHW.dtype]).numpy()
    return torch.from_numpy(_compiled(library, numbers, np.empty(_shape(numbers), np.uint8)))


def class_map_of(logits_NKHW: NDArray[np.float32], out_NHW: Classes | None = None) -> Classes:
    """The same of an array, into `out_NHW` if there is one, which may be part of a larger map."""
    out_NHW = np.empty(_shape(logits_NKHW), np.uint8) if out_NHW is None else out_NHW
    fits = logits_NKHW.size > 0 and logits_NKHW.dtype == np.float32 and out_NHW.strides[-1] == 1
    library = LIBRARY.load() if fits else None
    if library is None:
        out_NHW[...] = logits_NKHW.argmax(axis=1)
        return out_NHW
    return _compiled(library, logits_NKHW, out_NHW)


def _shape(logits_NKHW: NDArray[Any]) -> tuple[int, int, int]:
    images, _, height, width = logits_NKHW.shape
    return images, height, width


def _compiled(library: ctypes.CDLL, logits_NKHW: NDArray[Any], out_NHW: Classes) -> Classes:
    """float32, or int16 that holds the bits of bf16."""
    num_classes, rows, width = logits_NKHW.shape[1:]
    find = library.class_map_float32 if logits_NKHW.dtype == np.float32 else library.class_map_bfloat16
    size = logits_NKHW.itemsize
    image_step, class_step, row_step, pixel_step = logits_NKHW.strides
    if row_step == width * pixel_step and out_NHW.strides[1] == width:
        rows, width = 1, rows * width
    by_row = rows > 1
    parts = pieces(rows if by_row else width, logits_NKHW.size // LIGHT)
    steps = (ctypes.c_int64 * 3)(class_step // size, row_step // size, pixel_step // size)
    start, out = logits_NKHW.ctypes.data, out_NHW.ctypes.data
    out_image, out_row, _ = out_NHW.strides

    def work(index: int) -> None:
        part = parts[index]
        counts = (num_classes, len(part), width) if by_row else (num_classes, 1, len(part))
        for n in range(len(logits_NKHW)):
            first = start + n * image_step + part.start * (row_step if by_row else pixel_step)
            find(first, steps, *counts, out + n * out_image + part.start * (out_row if by_row else 1), out_row)

    share(work, len(parts))
    return out_NHW


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, held against NumPy on drawn logits with equals, infinities and NaN, in both orders of memory and cut."""
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    for find in (library.class_map_float32, library.class_map_bfloat16):
        find.argtypes, find.restype = [pointer, pointer, size, size, size, pointer, size], None
    drawn = np.random.default_rng(0).integers(-9, 10, (2, 5, 31, 43)).astype(np.float32) / 4  # exact in bf16
    for code, number in ((-9, -np.inf), (8, np.inf), (9, np.nan)):
        drawn[drawn == code / 4] = number
    last = np.ascontiguousarray(np.moveaxis(drawn, 1, -1))
    bits = (drawn.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
    cut = np.s_[:, :, 2:-3, 4:-1]
    wide = np.zeros((2, 40, 60), np.uint8)
    for logits in (drawn, np.moveaxis(last, -1, 1), bits):
        for part in (np.s_[:], cut):
            right = drawn[part].argmax(axis=1)
            for out in (np.empty(right.shape, np.uint8), wide[:, 3 : 3 + right.shape[1], 5 : 5 + right.shape[2]]):
                if not np.array_equal(_compiled(library, logits[part], out), right):
                    raise Unfit("class_map.c, compiled, gives other classes than NumPy")
    return library


LIBRARY = Compiled(Path(__file__).with_name("class_map.c"), _checked)
