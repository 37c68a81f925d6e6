"""Plain stack: convolutions that keep the full resolution from image to logits, the simplest design of all.

The article's starting point ("An overview of semantic image segmentation", J. Jordan, 2018): every layer keeps H x W, which
costs H W sum k² C_in C_out multiplications and sees only 2 L + 1 pixels after L layers of 3x3. Differs: nothing is
prescribed there.

Shapes: N batch, C channels, H height, W width; K classes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from intarsia.models.base import MODELS, ModelConfig, SegmentationModel


class PlainConfig(ModelConfig):
    """Depth and width of the stack."""

    depth: int = Field(10, ge=1)
    """L, number of 3x3 convolutions; the last one gives the logits."""
    width: int = Field(32, ge=1)
    """Channels between them."""
    norm: Literal["none", "batch"] = "none"
    """Normalisation after each convolution but the last."""

    def build(self) -> Plain:
        return Plain(self)


MODELS.preset("plain", PlainConfig())


class Plain(SegmentationModel):
    """L times a 3x3 convolution, ReLU between them."""

    config: PlainConfig

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        layers: list[nn.Module] = []
        channels = config.channels
        for _ in range(config.depth - 1):
            layers.append(nn.Conv2d(channels, config.width, kernel_size=3, padding=1))
            if config.norm == "batch":
                layers.append(nn.BatchNorm2d(config.width))
            layers.append(nn.ReLU(inplace=True))
            channels = config.width
        self.stack = nn.Sequential(*layers)
        self.head = nn.Conv2d(channels, config.classes, kernel_size=3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias) if module.bias is not None else None

    def forward(self, image_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stack(image_NCHW))
        return logits
