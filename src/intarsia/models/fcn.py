"""FCN: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", arXiv:1411.4038, figure 3, table 1.

As in the released nets: the classifier's fully connected layers become convolutions, the image is padded by 100 in the first
convolution, poolings round up, scores start at zero, and coarse scores are up-sampled by bilinear transposed convolutions,
added to the cropped scores of finer layers and cropped to the image.

    net    finest score    up-sampling                                         crop of the skips        last crop
    32s    fc7             64 / 32                                             -                        19
    16s    pool4           4 / 2, then 32 / 16                                 5                        27
    8s     pool3           4 / 2, 4 / 2, then 16 / 8                           5, 9                     31
    AlexNet-32s            63 / 32                                             -                        18

`fcn8s_atonce_vgg16` scales pool4 by 0.01 and pool3 by 0.0001 before their scores, so that all can be trained at once. A finer
net starts from a coarser one by name: `model.start_from=RUN`. `fcn` puts the same idea on any timm encoder: 1x1 scores of the
three coarsest strides, summed; `fcn_resnet50` and `fcn_resnet101` are torchvision's variant (one score at stride 8).

Differs from the paper: RGB with ImageNet statistics (torchvision's weights) instead of BGR minus its mean. Of a fixed upscore
only the channel diagonal is computed, which holds all that is not zero. The paper learns the intermediate upscores, the
released nets fix all of them: `learned`.

Trained in the paper with: SGD, momentum 0.9, rate 1e-4 (VGG16), batch 20, at least 175 epochs; the released nets: one image a
step, loss summed over pixels, momentum 0.99, rate 1e-10 (32s), 1e-12 (16s), 1e-14 (8s), weight decay 5e-4, 100,000 steps
each, every finer net from the coarser one. VOC 2011 validation (736 images), table 3: mean IU 59.4 (32s), 62.4, 62.7 (8s).

Shapes: N batch, C channels, H height, W width; K classes.
"""

from __future__ import annotations

from typing import Literal, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.errors import ConfigError
from intarsia.models.base import MODELS, ModelConfig, SegmentationModel, resize_logits
from intarsia.models.encoders.alexnet import alexnet_trunk, load_alexnet2014
from intarsia.models.encoders.timm import TimmEncoder
from intarsia.models.encoders.vgg import large_layer, load_vgg16, scaled, vgg16_widths, vgg_stages
from intarsia.models.weights import FirstLayer, imagenet_statistics, load_coco, start_weights
from intarsia.ops.conv import conv_norm_relu
from intarsia.ops.pad import pad_to_multiple
from intarsia.ops.upsample import start_bilinear


class FCNConfig(ModelConfig):
    """Defaults are FCN-8s on VGG16, as released."""

    trunk: Literal["vgg16", "alexnet", "alexnet2014"] = "vgg16"
    """The classifier that is made convolutional; alexnet2014 is the single-tower AlexNet of arXiv:1404.5997."""
    stride: Literal[8, 16, 32] = 8
    """Stride of the finest layer that is scored: 32 (fc7), 16 (and pool4), 8 (and pool3); AlexNet has 32 alone."""
    at_once: bool = False
    """Scale pool4 by 0.01 and pool3 by 0.0001 in front of their scores, to train all of it from the classifier."""
    learned: Literal["none", "intermediate", "all"] = "none"
    """Which bilinear upscores are trained: none (released nets), intermediate (the paper), or all."""
    width: float = Field(1.0, gt=0, le=4)
    """Factor on the trunk's channels."""
    hidden: int = Field(4096, ge=1)
    """Channels of fc6 and fc7."""
    pretrained: str = "auto"
    """Start weights of the trunk, fc6 and fc7: auto, none, download, or a file; auto says what it found."""
    first_layer: FirstLayer = "adapt"
    """Published weights for other than 3 channels: adapt (1: summed; n: copies, scaled), or fresh (drawn anew)."""

    def build(self) -> FCN:
        if self.trunk != "vgg16" and (self.stride != 32 or self.at_once):
            raise ConfigError(f"model.stride: AlexNet has stride 32 alone, got {self.stride}.")
        return FCN(self)


# preset                                                                               weights (3 channels, 21 classes)
MODELS.preset("fcn32s_alexnet", FCNConfig(trunk="alexnet", stride=32))  # .................................. 58,704,590
MODELS.preset("fcn32s_vgg16", FCNConfig(stride=32))  # .................................................... 136,152,917
MODELS.preset("fcn16s_vgg16", FCNConfig(stride=16))  # .................................................... 134,815,994
MODELS.preset("fcn8s_vgg16", FCNConfig(stride=8))  # ...................................................... 134,489,759
MODELS.preset("fcn8s_atonce_vgg16", FCNConfig(stride=8, at_once=True))  # ................................. 134,489,759


