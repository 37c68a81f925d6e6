"""Semantic FPN: the pyramid of Lin et al., arXiv:1612.03144, figure 3, with the branch of Kirillov et al., arXiv:1901.02446,
figure 3.

Levels of stride 4 and coarser go through 1x1 convolutions to `width` channels; each is added to the level below it, doubled
(nearest). Every sum goes through 3x3 convolutions to width / 2 channels, GroupNorm and ReLU, each followed by bilinear
doubling, until stride 4; the maps are added.

Differs from the papers: the 3x3 convolution behind each addition (1612.03144, section 3) is left out, since the branch starts
with one (as smp has it).

Shapes: features (N, channels[i], H / strides[i], W / strides[i]); out (N, width / 2, H / 4, W / 4).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.models.decoders.base import Decoder, from_stride_four
from intarsia.ops.conv import conv_norm_relu
from intarsia.ops.norm import Norm


class FPNDecoder(Decoder):
    """Laterals and branches, finest first."""

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, width: int = 256, norm: Norm = "group"
    ) -> None:
        super().__init__()
        channels, strides = from_stride_four(channels, strides)
        self.width = max(1, width // 2)
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, kernel_size=1) for each in channels)
        doublings = [(stride // strides[0]).bit_length() - 1 for stride in strides]
        self.branches = nn.ModuleList(branch(width, self.width, count, norm) for count in doublings)
        self.inner = nn.Identity()
        self.taps = {"inner": (channels[-2], strides[-2])} if len(channels) > 1 else {}

    def forward(self, features: list[Tensor]) -> Tensor:
        *finer, deepest = features[-len(self.lateral) :]
        *laterals, lateral = self.lateral
        *branches, deep_branch = self.branches
        x = lateral(deepest)
        total: Tensor = deep_branch(x)
        self.inner(features[-2] if finer else deepest)
        for level in reversed(range(len(finer))):
            side = laterals[level](finer[level])
            x = side + F.interpolate(x, side.shape[-2:], mode="nearest")
            total = total + branches[level](x)
        return total


def branch(in_channels: int, width: int, doublings: int, norm: Norm) -> nn.Sequential:
    """3x3 convolutions, each doubled; one that is not where the map is fine enough already."""
    layers: list[nn.Module] = [conv_norm_relu(in_channels, width, norm=norm)]
    for step in range(doublings):
        if step:
            layers.append(conv_norm_relu(width, width, norm=norm))
        layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)
