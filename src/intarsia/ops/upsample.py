"""Up-sampling operators: each doubles (or multiplies) resolution in a way of its own.

| name | rule | learned |
|---|---|---|
| nearest | out[r h + i, r w + j] = in[h, w] | no |
| nails | the value in the top left of each r x r cell, else 0 ("bed of nails") | no |
| bilinear | half-pixel centres (align_corners=False) | no |
| transposed | transposed convolution; overlaps are added | yes |
| resize | nearest, then a 3x3 convolution (Odena et al., "Deconvolution and checkerboard artifacts", 2016) | yes |
| subpixel | convolution to r² as many channels, then pixel shuffle (Shi et al., arXiv:1609.05158), ICNR start | yes |

Max-unpooling, which needs the indices of its pooling, is in `unpool.py`.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Up = Literal["nearest", "nails", "bilinear", "transposed", "resize", "subpixel"]
UPS: tuple[str, ...] = get_args(Up)


def nearest(x_NCHW: Tensor, factor: int) -> Tensor:
    """Repeat each value in a cell of factor x factor.

    >>> nearest(torch.tensor([[[[1, 2]]]]), 2).tolist()
    [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]
    """
    return x_NCHW.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def bed_of_nails(x_NCHW: Tensor, factor: int) -> Tensor:
    """Put each value into the top left of a cell of zeros; the sum is kept.

    >>> bed_of_nails(torch.tensor([[[[1, 2]]]]), 2).tolist()
    [[[[1, 0, 2, 0], [0, 0, 0, 0]]]]
    """
    out = x_NCHW.new_zeros(*x_NCHW.shape[:-2], x_NCHW.shape[-2] * factor, x_NCHW.shape[-1] * factor)
    out[..., ::factor, ::factor] = x_NCHW
    return out


def bilinear(x_NCHW: Tensor, factor: int) -> Tensor:
    """Bilinear with half-pixel centres."""
    return F.interpolate(x_NCHW, scale_factor=factor, mode="bilinear", align_corners=False)


def bilinear_kernel(size: int) -> Tensor:
    """(size, size) weights that make a transposed convolution bilinear (FCN's released surgery code).

    With f = (size + 1) // 2 and centre c = f - 1 for odd sizes, f - 0.5 for even ones, w[i] = 1 - |i - c| / f; the kernel is
    the outer product. Size 4: .25 .75 .75 .25.
    """
    half = (size + 1) // 2
    centre = half - 1 if size % 2 else half - 0.5
    taps = 1 - (torch.arange(size, dtype=torch.float64) - centre).abs() / half
    return torch.outer(taps, taps).float()


@torch.no_grad()
def start_bilinear(conv: nn.ConvTranspose2d) -> None:
    """Bilinear weights on the channel diagonal, zero elsewhere; the bias, if there is one, zero."""
    conv.weight.zero_()
    kernel = bilinear_kernel(conv.kernel_size[0]).to(conv.weight)
    if conv.groups == 1:
        for channel in range(min(conv.in_channels, conv.out_channels)):
            conv.weight[channel, channel] = kernel
    else:
        conv.weight[:, 0] = kernel
    if conv.bias is not None:
        conv.bias.zero_()


def coverage(kernel: int, stride: int) -> list[int]:
    """How many inputs reach each output of a 1-D transposed convolution, over one stride of its interior.

    Uneven numbers are the checkerboard; they are equal if and only if the stride divides the kernel.

    >>> coverage(3, 2), coverage(4, 2)
    ([2, 1], [2, 2])
    """
    return [len(range(phase, kernel, stride)) for phase in range(stride)]


@torch.no_grad()
def start_icnr(conv: nn.Conv2d, factor: int) -> None:
    """ICNR (Aitken et al., arXiv:1707.02937): each kernel repeated factor² times. Convolution and pixel shuffle then start as
    a convolution and nearest up-sampling; no checkerboard at the start. The bias, if there is one, zero."""
    small = torch.empty(conv.out_channels // factor**2, *conv.weight.shape[1:])
    nn.init.kaiming_normal_(small, nonlinearity="relu")
    conv.weight.copy_(small.repeat_interleave(factor**2, dim=0))
    if conv.bias is not None:
        conv.bias.zero_()


class ResizeConv(nn.Module):
    """Nearest up-sampling, then a 3x3 convolution that keeps the size."""

    def __init__(self, in_channels: int, width: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(in_channels, width, kernel_size=3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        out: Tensor = self.conv(nearest(x_NCHW, self.factor))
        return out


class SubPixelConv(nn.Module):
    """A 3x3 convolution to factor² as many channels, then out[c, r h + i, r w + j] = in[c r² + i r + j, h, w]."""

    def __init__(self, in_channels: int, width: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(in_channels, width * factor**2, kernel_size=3, padding=1)
        start_icnr(self.conv, factor)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x_NCHW), self.factor)


class FixedUp(nn.Module):
    """An operator without weights, then a 1x1 convolution where the number of channels changes."""

    def __init__(self, kind: str, in_channels: int, width: int, factor: int = 2) -> None:
        super().__init__()
        self.kind, self.factor = kind, factor
        self.project = nn.Conv2d(in_channels, width, kernel_size=1) if in_channels != width else nn.Identity()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        up = {"nearest": nearest, "nails": bed_of_nails, "bilinear": bilinear}[self.kind]
        out: Tensor = up(self.project(x_NCHW), self.factor)
        return out


def make_up(kind: Up, in_channels: int, width: int, factor: int = 2) -> nn.Module:
    """The operator that a setting names: (N, in_channels, H, W) to (N, width, factor H, factor W)."""
    if kind == "transposed":
        return nn.ConvTranspose2d(in_channels, width, kernel_size=factor, stride=factor)
    if kind == "resize":
        return ResizeConv(in_channels, width, factor)
    if kind == "subpixel":
        return SubPixelConv(in_channels, width, factor)
    return FixedUp(kind, in_channels, width, factor)
