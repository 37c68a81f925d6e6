"""VGG16: Simonyan & Zisserman, "Very Deep Convolutional Networks", arXiv:1409.1556, table 1, column D.

The thirteen 3x3 convolutions in five stages, as FCN, SegNet's kin, the dilated front end and DeepLab cut and stretch them, and
the two large layers of the classifier as convolutions. No BatchNorm. Start weights: ImageNet's, as torchvision publishes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from intarsia.models.weights import adapt_first_layer, as_published
from intarsia.ops.conv import start_he

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions of each stage; together 14,714,688 weights for RGB."""


def vgg16_widths(width: float) -> tuple[tuple[int, ...], ...]:
    """VGG16's widths times a factor, at least one channel."""
    return tuple(tuple(scaled(channels, width) for channels in stage) for stage in VGG16)


def scaled(channels: int, factor: float) -> int:
    """A number of channels times a factor, at least one."""
    return max(1, round(channels * factor))


def vgg_stages(
    in_channels: int,
    widths: Sequence[Sequence[int]] = VGG16,
    *,
    paddings: Sequence[int] = (1, 1, 1, 1, 1),
    dilations: Sequence[int] = (1, 1, 1, 1, 1),
    first_padding: int | None = None,
) -> nn.ModuleList:
    """Stages of 3x3 convolutions, each with ReLU; the poolings between them are the model's.

    Args:
        paddings: of each stage's convolutions.
        dilations: of each stage's convolutions.
        first_padding: of the very first convolution, if it differs (100 in FCN).
    """
    stages = nn.ModuleList()
    for stage, padding, dilation in zip(widths, paddings, dilations, strict=True):
        layers: list[nn.Module] = []
        for width in stage:
            first = first_padding is not None and not len(stages) and not layers
            used = first_padding if first else padding
            layers.append(nn.Conv2d(in_channels, width, kernel_size=3, padding=used or 0, dilation=dilation))
            layers.append(nn.ReLU(inplace=True))
            in_channels = width
        stages.append(nn.Sequential(*layers))
    stages.apply(start_he)
    return stages


def large_layer(in_channels: int, width: int, kernel: int, *, dilation: int = 1, padding: int = 0) -> nn.Sequential:
    """A fully connected layer of the classifier as a convolution, with ReLU and dropout 0.5."""
    conv = nn.Conv2d(in_channels, width, kernel, dilation=dilation, padding=padding)
    start_he(conv)
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.Dropout(0.5))


@torch.no_grad()
def load_vgg16(
    state: Mapping[str, Tensor],
    stages: nn.ModuleList,
    large: Sequence[nn.Module] = (),
    *,
    first_layer: str = "adapt",
) -> None:
    """Copy torchvision's VGG16 into stages and, if asked for, the classifier's fc6 and fc7 into convolutions.

    fc6 is 4096 x 25088 there and 4096 x 512 x 7 x 7 here; a narrower or smaller one takes every so many-th filter and tap, as
    DeepLab does (arXiv:1412.7062, section 2.2).
    """
    with as_published("VGG16"):
        _load(state, stages, large, first_layer)


def _load(state: Mapping[str, Tensor], stages: nn.ModuleList, large: Sequence[nn.Module], first_layer: str) -> None:
    convolutions = [module for module in stages.modules() if isinstance(module, nn.Conv2d)]
    names = [key.removesuffix(".weight") for key in state if key.startswith("features.") and key.endswith(".weight")]
    for conv, name in zip(convolutions, names, strict=True):
        weight = state[f"{name}.weight"]
        if name == names[0]:
            weight = adapt_first_layer(weight, conv.in_channels, first_layer, start=conv.weight)
        copy_layer(conv, weight, state[f"{name}.bias"])
    above = 1
    for layer, name, shape in zip(large, ("classifier.0", "classifier.3"), ((512, 7, 7), (4096, 1, 1)), strict=False):
        conv = cast(nn.Conv2d, layer.get_submodule("0"))
        weight = state[f"{name}.weight"].reshape(-1, *shape)[:, ::above]
        above = weight.shape[0] // conv.out_channels
        taps = torch.linspace(0, shape[-1] - 1, conv.kernel_size[0]).round().long()
        copy_layer(conv, weight[::above][:, :, taps][..., taps], state[f"{name}.bias"][::above])


@torch.no_grad()
def copy_layer(conv: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Weight and bias into a convolution of the same shape."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    assert conv.weight.shape == weight.shape, f"{tuple(weight.shape)} for {tuple(conv.weight.shape)}"
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)
