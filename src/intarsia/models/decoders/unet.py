"""U-Net's expanding path: Ronneberger, Fischer, Brox, arXiv:1505.04597, figure 1, on the features of any encoder.

From the deepest features up: up-sample, concatenate the encoder's map of that size, two 3x3 convolutions; behind the encoder's
finest level, the same without a map to concatenate, until the image's resolution.

Differs from the paper, unless set otherwise: nearest up-sampling instead of an up-convolution; padded convolutions with
normalisation; the classifier is a 3x3 convolution (as smp has it).

Shapes: features (N, channels[i], H / strides[i], W / strides[i]); out (N, widths[-1], H / s, W / s), s = 1 for enough widths.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from intarsia.models.decoders.base import Attention, Decoder, MergeBlock, Skip, steps_of
from intarsia.ops.norm import Norm
from intarsia.ops.upsample import Up


class UNetDecoder(Decoder):
    """One block a step up, called 0, 1, ... from the deepest on."""

    kernel = 3

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        widths: Sequence[int],
        *,
        up: Up = "nearest",
        skip: Skip = "concat",
        attention: Attention = "none",
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        below, skips = channels[-1], list(channels[:-1])
        steps = steps_of(widths, strides)
        for step, (width, deep, fine) in enumerate(steps):
            beside = skips.pop() if skips else 0
            block = MergeBlock(
                below, beside, width, factor=deep // fine, up=up, skip=skip, attention=attention, norm=norm
            )
            self.add_module(str(step), block)
            below = width
        self.width = below
        self.taps = {str(step): (width, fine) for step, (width, _, fine) in enumerate(steps[:-1])}

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, x = features
        for block in self.children():
            x = block(x, skips.pop() if skips else None)
        return x
