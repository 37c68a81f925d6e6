"""SegFormer's decoder: Xie et al., arXiv:2105.15203, equation 4.

Each level of stride 4 and coarser is projected to `width` channels (a linear layer at every pixel), brought to the finest level
bilinearly, concatenated with the others, deepest first, and merged by a 1x1 convolution with normalisation and ReLU.

Differs from the paper: none in shape; width is 256, as for its B0 and B1 (768 for B2 to B5). Dropout, 0.1, is the model's.

Shapes: features (N, channels[i], H / strides[i], W / strides[i]); out (N, width, H / 4, W / 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from intarsia.models.decoders.base import Decoder, from_stride_four, resize
from intarsia.ops.conv import conv_norm_relu
from intarsia.ops.norm import Norm


class SegFormerDecoder(Decoder):
    """`linear` is in the order of the levels, finest first."""

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, width: int = 256, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        channels, strides = from_stride_four(channels, strides)
        self.linear = nn.ModuleList(nn.Conv2d(each, width, kernel_size=1) for each in channels)
        self.merge = conv_norm_relu(len(channels) * width, width, 1, norm=norm)
        self.width = width
        self.inner = nn.Identity()
        self.taps = {"inner": (channels[-2], strides[-2])} if len(channels) > 1 else {}

    def forward(self, features: list[Tensor]) -> Tensor:
        features = features[-len(self.linear) :]
        self.inner(features[-2:][0])
        finest, *coarser = [linear(feature) for linear, feature in zip(self.linear, features, strict=True)]
        merged: Tensor = self.merge(torch.cat([*(resize(each, finest) for each in reversed(coarser)), finest], dim=1))
        return merged