class FCN(SegmentationModel):
    """A classifier slid over the image, its coarse scores refined by those of finer layers."""

    config: FCNConfig

    def __init__(self, config: FCNConfig) -> None:
        super().__init__(config)
        classes, vgg = config.classes, config.trunk == "vgg16"
        self.encoder_parts = ("stages",) if vgg else ("trunk",)
        if vgg:
            widths = vgg16_widths(config.width)
            self.stages = vgg_stages(config.channels, widths, first_padding=100)
            top = widths[-1][-1]
        else:
            self.trunk = alexnet_trunk(config.trunk, config.channels, width=config.width, first_padding=100)
            top = next(m for m in reversed(self.trunk) if isinstance(m, nn.Conv2d)).out_channels
        self.fc6 = large_layer(top, config.hidden, 7 if vgg else 6)
        self.fc7 = large_layer(config.hidden, config.hidden, 1)
        self.score_fr = zero_score(config.hidden, classes)
        inner = config.learned != "none"
        last = config.learned == "all"
        if config.stride <= 16:
            self.upscore2 = UpScore(classes, 4, 2, learned=inner)
            self.score_pool4 = zero_score(scaled(512, config.width), classes)
        if config.stride == 8:
            self.upscore_pool4 = UpScore(classes, 4, 2, learned=inner)
            self.score_pool3 = zero_score(scaled(256, config.width), classes)
            self.upscore8 = UpScore(classes, 16, 8, learned=last)
        elif config.stride == 16:
            self.upscore16 = UpScore(classes, 32, 16, learned=last)
        else:
            self.upscore = UpScore(classes, 64 if vgg else 63, 32, learned=last)
        self._start()
        self.auxiliary_origin = 99 if vgg else 90
        taps = {"stages.3": (scaled(512, config.width), 8), "stages.4": (scaled(512, config.width), 16)}
        self.supervise(taps if vgg else {f"trunk.{len(self.trunk) - 2}": (top, 16)})

    def forward(self, image_NCHW: Tensor) -> Tensor:
        size = (image_NCHW.shape[-2], image_NCHW.shape[-1])
        pool3, pool4, x = self._trunk(image_NCHW)
        score = self.score_fr(self.fc7(self.fc6(x)))
        if self.config.stride == 32:
            return crop(self.upscore(score), 19 if self.config.trunk == "vgg16" else 18, size)
        pool4, pool3 = (0.01 * pool4, 0.0001 * pool3) if self.config.at_once else (pool4, pool3)
        score = self.upscore2(score)
        score = score + crop(self.score_pool4(pool4), 5, (score.shape[-2], score.shape[-1]))
        if self.config.stride == 16:
            return crop(self.upscore16(score), 27, size)
        score = self.upscore_pool4(score)
        score = score + crop(self.score_pool3(pool3), 9, (score.shape[-2], score.shape[-1]))
        return crop(self.upscore8(score), 31, size)

    def _trunk(self, image_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pool3, pool4 and pool5; AlexNet's pool5 thrice."""
        if self.config.trunk != "vgg16":
            return (self.trunk(image_NCHW),) * 3
        x, pools = image_NCHW, []
        for stage in self.stages:
            x = F.max_pool2d(stage(x), 2, 2, ceil_mode=True)
            pools.append(x)
        return pools[2], pools[3], pools[4]

    def _start(self) -> None:
        config = self.config
        if config.trunk == "alexnet":
            if config.pretrained not in ("auto", "none"):
                raise ConfigError(
                    "model.pretrained: no address publishes the 2012 AlexNet but in Caffe's format. "
                    "Set model.trunk=alexnet2014, whose weights torchvision publishes."
                )
            return
        fits = config.width == 1 and config.hidden == 4096
        state, self.start = start_weights(config.trunk, config.pretrained, fits=fits)
        if state is None:
            return
        if config.trunk == "vgg16":
            load_vgg16(state, self.stages, (self.fc6, self.fc7), first_layer=config.first_layer)
        else:
            load_alexnet2014(state, self.trunk, (self.fc6, self.fc7), first_layer=config.first_layer)
        self.mean, self.std = imagenet_statistics(config.channels)


class UpScore(nn.Module):
    """A transposed convolution of all classes with all, bilinear at the start: weight (K, K, k, k), off-diagonal zero."""

    def __init__(self, classes: int, kernel: int, stride: int, *, learned: bool) -> None:
        super().__init__()
        conv = nn.ConvTranspose2d(classes, classes, kernel, stride, bias=False)
        start_bilinear(conv)
        self.weight = conv.weight.requires_grad_(learned)
        self.stride, self.learned = stride, learned

    def forward(self, score_NKHW: Tensor) -> Tensor:
        if self.learned:
            return F.conv_transpose2d(score_NKHW, self.weight, stride=self.stride)
        diagonal = self.weight.diagonal(dim1=0, dim2=1).permute(2, 0, 1).unsqueeze(1)
        return F.conv_transpose2d(score_NKHW, diagonal, stride=self.stride, groups=self.weight.shape[0])


def zero_score(in_channels: int, classes: int) -> nn.Conv2d:
    """A 1x1 convolution that starts at zero, so that a new skip changes nothing at first."""
    conv = nn.Conv2d(in_channels, classes, kernel_size=1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(cast(Tensor, conv.bias))
    return conv


def crop(x_NKHW: Tensor, offset: int, size: tuple[int, int]) -> Tensor:
    """`size` from row and column `offset` on, as Caffe's Crop layer does."""
    return x_NKHW[..., offset : offset + size[0], offset : offset + size[1]]


class EncoderFCNConfig(ModelConfig):
    """Skips of FCN on any encoder."""

    encoder: str = "tf_efficientnet_lite0"
    """Any timm network with features_only."""
    pretrained: str = "auto"
    """Start weights of the encoder: auto, none, hub, package or a file; coco: the whole net as torchvision publishes it (for
    resnet50 and resnet101), the scores too if there are 21 classes."""
    first_layer: FirstLayer = "adapt"
    """Published weights for other than 3 channels: adapt (1: summed; n: copies, scaled), or fresh (drawn anew)."""
    levels: int = Field(3, ge=1, le=5)
    """Strides that are scored and summed, from the coarsest on: 1 as FCN-32s, 2 as 16s, 3 as 8s."""
    output_stride: Literal[8, 16, 32] = 32
    """Coarsest stride of the encoder; below 32 its last stages are dilated instead."""
    hidden: int = Field(0, ge=0)
    """Channels of a 3x3 convolution in front of the coarsest score; 0: none."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of values dropped behind that convolution."""

    def build(self) -> EncoderFCN:
        return EncoderFCN(self)


TORCHVISION = EncoderFCNConfig(levels=1, output_stride=8, hidden=512)
# preset                                                                               weights (3 channels, 21 classes)
MODELS.preset("fcn", EncoderFCNConfig())  # ................................................................. 2,968,823
MODELS.preset("fcn_resnet50", TORCHVISION.replace(encoder="resnet50"))  # .................................. 32,957,013
MODELS.preset("fcn_resnet101", TORCHVISION.replace(encoder="resnet101"))  # ................................ 51,949,141


class EncoderFCN(SegmentationModel):
    """Scores of the encoder's coarsest strides, each brought to the next finer one and added."""

    config: EncoderFCNConfig

    def __init__(self, config: EncoderFCNConfig) -> None:
        super().__init__(config)
        self.encoder = TimmEncoder(
            config.encoder,
            in_channels=config.channels,
            pretrained="none" if config.pretrained == "coco" else config.pretrained,
            output_stride=config.output_stride,
            first_layer=config.first_layer,
        )
        self.mean, self.std, self.start = self.encoder.mean, self.encoder.std, self.encoder.start
        widths = list(reversed(self.encoder.channels))
        strides = list(reversed(self.encoder.strides))
        self.hidden = nn.Sequential()
        if config.hidden:
            self.hidden = nn.Sequential(*conv_norm_relu(widths[0], config.hidden), nn.Dropout(config.dropout))
        top = config.hidden or widths[0]
        levels = min(config.levels, len(widths))
        self.scores = nn.ModuleList(
            nn.Conv2d(top if level == 0 else widths[level], config.classes, kernel_size=1) for level in range(levels)
        )
        self.middle = nn.Identity()
        finer = {f"scores.{level}": (config.classes, strides[level]) for level in range(1, levels)}
        self.supervise(finer or {"middle": (widths[1], strides[1])})
        if config.pretrained == "coco":
            self.start = load_coco(self, f"fcn_{config.encoder}", ("scores.",), first_layer=config.first_layer)
            self.mean, self.std = imagenet_statistics(config.channels)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        stride = max(self.encoder.strides)
        padded = pad_to_multiple(image_NCHW, stride, least=2 * stride if self.training else stride)
        features = self.encoder(padded)
        self.middle(features[-2])
        logits: Tensor = self.scores[0](self.hidden(features[-1]))
        for score, feature in zip(self.scores[1:], reversed(features[:-1]), strict=False):
            logits = resize_logits(logits, (feature.shape[-2], feature.shape[-1])) + score(feature)
        return resize_logits(logits, (padded.shape[-2], padded.shape[-1]))[..., :height, :width]
