"""Encoder-decoder: any timm encoder, with the decoder of U-Net (arXiv:1505.04597).

Follows the usual practice of pretrained encoders rather than one paper: features of every stride, deepest first, are
up-sampled (nearest), concatenated with the next finer ones and passed through two 3x3 convolutions with BatchNorm.

Differs from U-Net: the contracting path is the encoder; resize instead of transposed convolution; padded convolutions.

Shapes: N batch, C channels, H height, W width of a level; K classes.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.models.base import MODELS, ModelConfig, SegmentationModel, resize_logits
from intarsia.models.encoders.timm import TimmEncoder
from intarsia.ops.pad import pad_to_multiple


class EncDecConfig(ModelConfig):
    """The encoder's name, where its weights come from, and the decoder's widths."""

    encoder: str = "tf_efficientnet_lite0"
    """Any timm network with features_only; `timm.list_models()` names them."""
    pretrained: str = "auto"
    """Start weights of the encoder: auto, none, hub, package, or a file; auto says what it found."""
    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    """Channels of the decoder after each doubling, deepest first; fewer numbers than the encoder has halvings make the
    logits coarser (then bilinear to the image's size)."""
    dropout: float = 0.0
    """Share of channels dropped before the last convolution."""

    @field_validator("widths")
    @classmethod
    def _positive(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if not widths or min(widths) < 1:
            raise ValueError("widths must be one or more positive numbers")
        return widths

    @field_validator("dropout")
    @classmethod
    def _share(cls, dropout: float) -> float:
        if not 0 <= dropout < 1:
            raise ValueError("must be at least 0 and below 1")
        return dropout

    def build(self) -> EncDec:
        return EncDec(self)

    def without_start_weights(self) -> Self:
        return self.replace(pretrained="none")


MODELS.preset("encdec", EncDecConfig())


class EncDec(SegmentationModel):
    """An encoder of any size, a U-Net decoder, images of any size (padded inside, cropped back)."""

    config: EncDecConfig

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__(config)
        self.encoder = TimmEncoder(config.encoder, in_channels=config.channels, pretrained=config.pretrained)
        self.mean, self.std, self.start = self.encoder.mean, self.encoder.std, self.encoder.start
        *skips, deepest = self.encoder.channels
        self.decoder = nn.ModuleList()
        for step, width in enumerate(config.widths):
            skip = skips[-1 - step] if step < len(skips) else 0
            self.decoder.append(MergeBlock(config.widths[step - 1] if step else deepest, skip, width))
        self.dropout = nn.Dropout2d(config.dropout)
        self.head = nn.Conv2d(config.widths[-1], config.classes, kernel_size=3, padding=1)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        stride = max(self.encoder.strides)
        padded = pad_to_multiple(image_NCHW, stride, least=2 * stride if self.training else 0)
        *skips, x = self.encoder(padded)
        for block in self.decoder:
            x = block(x, skips.pop() if skips else None)
            if x.shape[-1] >= padded.shape[-1]:
                break
        logits = self.head(self.dropout(x))
        return resize_logits(logits, (padded.shape[-2], padded.shape[-1]))[..., :height, :width]


class MergeBlock(nn.Module):
    """Up-sample to the skip's size (double it where there is none), concatenate, two 3x3 convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, width: int) -> None:
        super().__init__()
        self.first = conv_norm_relu(in_channels + skip_channels, width)
        self.second = conv_norm_relu(width, width)

    def forward(self, x_NCHW: Tensor, skip_NCHW: Tensor | None) -> Tensor:
        size = (2 * x_NCHW.shape[-2], 2 * x_NCHW.shape[-1]) if skip_NCHW is None else skip_NCHW.shape[-2:]
        x_NCHW = F.interpolate(x_NCHW, size, mode="nearest")
        if skip_NCHW is not None:
            x_NCHW = torch.cat((x_NCHW, skip_NCHW), dim=1)
        merged: Tensor = self.second(self.first(x_NCHW))
        return merged


def conv_norm_relu(in_channels: int, width: int) -> nn.Sequential:
    """3x3 convolution (He-normal start), BatchNorm, ReLU."""
    conv = nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
