"""U-Net: Ronneberger, Fischer, Brox, "Convolutional Networks for Biomedical Image Segmentation", arXiv:1505.04597, figure 1.

Differs from the paper, unless set otherwise:
- `unet` differs in nothing that figure 1 shows: valid 3x3 convolutions, ReLU, 2x2 max pooling, 2x2 up-convolutions that
  halve the channels, cropped and concatenated skips, dropout at the end of the contracting path; 31,030,658 weights for
  one channel and two classes. No ReLU after the up-convolutions (the released Caffe net has one; the figure shows none).
- `unet_same` pads every convolution, so that the logits have the image's size, and normalises with BatchNorm.

Shapes: N batch, C channels, H height, W width of a level; K classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from intarsia.errors import ConfigError
from intarsia.models.base import MODELS, ModelConfig, SegmentationModel
from intarsia.ops.pad import center_crop, pad_to_multiple

Norm = Literal["none", "batch", "instance", "group"]


class UNetConfig(ModelConfig):
    """Defaults are the paper's."""

    padding: Literal["valid", "same"] = "valid"
    """valid: convolutions lose their border, 572 gives 388; same: logits of the image's size, for images of any size."""
    width: int = Field(64, ge=1)
    """Channels at full resolution; doubled at each level down."""
    depth: int = Field(4, ge=1, le=8)
    """Number of poolings: the image side shrinks by 2 to this power."""
    norm: Norm = "none"
    """Normalisation after each 3x3 convolution; the paper has none."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of values dropped at the end of the contracting path (the two deepest levels)."""

    def build(self) -> UNet:
        return UNet(self)


# preset                                                                               weights (1 channel, 2 classes)
MODELS.preset("unet", UNetConfig())  # ................................................................... 31,030,658
MODELS.preset("unet_same", UNetConfig(padding="same", norm="batch", dropout=0.0))  # ...................... 31,036,546


class UNet(SegmentationModel):
    """The contracting path keeps what it saw; the expanding path takes it up again."""

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            dropout = config.dropout if level >= config.depth - 1 else 0.0
            self.down.append(double_conv(widths[level - 1] if level else config.channels, width, config, dropout))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(nn.ConvTranspose2d(2 * width, width, kernel_size=2, stride=2))
            self.merge.append(double_conv(2 * width, width, config, 0.0))
        self.head = nn.Conv2d(widths[0], config.classes, kernel_size=1)
        self.apply(start_normal)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        x = self._checked(image_NCHW)
        skips: list[Tensor] = []
        for encode in self.down[:-1]:
            skips.append(encode(x))
            x = self.pool(skips[-1])
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            skip = center_crop(skips.pop(), (x.shape[-2], x.shape[-1]))
            x = merge(torch.cat((x, skip), dim=1))
        logits: Tensor = self.head(x)
        return logits[..., :height, :width] if self.config.padding == "same" else logits

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        if self.config.padding == "same":
            return height, width
        return self._valid_output(height), self._valid_output(width)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        if self.config.padding == "same":
            return height, width
        step, least = self.valid_sizes
        lost = least - self._valid_output(least)
        return tuple(least + max(0, -(-(size + lost - least) // step)) * step for size in (height, width))  # type: ignore[return-value]

    def sample_size(self, height: int, width: int) -> tuple[int, int]:
        if self.config.padding == "same":
            return super().sample_size(height, width)
        step, least = self.valid_sizes
        return tuple(least + max(0, (size - least) // step) * step for size in (height, width))  # type: ignore[return-value]

    @property
    def valid_sizes(self) -> tuple[int, int]:
        """Inputs that a valid U-Net takes: `least + k * step`, k >= 0. For depth 4: 188 + 16 k, section 2 of the paper."""
        bottom = 0  # side of the deepest level after its two convolutions
        while True:
            side = bottom + 4
            for _ in range(self.config.depth):
                side = 2 * side + 4
            if self._valid_output(side) > 0:
                return 2**self.config.depth, side
            bottom += 1

    def _valid_output(self, size: int) -> int:
        for _ in range(self.config.depth):
            size = (size - 4) // 2
        size -= 4
        for _ in range(self.config.depth):
            size = 2 * size - 4
        return size

    def _checked(self, image_NCHW: Tensor) -> Tensor:
        if self.config.padding == "same":
            least = 2 ** (self.config.depth + 1) if self.training and self.config.norm != "none" else 0
            return pad_to_multiple(image_NCHW, 2**self.config.depth, least=least)
        step, least = self.valid_sizes
        for size in image_NCHW.shape[-2:]:
            if size < least or (size - least) % step:
                raise ConfigError(
                    f"unet with padding=valid takes sides {least}, {least + step}, {least + 2 * step}, ..., got "
                    f"{tuple(image_NCHW.shape[-2:])}. Pad the image, or use unet_same."
                )
        return image_NCHW


def double_conv(in_channels: int, width: int, config: UNetConfig, dropout: float) -> nn.Sequential:
    """Two 3x3 convolutions, each with its normalisation and ReLU."""
    padding = 1 if config.padding == "same" else 0
    layers: list[nn.Module] = []
    for channels in (in_channels, width):
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=padding, bias=config.norm == "none"))
        if config.norm != "none":
            layers.append(norm_layer(config.norm, width))
        layers.append(nn.ReLU(inplace=True))
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def norm_layer(norm: Norm, width: int) -> nn.Module:
    """The normalisation that a setting names."""
    if norm == "batch":
        return nn.BatchNorm2d(width)
    if norm == "instance":
        return nn.InstanceNorm2d(width, affine=True)
    return nn.GroupNorm(math.gcd(width, 8), width)


def start_normal(module: nn.Module) -> None:
    """N(0, sqrt(2 / fan-in)), section 3 of the paper (He et al.); biases zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.ConvTranspose2d):
        # Each output pixel of a 2x2 up-convolution with stride 2 sees one input pixel, so fan-in is its input channels.
        nn.init.normal_(module.weight, std=math.sqrt(2 / module.in_channels))
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)
