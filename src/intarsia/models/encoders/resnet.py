"""Dilations of a residual network's stages (He et al., arXiv:1512.03385), as DeepLab sets them block by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from intarsia.errors import ConfigError


def dilate_resnet(net: nn.Module, dilations: Mapping[int, tuple[int, ...]], *, stride_in_first: bool = False) -> None:
    """Set the dilation of every 3x3 convolution of the stages named; weights stay.

    Args:
        net: a network with stages layer1 to layer4 of blocks with conv1, conv2 and perhaps conv3, as timm's and
            torchvision's ResNets have them.
        dilations: stage number to the dilations of its blocks; the last number holds for all further blocks.
        stride_in_first: bottlenecks halve in their first 1x1 convolution, as He et al. and DeepLab v2 do, not in the 3x3 one.

    Raises:
        ConfigError: the network has no such stages.
    """
    for stage, values in dilations.items():
        blocks = getattr(net, f"layer{stage}", None)
        if blocks is None or not all(hasattr(block, "conv2") for block in blocks):
            raise ConfigError("model.multi_grid: is for ResNets, whose last stage has blocks. Set it to [].")
        for index, block in enumerate(blocks):
            dilation = values[min(index, len(values) - 1)]
            for conv in (block.conv1, block.conv2):
                if conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (dilation, dilation)
    if stride_in_first:
        bottlenecks: list[Any] = [module for module in net.modules() if hasattr(module, "conv3")]
        for block in bottlenecks:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
