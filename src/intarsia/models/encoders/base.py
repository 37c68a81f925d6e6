"""What an encoder is: an image in, one feature map a level out, finest first."""

from __future__ import annotations

from torch import Tensor, nn


class Encoder(nn.Module):
    """Features at several strides.

    `channels[i]` and `strides[i]` describe level i, finest first; `mean` and `std` (0..1 scale, one number a channel) are
    those of the start weights, or None where there are none.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    start: str = "random weights"

    def forward(self, image_NCHW: Tensor) -> list[Tensor]:
        raise NotImplementedError
