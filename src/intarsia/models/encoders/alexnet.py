"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Networks", 2012, as Caffe has it.

Two builds. `alexnet`: 96, 256, 384, 384, 256 channels, groups of two in conv2, conv4 and conv5, response normalisation behind
the first two poolings; no stable address holds its weights in a format that is not Caffe's. `alexnet2014`: the single tower of
"One weird trick", arXiv:1404.5997: 64, 192, 384, 256, 256 channels, no groups, no normalisation; torchvision publishes its
ImageNet weights. Poolings are 3x3 with stride 2 and round up.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from intarsia.models.encoders.vgg import copy_layer, scaled
from intarsia.models.weights import adapt_first_layer, as_published
from intarsia.ops.conv import start_he

WIDTHS = {"alexnet": (96, 256, 384, 384, 256), "alexnet2014": (64, 192, 384, 256, 256)}


def alexnet_trunk(kind: str, in_channels: int, *, width: float = 1.0, first_padding: int = 2) -> nn.Sequential:
    """conv1 to pool5; `width` scales the channels (kept even, as two groups need)."""
    original = kind == "alexnet"
    widths = [2 * scaled(channels // 2, width) for channels in WIDTHS[kind]]
    groups = (1, 2, 1, 2, 2) if original else (1,) * 5
    layers: list[nn.Module] = []
    for index, (out, group) in enumerate(zip(widths, groups, strict=True)):
        kernel, stride, padding = ((11, 4, first_padding), (5, 1, 2))[index] if index < 2 else (3, 1, 1)
        layers += [nn.Conv2d(in_channels, out, kernel, stride, padding, groups=group), nn.ReLU(inplace=True)]
        if index in (0, 1, 4):
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            if original and index < 2:
                layers.append(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75))
        in_channels = out
    trunk = nn.Sequential(*layers)
    trunk.apply(start_he)
    return trunk


@torch.no_grad()
def load_alexnet2014(
    state: Mapping[str, Tensor], trunk: nn.Sequential, large: tuple[nn.Sequential, nn.Sequential], *, first_layer: str
) -> None:
    """Copy torchvision's AlexNet into the trunk and its fc6 (4096 x 9216, a 6x6 convolution) and fc7."""
    with as_published("AlexNet"):
        names = [
            key.removesuffix(".weight") for key in state if key.startswith("features.") and key.endswith(".weight")
        ]
        for conv, name in zip((m for m in trunk if isinstance(m, nn.Conv2d)), names, strict=True):
            weight = state[f"{name}.weight"]
            if name == names[0]:
                weight = adapt_first_layer(weight, conv.in_channels, first_layer, start=conv.weight)
            copy_layer(conv, weight, state[f"{name}.bias"])
        for layer, name, shape in zip(
            large, ("classifier.1", "classifier.4"), ((256, 6, 6), (4096, 1, 1)), strict=True
        ):
            copy_layer(layer[0], state[f"{name}.weight"].reshape(-1, *shape), state[f"{name}.bias"])
