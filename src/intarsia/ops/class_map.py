"""The class of the largest logit of every pixel, compiled (class_map.c) or by torch."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from intarsia.compiled import Compiled, Unfit
from intarsia.ops.pieces import address, pieces, readable, share

KINDS = (torch.float32, torch.bfloat16)
"""Types of logits that class_map.c reads."""
LIGHT = 8
"""Logits that are compared while a loss computes one, and a thread wakes."""


def class_map(logits_NKHW: Tensor) -> Tensor:
    """(N, H, W) uint8: the class of the largest logit; the first of equals, and NaN counts as the largest."""
    fits = logits_NKHW.ndim == 4 and logits_NKHW.numel() > 0 and logits_NKHW.dtype in KINDS
    library = LIBRARY.load() if fits and readable(logits_NKHW) else None
    return _plain(logits_NKHW) if library is None else _compiled(library, logits_NKHW)


def _plain(logits_NKHW: Tensor) -> Tensor:
    """`max` with indices instead of `argmax`, which takes up to ten times as long on processors."""
    return logits_NKHW.max(dim=1)[1].to(torch.uint8)


def _compiled(library: ctypes.CDLL, logits_NKHW: Tensor) -> Tensor:
    logits_NKP = logits_NKHW.flatten(2)  # a copy only where rows do not follow each other, as in a cropped map
    num_images, num_classes, num_pixels = logits_NKP.shape
    _, class_step, pixel_step = logits_NKP.stride()
    classes_NP = torch.empty(num_images, num_pixels, dtype=torch.uint8, device="cpu")
    parts = pieces(num_pixels, logits_NKP.numel() // LIGHT)
    find = library.class_map_float32 if logits_NKP.dtype == torch.float32 else library.class_map_bfloat16

    def work(index: int) -> None:
        part = parts[index]
        steps = class_step, pixel_step, num_classes, len(part)
        for n in range(num_images):
            find(address(logits_NKP, n, part), *steps, address(classes_NP, n, part))

    share(work, len(parts))
    return classes_NP.view(num_images, *logits_NKHW.shape[2:])


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, held against torch on drawn logits with equals, infinities and NaN, in both orders of memory."""
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    for find in (library.class_map_float32, library.class_map_bfloat16):
        find.argtypes, find.restype = [pointer, size, size, size, size, pointer], None
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = torch.randint(-9, 10, (2, 5, 31, 43), generator=generator, device="cpu").float() / 4
    for code, number in ((-9, -torch.inf), (8, torch.inf), (9, torch.nan)):
        drawn[drawn == code / 4] = number
    for kind in KINDS:
        logits = drawn.to(kind)
        for given in (logits, logits.contiguous(memory_format=torch.channels_last)):
            if not torch.equal(_compiled(library, given), _plain(given)):
                raise Unfit("class_map.c, compiled, gives other classes than torch")
    return library


LIBRARY = Compiled(Path(__file__).with_name("class_map.c"), _checked)
