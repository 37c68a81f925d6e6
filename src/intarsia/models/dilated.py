"""Dilated convolutions: Yu & Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", arXiv:1511.07122, section 4
and table 1.

The front end is VGG16 without padding and without its last two poolings; conv5 is dilated by 2 and fc6 by 4 in their stead, so
that scores stand at every eighth pixel. The context module is a stack of 3x3 convolutions with growing dilation that maps
class scores to class scores; it starts as the identity (equations 4 and 5) and can be put behind any network's logits
(`context_basic`, `context_large`, `with_context`). Behind a ReLU the identity is max(x, 0).

Differs from the paper:
- the image is padded by 186 mirrored pixels inside the model, as the released script does before the network, and at the
  bottom and right by what makes each side a multiple of 8; the logits have the image's size.
- logits, not probabilities, are up-sampled, with pixel centres where the network has them: score r is centred on pixel
  8 r + 3.5. The released labels and map for VOC, CamVid and KITTI take it for pixel 8 r.
- `dilation*` can be trained at once as well as in the paper's stages (`start_from` a run of `dilated_frontend`). The biases
  of its score layer start at 1, which no softmax sees: a pixel whose scores are all negative gives no gradient through the
  ReLU of an identity.

Trained in the paper with: SGD, momentum 0.9, batch 14, rate 1e-3, 60,000 steps (VOC front end); street scenes: crops of 628,
batch 8, rate 1e-4, momentum 0.99, then front end and context together at 1e-5. Mean IoU: VOC 2012 test 73.5 (context), CamVid
65.3 (dilation8), KITTI 59.2 (dilation7), Cityscapes 67.1 (dilation10).

Shapes: N batch, C channels, H height, W width, h and w at stride 8; K classes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, cast

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.config import Config
from intarsia.models.base import MODELS, ModelConfig, SegmentationModel, build_model
from intarsia.models.encoders.vgg import large_layer, load_vgg16, vgg16_widths, vgg_stages
from intarsia.models.plain import PlainConfig
from intarsia.models.weights import FirstLayer, imagenet_statistics, start_weights
from intarsia.ops.pad import mirror_pad
from intarsia.ops.upsample import FixedUp, bilinear_kernel

MARGIN = 186
"""Pixels that the front end loses at each border, beside the 8 that the last score stands for."""


class ContextSettings(Config):
    """Layers of a context module; defaults are table 1's Basic."""

    dilations: tuple[int, ...] = (1, 1, 2, 4, 8, 16, 1, 1)
    """Dilation of each layer; the last layer is 1x1, the others 3x3."""
    multipliers: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1, 1)
    """Channels of each layer as multiples of K; the last one is 1."""
    padding: Literal["each", "first"] = "each"
    """Zeros around the scores: each layer its dilation, or all of it before the first layer (33 in the VOC net)."""
    sigma: float = Field(0.01, ge=0)
    """Deviation of the noise around the identity in the start weights."""

    @model_validator(mode="after")
    def _layers(self) -> Self:
        if len(self.dilations) != len(self.multipliers) or min(self.dilations + self.multipliers, default=0) < 1:
            raise ValueError("dilations and multipliers must be positive numbers, as many of one as of the other")
        if self.multipliers[-1] != 1:
            raise ValueError("the last multiplier must be 1: the last layer gives one score a class")
        return self


BASIC = ContextSettings()
LARGE = ContextSettings(multipliers=(2, 2, 4, 8, 16, 32, 32, 1), padding="first")
KITTI = ContextSettings(dilations=(1, 1, 2, 4, 8, 1, 1), multipliers=(1,) * 7)
CITYSCAPES = ContextSettings(dilations=(1, 1, 2, 4, 8, 16, 32, 64, 1, 1), multipliers=(1,) * 10)


class DilatedConfig(ModelConfig):
    """The front end alone."""

    width: float = Field(1.0, gt=0)
    """Factor on VGG16's widths."""
    hidden: int = Field(4096, ge=1)
    """Channels of fc6 and fc7."""
    upscore: Literal["bilinear", "transposed"] = "bilinear"
    """From stride 8 to the image: bilinear, or the Cityscapes net's fixed transposed convolution, which has zeros outside."""
    pretrained: str = "auto"
    """Start weights: auto, none, download, or a file with torchvision's VGG16."""
    first_layer: FirstLayer = "adapt"
    """Start of the first layer where there are not 3 channels: adapt the published weights, or fresh random ones."""

    def build(self) -> Dilated:
        return Dilated(self)


