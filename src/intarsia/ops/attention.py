"""Attention inside decoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SCSE(nn.Module):
    """Concurrent spatial and channel squeeze-and-excitation: Roy, Navab, Wachinger, arXiv:1803.02579, figure 1d.

    x σ(W₂ relu(W₁ mean(x))) + x σ(w · x): what a channel is worth in the whole image, plus what a place is worth.

    Args:
        width: channels of x.
        reduction: factor by which W₁ narrows; never below one channel.
    """

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = max(1, width // reduction)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, narrow, 1), nn.ReLU(inplace=True), nn.Conv2d(narrow, width, 1)
        )
        self.place = nn.Conv2d(width, 1, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW * torch.sigmoid(self.channel(x_NCHW)) + x_NCHW * torch.sigmoid(self.place(x_NCHW))
