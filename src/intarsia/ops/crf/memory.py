"""Memory that is about to be filled: the first touch of small pages costs more than what is computed in them."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

import torch
from torch import Tensor

HUGE = 1 << 21
"""Bytes of a huge page."""


def fresh(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """`torch.empty` on the processor, with huge pages where the system gives them on request (Linux)."""
    tensor = torch.empty(*shape, dtype=dtype, device="cpu")
    first = -(-tensor.data_ptr() // HUGE) * HUGE
    last = (tensor.data_ptr() + tensor.nbytes) // HUGE * HUGE
    if first < last and (madvise := _madvise()) is not None:
        madvise(first, last - first, mmap.MADV_HUGEPAGE)  # advice: whether it is taken does not matter
    return tensor


@cache
def _madvise() -> Any:
    """The C library's function; None where there is none, or no such advice."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_int
    return function