class DilationConfig(DilatedConfig):
    """The front end and a context module behind its scores."""

    context: ContextSettings = LARGE
    """The context module."""

    def build(self) -> Dilated:
        return Dilated(self, self.context)


class ContextConfig(ModelConfig):
    """A context module behind the logits of another network, at their resolution."""

    front: Annotated[SerializeAsAny[ModelConfig], BeforeValidator(MODELS.resolve)] = PlainConfig(name="plain")
    """The other network; its classes and channels are the whole's, its start_from may name a trained one."""
    context: ContextSettings = BASIC
    """The context module."""

    def build(self) -> ContextNet:
        front = self.front.replace(num_classes=self.classes, in_channels=self.channels)
        return ContextNet(self, build_model(front))

    def without_start_weights(self) -> Self:
        return super().without_start_weights().replace(front=self.front.without_start_weights())


# preset                                                                          weights (3 channels, K classes)
MODELS.preset("dilated_frontend", DilatedConfig())  # ........................................ 134,346,581 (21)
MODELS.preset("dilation8", DilationConfig())  # .............................................. 141,149,720 (21)
MODELS.preset("dilation8_camvid", DilationConfig(context=BASIC))  # .......................... 134,313,443 (11)
MODELS.preset("dilation7_kitti", DilationConfig(context=KITTI))  # ........................... 134,312,343 (11)
DILATION10 = DilationConfig(context=CITYSCAPES, upscore="transposed")
MODELS.preset("dilation10_cityscapes", DILATION10)  # ........................................ 134,368,179 (19)
MODELS.preset("context_basic", ContextConfig())  # ........................................ front + 28,392 (21)
MODELS.preset("context_large", ContextConfig(context=LARGE))  # ........................ front + 6,803,139 (21)


