"""DeepLabv3: Chen, Papandreou, Schroff, Adam, arXiv:1706.05587; v3+: Chen, Zhu, Papandreou, Schroff, Adam, arXiv:1802.02611.

v3 keeps an encoder at stride 16 or 8 by dilation and looks at its last maps in five ways at once: a 1x1 convolution, three 3x3
ones with dilation 6, 12, 18 (doubled at stride 8), and the mean of the whole image; 256 channels each, joined by a 1x1
convolution. In ResNets the three last blocks have dilations times (1, 2, 4). v3+ brings that to stride 4, joins it with 48
channels of the encoder's maps there and refines both by two 3x3 convolutions.

Any timm encoder that can be dilated serves; others with output_stride=32. `pretrained=coco` loads torchvision's DeepLabV3 for
the presets deeplab3_resnet50 and deeplab3_resnet101, which is v3 with rates 12, 24, 36 at stride 8, no multi-grid, and a 3x3
convolution (`bridge`) behind the joined maps; so `deeplab3_resnet101_coco` and its like set them.

Differs from the papers: dropout 0.5 behind the joined maps (torchvision, segmentation_models.pytorch); BatchNorm of the
whole image's mean uses its running statistics for a batch of one, which has no variance.

Trained in the papers with: crops of 513, batch 16, rate 0.007 (1 - t)^0.9, momentum 0.9; from memory, not checked.

Shapes: N batch, C channels, H height, W width; K classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.models.base import MODELS, ModelConfig, SegmentationModel, resize_logits
from intarsia.models.encoders.resnet import dilate_resnet
from intarsia.models.encoders.timm import TimmEncoder
from intarsia.models.weights import FirstLayer, imagenet_statistics, load_coco
from intarsia.ops.conv import conv_norm_relu
from intarsia.ops.norm import Norm
from intarsia.ops.pad import pad_to_multiple


class DeepLab3Config(ModelConfig):
    """Defaults are v3's on ResNet-101, but for the multi-grid, which presets of ResNets set."""

    encoder: str = "resnet101"
    """Any timm network with features_only that can be dilated to the output stride."""
    pretrained: str = "auto"
    """Start weights of the encoder: auto, none, hub, package or a file; coco: the whole net as torchvision publishes it."""
    first_layer: FirstLayer = "adapt"
    """Published weights for other than 3 channels: adapt (1: summed; n: copies, scaled), or fresh (drawn anew)."""
    output_stride: Literal[8, 16, 32] = 16
    """Coarsest stride of the encoder."""
    rates: tuple[int, ...] | None = None
    """Dilations of the 3x3 branches; null: 6, 12, 18 at stride 16, doubled at 8, halved at 32."""
    multi_grid: tuple[int, ...] = ()
    """Factors on the dilations of the last stage's blocks, such as [1, 2, 4]; ResNets only."""
    width: int = Field(256, ge=1)
    """Channels of each branch."""
    bridge: int = Field(0, ge=0)
    """3x3 convolutions behind the joined branches: none in the paper, one in torchvision and segmentation_models.pytorch."""
    separable: bool = False
    """Depthwise-separable 3x3 convolutions in the branches and behind them."""
    norm: Norm = "batch"
    """Normalisation behind the encoder: batch (the papers), group, layer, instance or none."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of values dropped behind the joined branches."""

    def build(self) -> DeepLab3:
        return DeepLab3(self)


class DeepLab3PlusConfig(DeepLab3Config):
    """v3 with the decoder of v3+."""

    low_width: int = Field(48, ge=1)
    """Channels to which the encoder's maps at stride 4 are reduced."""
    refine: int = Field(2, ge=1)
    """3x3 convolutions behind the concatenation."""

    def build(self) -> DeepLab3Plus:
        return DeepLab3Plus(self)


LITE, GRID = "tf_efficientnet_lite0", (1, 2, 4)
COCO = DeepLab3Config(output_stride=8, rates=(12, 24, 36), bridge=1)
# preset                                                                               weights (3 channels, 21 classes)
MODELS.preset("deeplab3_lite0", DeepLab3Config(encoder=LITE))  # ............................................ 5,670,677
MODELS.preset("deeplab3_resnet50", DeepLab3Config(encoder="resnet50", multi_grid=GRID))  # ................. 39,048,533
MODELS.preset("deeplab3_resnet101", DeepLab3Config(encoder="resnet101", multi_grid=GRID))  # ............... 58,040,661
MODELS.preset("deeplab3_resnet50_coco", COCO.replace(encoder="resnet50"))  # ............................... 39,638,869
MODELS.preset("deeplab3_resnet101_coco", COCO.replace(encoder="resnet101"))  # ............................. 58,630,997
MODELS.preset("deeplab3plus_lite0", DeepLab3PlusConfig(encoder=LITE))  # ................................... 6,963,189
MODELS.preset("deeplab3plus_resnet50", DeepLab3PlusConfig(encoder="resnet50", multi_grid=GRID))  # ......... 40,352,181
MODELS.preset("deeplab3plus_resnet101", DeepLab3PlusConfig(encoder="resnet101", multi_grid=GRID))  # ....... 59,344,309


