"""Max-pooling that remembers where each maximum was, and unpooling that puts values back there (SegNet, arXiv:1511.00561)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pool_with_indices(x_NCHW: Tensor, size: int = 2) -> tuple[Tensor, Tensor]:
    """The maximum of each cell and its flat index in the channel's plane; a cell at the border may be cut (Caffe rounds up).

    >>> pooled, where = pool_with_indices(torch.tensor([[[[1., 2., 6.], [3., 5., 2.], [1., 2., 2.]]]]))
    >>> pooled.tolist(), where.tolist()
    ([[[[5.0, 6.0], [2.0, 2.0]]]], [[[[4, 2], [7, 8]]]])
    """
    pooled, where = F.max_pool2d(x_NCHW, size, size, ceil_mode=True, return_indices=True)
    return pooled, where


def max_unpool(x_NCHW: Tensor, where_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Put each value where its maximum was, zeros elsewhere.

    Args:
        where_NCHW: indices of `pool_with_indices`, same shape as x.
        size: (height, width) before the pooling; odd sizes are why it must be given.
    """
    flat = x_NCHW.new_zeros(*x_NCHW.shape[:2], size[0] * size[1])
    flat = flat.scatter(2, where_NCHW.flatten(2), x_NCHW.flatten(2))
    return torch.unflatten(flat, 2, size)


class Unpool(nn.Module):
    """A 1x1 convolution to the width of the indices, then each value back to where its maximum was."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, width, kernel_size=1) if in_channels != width else nn.Identity()

    def forward(self, x_NCHW: Tensor, where_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
        return max_unpool(self.project(x_NCHW), where_NCHW, size)
