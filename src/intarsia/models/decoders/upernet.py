"""UPerNet: Xiao, Liu, Zhou, Jiang, Sun, arXiv:1807.10221, figure 4, the scene-parsing part.

Pyramid pooling on the deepest features, a feature pyramid on top of it (levels of stride 4 and coarser, 1x1 convolutions,
bilinear additions, a 3x3 convolution behind each), all levels brought to the finest, concatenated and merged by a 3x3
convolution.

Differs from the paper: one task, semantic segmentation, out of five; width 256 as in mmsegmentation's and smp's smaller
variants (the released code has 512).

Shapes: features (N, channels[i], H / strides[i], W / strides[i]); out (N, width, H / 4, W / 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from intarsia.models.decoders.base import Decoder, PyramidPooling, from_stride_four, resize
from intarsia.ops.conv import conv_norm_relu
from intarsia.ops.norm import Norm


class UPerNetDecoder(Decoder):
    """`lateral` and `smooth` are in the order of the levels, finest first, without the deepest."""

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, width: int = 256, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        channels, strides = from_stride_four(channels, strides)
        self.pyramid = PyramidPooling(channels[-1], width, norm=norm)
        self.context = conv_norm_relu(self.pyramid.width, width, norm=norm)
        self.lateral = nn.ModuleList(conv_norm_relu(each, width, 1, norm=norm) for each in channels[:-1])
        self.smooth = nn.ModuleList(conv_norm_relu(width, width, norm=norm) for _ in channels[:-1])
        self.merge = conv_norm_relu(len(channels) * width, width, norm=norm)
        self.width = width
        self.inner = nn.Identity()
        self.taps = {"inner": (channels[-2], strides[-2])} if len(channels) > 1 else {}

    def forward(self, features: list[Tensor]) -> Tensor:
        *finer, deepest = features[-len(self.lateral) - 1 :]
        self.inner(features[-2:][0])
        x = self.context(self.pyramid(deepest))
        maps = [x]
        for level in reversed(range(len(finer))):
            side = self.lateral[level](finer[level])
            x = side + resize(x, side)
            maps.insert(0, self.smooth[level](x))
        merged: Tensor = self.merge(torch.cat([maps[0], *(resize(each, maps[0]) for each in maps[1:])], dim=1))
        return merged
