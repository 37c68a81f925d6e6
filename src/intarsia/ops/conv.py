"""The convolution of every modern decoder: convolution, normalisation, ReLU."""

from __future__ import annotations

from torch import nn

from intarsia.ops.norm import Norm, make_norm


def conv_norm_relu(
    in_channels: int, width: int, kernel: int = 3, *, dilation: int = 1, norm: Norm = "batch", separable: bool = False
) -> nn.Sequential:
    """A convolution that keeps the size (He-normal start), its normalisation, ReLU.

    Args:
        kernel: side, odd.
        dilation: distance of the taps.
        separable: a depthwise convolution, then a 1x1 one (Chollet, arXiv:1610.02357), with nothing between them.
    """
    padding, bias = dilation * (kernel // 2), norm == "none"
    if separable:
        depthwise = nn.Conv2d(
            in_channels, in_channels, kernel, padding=padding, dilation=dilation, groups=in_channels, bias=False
        )
        convolutions = [depthwise, nn.Conv2d(in_channels, width, kernel_size=1, bias=bias)]
    else:
        convolutions = [nn.Conv2d(in_channels, width, kernel, padding=padding, dilation=dilation, bias=bias)]
    for conv in convolutions:
        start_he(conv)
    return nn.Sequential(*convolutions, make_norm(norm, width), nn.ReLU(inplace=True))


def start_he(module: nn.Module) -> None:
    """N(0, sqrt(2 / fan-in)) weights (He et al., arXiv:1502.01852), zero biases; for `module.apply`."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
