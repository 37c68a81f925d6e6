"""DeepLab v1 and v2: Chen, Papandreou, Kokkinos, Murphy, Yuille, arXiv:1412.7062 (LargeFOV) and arXiv:1606.00915 (ASPP).

A classifier without its last down-samplings: later convolutions are dilated instead ("atrous"), so that scores are made at
stride 8 and up-sampled bilinearly, corners on corners.

    net                   fc6                                                        down-sampling
    v1 LargeFOV, VGG16    3x3, 1024, dilation 12                                     pools 3x3, strides 2 2 2 1 1; average
    v2 ASPP-L, VGG16      four branches 3x3, 1024, dilation 6 12 18 24, summed       pools 3x3, strides 2 2 2 1 1
    v2 ASPP-S, VGG16      the same with dilation 2 4 8 12
    v2, ResNet-101        four 3x3 score layers, dilation 6 12 18 24, summed         stages 1 2 1 1, dilation 1 1 2 4

The other nets of v1's table are settings of the first: kernel 4, rates [4], hidden 4096 (65,140,565 weights) and kernel 7,
rates [4], hidden 4096 (134,346,581). `deeplab2_resnet101` looks at the image at scales 1, 0.75 and 0.5 and takes the maximum.

Differs from the paper: RGB with ImageNet statistics (published weights) instead of BGR minus its mean. Images of any size are
padded to sides 8 n + 1, on which the grid of scores lies exactly. The dense CRF is no part of the network.

Trained in the papers with: v1 SGD, batch 20, rate 1e-3 (score layer 1e-2), divided by 10 every 2000 steps, momentum 0.9, weight
decay 5e-4, cross-entropy on scores against masks sub-sampled by 8; v2 rate base (1 - t)^0.9, VGG 1e-3 and ResNet 2.5e-4, batch
10, 20,000 steps, crops of 321, new layers 10 times the rate. VOC 2012: v1 test 71.6 with multi-scale and CRF, v2 test 79.7.

Shapes: N batch, C channels, H height, W width; K classes.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.errors import ConfigError
from intarsia.models.base import MODELS, ModelConfig, SegmentationModel
from intarsia.models.encoders.resnet import dilate_resnet
from intarsia.models.encoders.timm import TimmEncoder
from intarsia.models.encoders.vgg import large_layer, load_vgg16, vgg16_widths, vgg_stages
from intarsia.models.weights import FirstLayer, imagenet_statistics, start_weights
from intarsia.ops.pad import larger, pad_end


class DeepLabConfig(ModelConfig):
    """Defaults are v1's LargeFOV."""

    rates: tuple[int, ...] = (12,)
    """Dilation of fc6; one branch of fc6, fc7 and score for each number, scores summed."""
    kernel: int = Field(3, ge=1, le=7)
    """Side of fc6; 7 is the classifier's own."""
    hidden: int = Field(1024, ge=1)
    """Channels of fc6 and fc7; 4096 is the classifier's own."""
    average_pool: bool = True
    """A 3x3 average pooling behind pool5, as the released LargeFOV has it."""
    width: float = Field(1.0, gt=0, le=4)
    """Factor on VGG16's channels."""
    pretrained: str = "auto"
    """Start weights of the trunk; fc6 and fc7 take every so many-th filter and tap. auto, none, download, or a file."""
    first_layer: FirstLayer = "adapt"
    """Published weights for other than 3 channels: adapt (1: summed; n: copies, scaled), or fresh (drawn anew)."""

    @model_validator(mode="after")
    def _centred(self) -> DeepLabConfig:
        if not self.rates or min(self.rates) < 1 or any(rate * (self.kernel - 1) % 2 for rate in self.rates):
            raise ValueError("rates must be positive, and rate * (kernel - 1) even, or fc6 cannot keep the size")
        return self

    def build(self) -> DeepLab:
        return DeepLab(self)


ASPP_L = DeepLabConfig(rates=(6, 12, 18, 24), average_pool=False)
# preset                                                                               weights (3 channels, 21 classes)
MODELS.preset("deeplab_largefov_vgg16", DeepLabConfig())  # ............................................... 20,505,429
MODELS.preset("deeplab2_vgg16", ASPP_L)  # ................................................................ 37,877,652
MODELS.preset("deeplab2_vgg16_aspp_s", ASPP_L.replace(rates=(2, 4, 8, 12)))  # ............................ 37,877,652


class DeepLab(SegmentationModel):
    """VGG16 kept at stride 8 by dilation, with one or more wide looks at its last maps."""

    config: DeepLabConfig
    encoder_parts = ("stages",)

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__(config)
        widths = vgg16_widths(config.width)
        self.stages = vgg_stages(config.channels, widths, paddings=(1, 1, 1, 1, 2), dilations=(1, 1, 1, 1, 2))
        self.branches = nn.ModuleList()
        for rate in config.rates:
            padding = rate * (config.kernel - 1) // 2
            fc6 = large_layer(widths[-1][-1], config.hidden, config.kernel, dilation=rate, padding=padding)
            fc7 = large_layer(config.hidden, config.hidden, 1)
            self.branches.append(nn.Sequential(fc6, fc7, score_layer(config.hidden, config.classes, 1, 1)))
        fits = config.width == 1 and 4096 % config.hidden == 0
        state, self.start = start_weights("vgg16", config.pretrained, fits=fits)
        if state is not None:
            for branch in self.branches:
                load_vgg16(state, self.stages, tuple(branch.children())[:2], first_layer=config.first_layer)
            self.mean, self.std = imagenet_statistics(config.channels)
        self.auxiliary_origin = 4
        self.supervise({"stages.3": (widths[3][-1], 8)})

    def forward(self, image_NCHW: Tensor) -> Tensor:
        x = pad_to_grid(image_NCHW)
        for stage, stride in zip(self.stages, (2, 2, 2, 1, 1), strict=True):
            x = F.max_pool2d(stage(x), 3, stride, padding=1, ceil_mode=True)
        if self.config.average_pool:
            x = F.avg_pool2d(x, 3, 1, padding=1)
        score = torch.stack([branch(x) for branch in self.branches]).sum(dim=0)
        return up_to(score, image_NCHW)


