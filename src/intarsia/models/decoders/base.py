"""What a decoder is, and the parts that more than one paper has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.errors import ConfigError
from intarsia.ops.attention import SCSE
from intarsia.ops.conv import conv_norm_relu
from intarsia.ops.norm import Norm
from intarsia.ops.upsample import Up, make_up

Skip = Literal["concat", "sum", "none"]
Attention = Literal["none", "scse"]


class Decoder(nn.Module):
    """An encoder's features, finest first, to one map.

    `width` is the number of channels of that map, `kernel` the side of the classifier's convolution behind it; `taps` names the
    parts whose maps deep supervision classifies as well: path inside the decoder to (channels, stride).
    """

    width: int
    kernel: int = 1
    taps: Mapping[str, tuple[int, int]] = {}

    def forward(self, features: list[Tensor]) -> Tensor:
        raise NotImplementedError


class MergeBlock(nn.Module):
    """Up-sample, merge with the encoder's map of that size, two 3x3 convolutions.

    Operators with weights bring x to `width` channels on the way up, as U-Net's up-convolutions do; the others keep their
    number.

    Args:
        in_channels: of x.
        skip_channels: of the encoder's map; 0: there is none.
        factor: by which x is coarser; 1: the encoder was dilated there.
        skip: concat; sum: after a 1x1 convolution to x's channels; none: the encoder's map is left out.
        attention: scse: before the first convolution, where something was merged, and behind the second (as smp has it).
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        width: int,
        *,
        factor: int = 2,
        up: Up = "nearest",
        skip: Skip = "concat",
        attention: Attention = "none",
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.factor, self.skip = factor, skip if skip_channels else "none"
        self.nearest = up == "nearest" or factor == 1
        learned = up in ("transposed", "resize", "subpixel") and factor > 1
        risen = width if learned else in_channels
        self.up = nn.Identity() if self.nearest else make_up(up, in_channels, risen, factor)
        self.bring = nn.Conv2d(skip_channels, risen, kernel_size=1) if self.skip == "sum" else nn.Identity()
        merged = risen + skip_channels if self.skip == "concat" else risen
        self.before = SCSE(merged) if attention == "scse" and self.skip != "none" else nn.Identity()
        self.first = conv_norm_relu(merged, width, norm=norm)
        self.second = conv_norm_relu(width, width, norm=norm)
        self.behind = SCSE(width) if attention == "scse" else nn.Identity()

    def forward(self, x_NCHW: Tensor, skip_NCHW: Tensor | None) -> Tensor:
        x_NCHW = self._raised(x_NCHW, skip_NCHW)
        if skip_NCHW is not None and self.skip != "none":
            skip_NCHW = self.bring(skip_NCHW)
            x_NCHW = torch.cat((x_NCHW, skip_NCHW), dim=1) if self.skip == "concat" else x_NCHW + skip_NCHW
        merged: Tensor = self.behind(self.second(self.first(self.before(x_NCHW))))
        return merged

    def _raised(self, x_NCHW: Tensor, skip_NCHW: Tensor | None) -> Tensor:
        if not self.nearest:
            raised: Tensor = self.up(x_NCHW)
            return raised
        if skip_NCHW is not None:  # by size: some encoders' maps are not exact multiples
            return F.interpolate(x_NCHW, skip_NCHW.shape[-2:], mode="nearest")
        return F.interpolate(x_NCHW, (self.factor * x_NCHW.shape[-2], self.factor * x_NCHW.shape[-1]), mode="nearest")


class PyramidPooling(nn.Module):
    """The map beside its means over grids of bins x bins cells, each through a 1x1 convolution (arXiv:1612.01105, figure 3)."""

    def __init__(
        self, in_channels: int, width: int, *, bins: Sequence[int] = (1, 2, 3, 6), norm: Norm = "batch"
    ) -> None:
        super().__init__()
        self.bins = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), conv_norm_relu(in_channels, width, 1, norm=norm)) for side in bins
        )
        self.width = in_channels + len(bins) * width

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return torch.cat([x_NCHW, *(resize(pooled(x_NCHW), x_NCHW) for pooled in self.bins)], dim=1)


def resize(x_NCHW: Tensor, like_NCHW: Tensor) -> Tensor:
    """Bilinear to the size of another map, half-pixel centres."""
    return F.interpolate(x_NCHW, like_NCHW.shape[-2:], mode="bilinear", align_corners=False)


def way_up(strides: Sequence[int]) -> list[int]:
    """Strides on the way up: the encoder's from the second deepest on, then doublings to the image's resolution.

    >>> way_up((4, 8, 16, 32)), way_up((2, 4, 8, 8))
    ([16, 8, 4, 2, 1], [8, 4, 2, 1])
    """
    way = list(strides[-2::-1])
    stride = way[-1] if way else strides[-1]
    while stride > 1:
        stride //= 2
        way.append(stride)
    return way


def steps_of(widths: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int, int]]:
    """(width, stride before, stride behind) of each step up; fewer widths than steps end at a coarser stride."""
    way = way_up(strides)
    if len(widths) > len(way):
        raise ConfigError(
            f"model.widths: {len(widths)} numbers, but this encoder's deepest features are {len(way)} steps below the image. "
            f"Give at most {len(way)}."
        )
    return list(zip(widths, (strides[-1], *way), way, strict=False))


def from_stride_four(channels: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and strides of the levels that pyramids use: stride 4 and coarser."""
    kept = [level for level, stride in enumerate(strides) if stride >= 4]
    return tuple(channels[level] for level in kept), tuple(strides[level] for level in kept)
