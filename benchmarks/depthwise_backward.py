"""Forward and backward of depthwise convolutions on the processor, bf16 against float32: the reason for ops/depthwise.py.

python benchmarks/depthwise_backward.py
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

import torch
from side_by_side import compare
from torch.nn import functional as F

# (channels, height, width, kernel, stride) of tf_efficientnet_lite0 at 160 x 224
LAYERS = ((96, 80, 112, 3, 2), (144, 40, 56, 5, 2), (240, 20, 28, 5, 1), (672, 10, 14, 5, 1), (1152, 5, 7, 5, 1))


def layers(batch: int, dtype: torch.dtype) -> Callable[[], object]:
    """All layers once, forward and backward."""
    torch.manual_seed(0)
    cases = []
    for channels, height, width, kernel, stride in LAYERS:
        image = torch.randn(batch, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, 1, kernel, kernel).to(dtype)
        cases.append((image.requires_grad_(), weight.requires_grad_(), stride, kernel // 2))

    def call() -> None:
        for image, weight, stride, padding in cases:
            out = F.conv2d(image, weight, stride=stride, padding=padding, groups=image.shape[1])
            torch.autograd.grad(out, (image, weight), torch.ones_like(out))

    return call


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    sides = {
        "bf16": functools.partial(layers, given.batch, torch.bfloat16),
        "float32": functools.partial(layers, given.batch, torch.float32),
    }
    compare("depthwise_backward", sides, rounds=given.rounds, images=given.batch, about={"layers": LAYERS})


if __name__ == "__main__":
    main()
