"""LinkNet: Chaurasia, Culurciello, arXiv:1707.03718, figures 1 and 3.

Each block narrows to a quarter (1x1), doubles the resolution (transposed convolution) and widens to the channels of the
encoder's map (1x1), which is then added. Behind the encoder's finest level, blocks of `width` channels go on to the image's
resolution.

Differs from the paper: a transposed convolution has 4x4 taps, which cover every output equally, instead of 3x3; the two final
full convolutions with a 3x3 convolution between them are one more block and a 1x1 classifier (both as smp has it).

Shapes: features (N, channels[i], H / strides[i], W / strides[i]); out (N, width, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from intarsia.models.decoders.base import Decoder, way_up
from intarsia.ops.conv import conv_norm_relu
from intarsia.ops.norm import Norm, make_norm
from intarsia.ops.upsample import Up, make_up


class LinkNetDecoder(Decoder):
    """One block a step up, deepest first."""

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        width: int = 32,
        up: Up = "transposed",
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        below, deep, beside = channels[-1], strides[-1], list(channels[:-1])
        for fine in way_up(strides):
            out = beside.pop() if beside else width
            self.blocks.append(LinkBlock(below, out, factor=deep // fine, up=up, norm=norm))
            if fine > 1:
                self.taps = {**self.taps, f"blocks.{len(self.blocks) - 1}": (out, fine)}
            below, deep = out, fine
        self.width = below

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, x = features
        for block in self.blocks:
            x = block(x, skips.pop() if skips else None)
        return x


class LinkBlock(nn.Module):
    """Narrow, double, widen, add."""

    def __init__(self, in_channels: int, width: int, *, factor: int, up: Up, norm: Norm) -> None:
        super().__init__()
        narrow = max(1, in_channels // 4)
        self.narrow = conv_norm_relu(in_channels, narrow, 1, norm=norm)
        self.up = nn.Sequential(doubling(narrow, factor, up), make_norm(norm, narrow), nn.ReLU(inplace=True))
        self.widen = conv_norm_relu(narrow, width, 1, norm=norm)

    def forward(self, x_NCHW: Tensor, skip_NCHW: Tensor | None) -> Tensor:
        raised: Tensor = self.widen(self.up(self.narrow(x_NCHW)))
        return raised if skip_NCHW is None else raised + skip_NCHW


def doubling(width: int, factor: int, up: Up) -> nn.Module:
    """The operator; a transposed one has kernel 2f and stride f, so that each output sees 2 x 2 inputs."""
    if factor == 1:
        return nn.Identity()
    if up != "transposed" or factor % 2:
        return make_up(up, width, width, factor)
    conv = nn.ConvTranspose2d(width, width, kernel_size=2 * factor, stride=factor, padding=factor // 2)
    nn.init.normal_(conv.weight, std=math.sqrt(2 / (4 * width)))
    return conv
