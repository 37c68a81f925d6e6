"""Pixels divided among threads, and their addresses: for compiled C that reads arrays, and tensors where there is torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intarsia.devices import cores

if TYPE_CHECKING:
    from torch import Tensor

ENOUGH = 1 << 16
"""Logits of a loss that are worth a thread."""


def pieces(num_pixels: int, num_logits: int) -> list[range]:
    """The pixels of an image, divided among threads.

    Args:
        num_logits: of all images; a measure of the work, in logits of a loss.
    """
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else cores()
    count = max(1, min(threads, num_logits // ENOUGH))
    step = max(16, -(-num_pixels // count // 16) * 16)
    return [range(start, min(start + step, num_pixels)) for start in range(0, num_pixels, step)]


_pool: tuple[int, ThreadPoolExecutor] | None = None


def share(work: Callable[[int], None], count: int) -> None:
    """Do pieces 0..count-1 at once: the first here, the others in threads that wait between calls."""
    global _pool
    if count > 1 and (_pool is None or _pool[0] != os.getpid()):  # a forked process has none of the threads
        _pool = os.getpid(), ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="intarsia-kernel")
    others = [] if _pool is None else [_pool[1].submit(work, index) for index in range(1, count)]
    try:
        if count:
            work(0)
    finally:
        for each in others:
            each.result()


def address(tensor: Tensor, n: int, pixels: range) -> int:
    """Of an image's first pixel in a piece; pixels are the last dimension."""
    return tensor.data_ptr() + (n * tensor.stride(0) + pixels.start * tensor.stride(-1)) * tensor.element_size()


def array_of(maps: Any) -> NDArray[np.float32] | None:
    """The numbers of an array, or of a float32 tensor that C can read, in the same memory; None of another tensor."""
    if isinstance(maps, np.ndarray):
        return maps
    numbers: NDArray[np.float32] | None = None
    if readable(maps) and str(maps.dtype) == "torch.float32":
        numbers = maps.detach().numpy()
    return numbers


def readable(*tensors: Tensor) -> bool:
    """Whether C can read them: real tensors on the processor, not those of a tracing."""
    import torch

    return not torch.compiler.is_compiling() and all(
        type(each) in (torch.Tensor, torch.nn.Parameter) and each.device.type == "cpu" for each in tensors
    )