class DeepLab3(SegmentationModel):
    """An encoder kept fine by dilation, and its last maps seen at several reaches at once."""

    config: DeepLab3Config

    def __init__(self, config: DeepLab3Config) -> None:
        super().__init__(config)
        self.encoder = TimmEncoder(
            config.encoder,
            in_channels=config.channels,
            pretrained="none" if config.pretrained == "coco" else config.pretrained,
            output_stride=config.output_stride,
            first_layer=config.first_layer,
        )
        self.mean, self.std, self.start = self.encoder.mean, self.encoder.std, self.encoder.start
        if config.multi_grid:
            dilation = 32 // config.output_stride
            dilations = {4: tuple(dilation * factor for factor in config.multi_grid)}
            dilate_resnet(self.encoder.net, {3: (2,), **dilations} if dilation == 4 else dilations)
        self.middle = nn.Identity()
        self.aspp = ASPP(self.encoder.channels[-1], config)
        self.bridge = refinement(config.width, config.width, config.bridge, config)
        self._build_head(config)
        self.supervise({"middle": (self.encoder.channels[-2], self.encoder.strides[-2])})
        if config.pretrained == "coco":
            self.start = load_coco(self, f"deeplab3_{config.encoder}", ("head.",), first_layer=config.first_layer)
            self.mean, self.std = imagenet_statistics(config.channels)

    def _build_head(self, config: DeepLab3Config) -> None:
        self.head = nn.Conv2d(config.width, config.classes, kernel_size=1)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        stride = max(self.encoder.strides)
        padded = pad_to_multiple(image_NCHW, stride, least=2 * stride if self.training else stride)
        features = self.encoder(padded)
        self.middle(features[-2])
        logits = self._decode(self.bridge(self.aspp(features[-1])), features)
        return resize_logits(logits, (padded.shape[-2], padded.shape[-1]))[..., :height, :width]

    def _decode(self, x_NCHW: Tensor, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(x_NCHW)
        return logits


class DeepLab3Plus(DeepLab3):
    """v3, joined at stride 4 with finer maps of the encoder."""

    config: DeepLab3PlusConfig

    def _build_head(self, config: DeepLab3Config) -> None:
        assert isinstance(config, DeepLab3PlusConfig)
        strides = self.encoder.strides
        self.low_level = max((level for level, stride in enumerate(strides) if stride <= 4), default=0)
        self.reduce = conv_norm_relu(self.encoder.channels[self.low_level], config.low_width, 1, norm=config.norm)
        self.refine = refinement(config.width + config.low_width, config.width, config.refine, config)
        super()._build_head(config)

    def _decode(self, x_NCHW: Tensor, features: list[Tensor]) -> Tensor:
        low = self.reduce(features[self.low_level])
        x_NCHW = F.interpolate(x_NCHW, low.shape[-2:], mode="bilinear", align_corners=False)
        return super()._decode(self.refine(torch.cat((x_NCHW, low), dim=1)), features)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with the whole image's mean: figure 5 of v3."""

    def __init__(self, in_channels: int, config: DeepLab3Config) -> None:
        super().__init__()
        width, norm = config.width, config.norm
        rates = config.rates or tuple(rate * 16 // config.output_stride for rate in (6, 12, 18))
        self.point = conv_norm_relu(in_channels, width, 1, norm=norm)
        self.dilated = nn.ModuleList(
            conv_norm_relu(in_channels, width, dilation=rate, norm=norm, separable=config.separable) for rate in rates
        )
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm_relu(in_channels, width, 1, norm=norm))
        joined = conv_norm_relu((len(rates) + 2) * width, width, 1, norm=norm)
        self.project = nn.Sequential(*joined, nn.Dropout(config.dropout))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        looks = [self.point(x_NCHW), *(look(x_NCHW) for look in self.dilated)]
        looks.append(self.image(x_NCHW).expand(-1, -1, *x_NCHW.shape[-2:]))
        joined: Tensor = self.project(torch.cat(looks, dim=1))
        return joined


def refinement(in_channels: int, width: int, count: int, config: DeepLab3Config) -> nn.Sequential:
    """3x3 convolutions to `width` channels."""
    return nn.Sequential(
        *(
            conv_norm_relu(in_channels if index == 0 else width, width, norm=config.norm, separable=config.separable)
            for index in range(count)
        )
    )