class Dilated(SegmentationModel):
    """Scores at every eighth pixel, perhaps their context, and up again."""

    config: DilatedConfig
    encoder_parts = ("stages", "fc6", "fc7")

    def __init__(self, config: DilatedConfig, context: ContextSettings | None = None) -> None:
        super().__init__(config)
        widths = vgg16_widths(config.width)
        deepest, hidden = widths[-1][-1], config.hidden
        self.stages = vgg_stages(config.channels, widths, paddings=(0,) * 5, dilations=(1, 1, 1, 1, 2))
        self.pool = nn.MaxPool2d(2)
        self.fc6 = large_layer(deepest, hidden, 7, dilation=4)
        self.fc7 = large_layer(hidden, hidden, 1)
        self.score = nn.Conv2d(hidden, config.classes, kernel_size=1)
        nn.init.normal_(self.score.weight, std=0.001)
        nn.init.constant_(self.score.bias, 1.0 if context else 0.0)  # type: ignore[arg-type]
        self.context = ContextModule(config.classes, context) if context else nn.Identity()
        self.upscore = (
            BilinearUp(config.classes)
            if config.upscore == "transposed"
            else FixedUp("bilinear", config.classes, config.classes, 8)
        )
        fits = config.width == 1 and hidden == 4096
        state, self.start = start_weights("vgg16", config.pretrained, fits=fits)
        if state is not None:
            load_vgg16(state, self.stages, (self.fc6, self.fc7), first_layer=config.first_layer)
            self.mean, self.std = imagenet_statistics(config.channels)
        self.auxiliary_origin = 0 if context else 8 * 12  # conv5 has 12 more scores than the image at each border
        self.supervise({"score": (config.classes, 8)} if context else {"stages.4": (deepest, 8)})

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        down, right = ((side + 7) // 8 * 8 - side for side in (height, width))
        padded = mirror_pad(image_NCHW, MARGIN, MARGIN + down, MARGIN, MARGIN + right)
        logits: Tensor = self.upscore(self.context(self.scores(padded)))
        return logits[..., :height, :width]

    def scores(self, padded_NCHW: Tensor) -> Tensor:
        """(N, K, h, w) of the front end for an image that has its margin: h = (H - 372) / 8, 900 gives 66."""
        x = padded_NCHW
        for index, stage in enumerate(self.stages):
            x = self.pool(stage(x)) if index < 3 else stage(x)
        scores_NKhw: Tensor = self.score(self.fc7(self.fc6(x)))
        return scores_NKhw


class ContextNet(SegmentationModel):
    """Any network, and the context of its logits."""

    config: ContextConfig
    encoder_parts = ("front",)

    def __init__(self, config: ContextConfig, front: SegmentationModel) -> None:
        super().__init__(config)
        self.front = front
        self.context = ContextModule(config.classes, config.context)
        self.mean, self.std, self.start = front.mean, front.std, front.start
        self.supervise({"front": (config.classes, 1)})

    def forward(self, image_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.context(self.front(image_NCHW))
        return logits

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        return self.front.output_size(height, width)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        return self.front.input_size(height, width)

    def sample_size(self, height: int, width: int) -> tuple[int, int]:
        return self.front.sample_size(height, width)


def with_context(model: SegmentationModel, kind: Literal["basic", "large"] = "basic") -> ContextNet:
    """The model, trained or not, with a context module behind its logits; `freeze("front")` trains the module alone.

    Args:
        model: any network; it becomes the part called front, and is not copied.
        kind: table 1's Basic or Large.
    """
    config = cast(ContextConfig, MODELS[f"context_{kind}"]).replace(
        front=model.config, num_classes=model.config.classes, in_channels=model.config.channels
    )
    return ContextNet(config, model)


class ContextModule(nn.Sequential):
    """Table 1: 3x3 convolutions with ReLU and a last one of 1x1, from K scores to K scores of the same size."""

    def __init__(self, num_classes: int, settings: ContextSettings = BASIC) -> None:
        layers: list[nn.Module] = []
        channels, last = num_classes, len(settings.dilations) - 1
        for index, (dilation, multiplier) in enumerate(zip(settings.dilations, settings.multipliers, strict=True)):
            padding = dilation if settings.padding == "each" else sum(settings.dilations[:-1]) if index == 0 else 0
            if index == last:
                conv = nn.Conv2d(channels, num_classes, kernel_size=1)
            else:
                conv = nn.Conv2d(channels, num_classes * multiplier, 3, dilation=dilation, padding=padding)
            start_identity(conv, num_classes, settings.sigma)
            layers += [conv] if index == last else [conv, nn.ReLU(inplace=True)]
            channels = num_classes * multiplier
        super().__init__(*layers)


@torch.no_grad()
def start_identity(conv: nn.Conv2d, num_classes: int, sigma: float) -> None:
    """Equation 5, with c_i and c_{i+1} channels in and out, C classes: the kernel of output b and input a at offset t is
    C / c_{i+1} if t = 0 and floor(a C / c_i) = floor(b C / c_{i+1}), N(0, sigma²) elsewhere. Biases are zero.

    With as many channels as classes and sigma = 0 it is equation 4, the identity.
    """
    inputs, outputs = conv.in_channels, conv.out_channels
    class_of_input = torch.arange(inputs, device=conv.weight.device) * num_classes // inputs
    class_of_output = torch.arange(outputs, device=conv.weight.device) * num_classes // outputs
    same = class_of_output[:, None] == class_of_input
    conv.weight.normal_(0, sigma)
    middle = conv.kernel_size[0] // 2
    conv.weight[:, :, middle, middle].masked_fill_(same, num_classes / outputs)
    assert conv.bias is not None
    conv.bias.zero_()


class BilinearUp(nn.Module):
    """Eight times larger by a transposed convolution (kernel 16, stride 8, padding 4) a class whose weights are fixed."""

    kernel: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("kernel", bilinear_kernel(16).repeat(num_classes, 1, 1, 1), persistent=False)

    def forward(self, x_NKhw: Tensor) -> Tensor:
        return F.conv_transpose2d(x_NKhw, self.kernel, stride=8, padding=4, groups=self.num_classes)
