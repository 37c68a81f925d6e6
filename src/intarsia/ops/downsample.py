"""Down-sampling operators: each halves resolution in a way of its own, or keeps it and lets later convolutions reach further.

| name | rule | learned |
|---|---|---|
| max | the maximum of each 2 x 2 cell | no |
| average | the mean of each 2 x 2 cell | no |
| strided | 3x3 convolution with stride 2 | yes |
| none | nothing; convolutions behind it are dilated by 2 more (Yu & Koltun, arXiv:1511.07122) | no |
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.errors import ConfigError

Down = Literal["max", "average", "strided", "none"]


def make_down(kind: Down, width: int) -> nn.Module:
    """The operator that a setting names: (N, width, H, W) to (N, width, H/2, W/2), for even sides."""
    if kind == "max":
        return nn.MaxPool2d(2)
    if kind == "average":
        return nn.AvgPool2d(2)
    if kind == "strided":
        return nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1)
    return nn.Identity()


def exchange_down(net: nn.Module, kind: Literal["max", "average", "strided"], channels: int) -> nn.Module:
    """Let every halving inside a convolutional network be done by `kind`; all weights stay where they are.

    max, average: a convolution with stride 2 is computed at stride 1 and pooled; a pooling becomes one of the kind.
    strided: a pooling becomes a depthwise 3x3 convolution with stride 2 that starts as an average.

    Args:
        channels: of the images that `net` takes.

    Raises:
        ConfigError: the network does not halve by convolutions and poolings (transformers merge patches).
    """
    strides = [module.stride for module in net.modules() if isinstance(module, nn.Conv2d) and max(module.stride) > 1]
    in_halves = all(stride == (2, 2) for stride in strides)
    poolings = _poolings(net, channels) if in_halves else []
    if not in_halves or not (strides or poolings):
        raise ConfigError(
            f"model.down: {kind} cannot take the place of what halves this encoder"
            f"{f' (a convolution with stride {max(strides)[0]})' if strides else ''}. Leave model.down at encoder."
        )
    for name, pooling, width in poolings:
        parent, _, last = name.rpartition(".")
        setattr(net.get_submodule(parent), last, _pooling_as(kind, pooling, width))
    if kind != "strided":
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
                cls: Any = type(module)
                module.__class__ = _then_pool(cls, kind)
    return net


def _poolings(net: nn.Module, channels: int) -> list[tuple[str, Any, int]]:
    """Name, module and width of each pooling with stride 2; the widths are seen by passing a small image."""
    found: dict[str, tuple[Any, int]] = {}

    def watch(name: str, module: nn.Module) -> Any:
        return module.register_forward_hook(lambda _m, inputs, _out: found.update({name: (module, inputs[0].shape[1])}))

    hooks = [
        watch(name, module)
        for name, module in net.named_modules()
        if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) and _side(module.stride) == 2
    ]
    training = net.training
    with torch.no_grad():
        net.eval()(torch.zeros(1, channels, 64, 64))
    net.train(training)
    for hook in hooks:
        hook.remove()
    return [(name, module, width) for name, (module, width) in found.items()]


def _pooling_as(kind: str, old: Any, width: int) -> nn.Module:
    side, padding = _side(old.kernel_size), _side(old.padding)
    if kind == "max":
        return nn.MaxPool2d(side, 2, padding, ceil_mode=old.ceil_mode)
    if kind == "average":
        return nn.AvgPool2d(side, 2, padding, ceil_mode=old.ceil_mode, count_include_pad=False)
    conv = nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1, groups=width, bias=False)
    nn.init.constant_(conv.weight, 1 / 9)
    return conv


@cache
def _then_pool(cls: type[Any], kind: str) -> type[Any]:
    """The subclass of a convolution that pools its output. Changing the class keeps the names of weights."""

    class ThenPool(cls):  # type: ignore[misc]
        def forward(self, x_NCHW: Tensor) -> Tensor:
            out_NCHW = super().forward(x_NCHW)
            pool = F.max_pool2d if kind == "max" else F.avg_pool2d
            return pool(out_NCHW, 2, ceil_mode=True)

    ThenPool.__name__ = ThenPool.__qualname__ = f"{cls.__name__}Then{kind.capitalize()}Pool"
    return ThenPool


def _side(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]
