"""Padding to a size that a network takes, and cropping back. Sizes are (height, width)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(x_NCHW: Tensor, multiple: int, *, least: int = 0) -> Tensor:
    """Repeat the bottom and right border until both sides are multiples of `multiple` and at least `least`."""
    height, width = x_NCHW.shape[-2:]
    if multiple == 1 and not least:
        return x_NCHW
    # rounded up without dividing a negative number, which ONNX cuts towards zero
    target = [(size + multiple - 1) // multiple * multiple for size in (height, width)]
    if least > multiple:
        target = [larger(size, least) for size in target]
    return pad_end(x_NCHW, target[0] - height, target[1] - width)


def larger(one: int, other: int) -> int:
    """max, also of sides that are not fixed, as in an export."""
    return cast(int, torch.sym_max(one, other))


def pad_end(x_NCHW: Tensor, down: int, right: int) -> Tensor:
    """Repeat the bottom and right border; what is exported repeats it 0 times too, so that it takes other sizes."""
    fits = isinstance(down, int) and isinstance(right, int) and not (down or right)
    return x_NCHW if fits else F.pad(x_NCHW, (0, right, 0, down), mode="replicate")


def mirror_index(size: int, before: int, after: int, device: torch.device | None = None) -> Tensor:
    """Indices of a side of `size` extended by mirroring at its first and last pixel, as often as needed.

    size 3, before 2, after 3: [2, 1, 0, 1, 2, 1, 0, 1] (the border itself is not doubled).
    """
    return mirrored(torch.arange(-before, size + after, device=device), size)


def mirrored(index: Tensor, size: int) -> Tensor:
    """Whole numbers of any place mirrored at the first and last pixel of a side, so that all lie on it."""
    period = torch.full((), larger(2 * (size - 1), 1), dtype=index.dtype, device=index.device)
    position = index % period
    return torch.minimum(position, period - position)


def mirror_pad(x_NCHW: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Mirror-extrapolate the borders (U-Net, arXiv:1505.04597, figure 2); any amount, also beyond the image's size."""
    height, width = x_NCHW.shape[-2:]
    rows = mirror_index(height, top, bottom, x_NCHW.device)
    columns = mirror_index(width, left, right, x_NCHW.device)
    return x_NCHW[..., rows, :][..., columns]


def center_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle (height, width) of the last two dimensions; the odd pixel stays at the bottom and right."""
    height, width = x.shape[-2:]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return x[..., top : top + size[0], left : left + size[1]]
