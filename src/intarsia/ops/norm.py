"""Normalisation by name, safe for a batch of one.

| name | statistics over | learned |
|---|---|---|
| none | nothing is normalised | no |
| batch | batch, height and width of each channel (Ioffe & Szegedy, arXiv:1502.03167) | scale, shift |
| instance | height and width of each channel of each image (Ulyanov et al., arXiv:1607.08022) | scale, shift |
| group | 32 groups of channels, fewer in narrow layers (Wu & He, arXiv:1803.08494) | scale, shift |
| layer | the channels of each pixel, as in ConvNeXt (Ba et al., arXiv:1607.06450) | scale, shift |
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["none", "batch", "instance", "group", "layer"]


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d that uses its running statistics where a batch gives one value a channel (a batch of one behind global
    pooling), which has no variance; torch raises an error there."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if self.training and x_NCHW.numel() == x_NCHW.shape[1]:
            return F.batch_norm(x_NCHW, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x_NCHW)


class InstanceNorm(nn.InstanceNorm2d):
    """InstanceNorm2d that leaves a map of a single pixel as it is, but for scale and shift; torch raises an error there."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if x_NCHW.shape[-2] * x_NCHW.shape[-1] == 1:
            return x_NCHW * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return super().forward(x_NCHW)


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of an (N, C, H, W) map."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NHWC = super().forward(x_NCHW.permute(0, 2, 3, 1))
        return x_NHWC.permute(0, 3, 1, 2)


def make_norm(norm: Norm, width: int) -> nn.Module:
    """The normalisation of `width` channels that a setting names."""
    if norm == "batch":
        return BatchNorm(width)
    if norm == "instance":
        return InstanceNorm(width, affine=True)
    if norm == "group":
        groups = math.gcd(width, 32)
        return nn.GroupNorm(groups if width > groups else -(-groups // 2), width)
    return LayerNorm(width) if norm == "layer" else nn.Identity()