class DeepLab2ResNetConfig(ModelConfig):
    """Defaults are v2's on ResNet-101."""

    encoder: Literal["resnet50", "resnet101", "resnet152"] = "resnet101"
    """The residual network; its stages have strides 1, 2, 1, 1 and dilations 1, 1, 2, 4."""
    pretrained: str = "auto"
    """Start weights of the encoder: auto, none, hub, or a file; auto says what it found."""
    first_layer: FirstLayer = "adapt"
    """Published weights for other than 3 channels: adapt (1: summed; n: copies, scaled), or fresh (drawn anew)."""
    rates: tuple[int, ...] = (6, 12, 18, 24)
    """Dilation of each score layer; their scores are summed."""
    scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    """Sizes at which the image is looked at; the largest logit counts ("MSC"). With deep_supervision each has a loss."""

    @model_validator(mode="after")
    def _positive(self) -> DeepLab2ResNetConfig:
        if not self.rates or min(self.rates) < 1 or not self.scales or min(self.scales) <= 0:
            raise ValueError("rates and scales must be one or more positive numbers")
        return self

    def build(self) -> DeepLab2ResNet:
        return DeepLab2ResNet(self)


MODELS.preset("deeplab2_resnet101", DeepLab2ResNetConfig())  # ............................................ 44,048,532


class DeepLab2ResNet(SegmentationModel):
    """A residual network kept at stride 8, four score layers of different reach, three scales of the image."""

    config: DeepLab2ResNetConfig

    def __init__(self, config: DeepLab2ResNetConfig) -> None:
        super().__init__(config)
        self.encoder = TimmEncoder(
            config.encoder,
            in_channels=config.channels,
            pretrained=config.pretrained,
            output_stride=8,
            first_layer=config.first_layer,
        )
        dilate_resnet(self.encoder.net, {3: (2,), 4: (4,)}, stride_in_first=True)
        self.mean, self.std, self.start = self.encoder.mean, self.encoder.std, self.encoder.start
        deepest = self.encoder.channels[-1]
        self.aspp = nn.ModuleList(score_layer(deepest, config.classes, 3, rate) for rate in config.rates)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        return torch.stack(self._at_scales(image_NCHW)).amax(dim=0)

    def with_auxiliary(self, image_NCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The maximum over scales, and the logits of each scale, as the paper's loss sums them."""
        each = self._at_scales(image_NCHW)
        return torch.stack(each).amax(dim=0), each if self.config.deep_supervision else []

    def _at_scales(self, image_NCHW: Tensor) -> list[Tensor]:
        found = []
        for scale in self.config.scales:
            sides = [scaled_side(side, scale) for side in image_NCHW.shape[-2:]]
            seen = image_NCHW if scale == 1 else F.interpolate(image_NCHW, sides, mode="bilinear", align_corners=False)
            score = self._score(pad_to_grid(seen, least=17 if self.training else 1))
            logits = up_to(score, seen)
            found.append(
                F.interpolate(logits.float(), image_NCHW.shape[-2:], mode="bilinear", align_corners=False)
                if scale != 1
                else logits
            )
        return found

    def _score(self, padded_NCHW: Tensor) -> Tensor:
        deepest = self.encoder(padded_NCHW)[-1]
        return torch.stack([layer(deepest) for layer in self.aspp]).sum(dim=0)


def score_layer(in_channels: int, classes: int, kernel: int, rate: int) -> nn.Conv2d:
    """A convolution to scores, N(0, 0.01) at the start, bias zero."""
    conv = nn.Conv2d(in_channels, classes, kernel, padding=rate * (kernel // 2), dilation=rate)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias) if conv.bias is not None else None
    return conv


def scaled_side(side: Any, scale: float) -> int:
    """max(1, round(side scale)); of a side that is not fixed, as in an export, by whole numbers alone.

    Raises:
        ConfigError: such a side, and a scale that is no fraction of a small power of two: rounding would differ.
    """
    if isinstance(side, int):
        return max(1, round(side * scale))
    ratio = Fraction(scale)
    if ratio.denominator > 1024:
        raise ConfigError(f"model.scales: {scale} cannot be exported exactly. Take one such as 0.5, 0.75 or 1.25.")
    doubled, whole = 2 * side * ratio.numerator + ratio.denominator, 2 * ratio.denominator
    half = 1 - (doubled % whole + whole - 1) // whole  # 1 between two numbers, of which Python takes the even one
    rounded = doubled // whole
    return larger(1, rounded - half * (rounded % 2))


def pad_to_grid(image_NCHW: Tensor, *, least: int = 1) -> Tensor:
    """Repeat the bottom and right border to sides 8 n + 1, whose grid at stride 8 begins and ends in corners."""
    down, right = (larger(least, (side + 6) // 8 * 8 + 1) - side for side in image_NCHW.shape[-2:])
    return pad_end(image_NCHW, down, right)


def up_to(score_NKHW: Tensor, image_NCHW: Tensor) -> Tensor:
    """Bilinear by 8, corners on corners (n cells to 8 n - 7 pixels), cut to the image."""
    height, width = image_NCHW.shape[-2:]
    size = [8 * side - 7 for side in score_NKHW.shape[-2:]]
    full = F.interpolate(score_NKHW.float(), size, mode="bilinear", align_corners=True)
    return full[..., :height, :width]
