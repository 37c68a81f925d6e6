"""PSPNet's pyramid pooling: Zhao et al., arXiv:1612.01105, figure 3.

The deepest features are averaged over grids of 1, 2, 3 and 6 cells a side, each brought to a quarter of the channels,
up-sampled, concatenated with the features and merged by a 3x3 convolution. The paper's encoder is dilated to output stride 8
(`down="none"`); finer features are not used.

Differs from the paper: none in shape. Deep supervision classifies the encoder's second deepest level by a 1x1 convolution
(section 3.3 has a 3x3 one before it).

Shapes: features (N, channels[i], H / strides[i], W / strides[i]); out (N, width, H / strides[-1], W / strides[-1]).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from intarsia.models.decoders.base import Decoder, PyramidPooling
from intarsia.ops.conv import conv_norm_relu
from intarsia.ops.norm import Norm


class PSPDecoder(Decoder):
    """Means of four grids beside the deepest features."""

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, width: int = 512, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        self.pyramid = PyramidPooling(channels[-1], max(1, channels[-1] // 4), norm=norm)
        self.merge = conv_norm_relu(self.pyramid.width, width, norm=norm)
        self.width = width
        self.inner = nn.Identity()
        self.taps = {"inner": (channels[-2], strides[-2])} if len(channels) > 1 else {}

    def forward(self, features: list[Tensor]) -> Tensor:
        self.inner(features[-2:][0])
        merged: Tensor = self.merge(self.pyramid(features[-1]))
        return merged
