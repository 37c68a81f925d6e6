"""Depthwise convolutions in float32 inside a bf16 network, on processors.

The processor's bf16 kernels for the gradient of a depthwise convolution are several times slower than the float32 ones
(`benchmarks/depthwise_backward.py` measures it), while all other convolutions gain from bf16. A depthwise convolution is a
small part of a network's arithmetic, so little is lost by computing it in float32, which is also more exact.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


def depthwise_in_float32(model: nn.Module) -> nn.Module:
    """Let every depthwise convolution of `model` compute in float32 under autocast; weights and names stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            cls: Any = type(module)
            module.__class__ = _in_float32(cls)
    return model


@cache
def _in_float32(cls: type[Any]) -> type[Any]:
    """The subclass of a convolution that leaves autocast. Changing the class, not the forward, survives a deep copy."""
    if getattr(cls, "computes_in_float32", False):
        return cls

    class InFloat32(cls):  # type: ignore[misc]
        computes_in_float32 = True

        def forward(self, x_NCHW: Tensor) -> Tensor:
            with torch.autocast(x_NCHW.device.type, enabled=False):
                result: Tensor = super().forward(x_NCHW.float())
            return result

    InFloat32.__name__ = InFloat32.__qualname__ = cls.__name__
    return InFloat32
