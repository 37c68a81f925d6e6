"""What augmentation gives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Sample(NamedTuple):
    """One image, its mask, and the weights of its pixels if there are any."""

    image: Tensor
    """(C, h, w)"""
    mask: Tensor
    """(h, w), 255 ignored."""
    weights: Tensor | None = None
    """(h, w) float32"""
