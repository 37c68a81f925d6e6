"""FC-DenseNet ("Tiramisu"): Jegou, Drozdzal, Vazquez, Romero, Bengio, arXiv:1611.09326, tables 1 and 2.

As in the released code. A dense block adds `growth` maps a layer to a growing stack. On the way down the whole stack goes on;
on the way up only the new maps of a block do, so that the stack does not explode. The number of maps after each block of
FC-DenseNet103 is 112, 192, 304, 464, 656, 896, 1088, 816, 576, 384, 256 (table 2 prints some of them 16 too small; the
released code's README corrects it).

Differs from the paper: BatchNorm uses running statistics at test time; the released code uses those of the test batch.

Layers written down plainly keep copies of all maps before them, quadratically many. In training each map is kept once
(`memory`; `ops/dense_block.py`): a step at batch 2 of 224 x 224 needs a quarter of the memory, in less time
(`benchmarks/fcdensenet_memory.py`).

Trained in the paper with: RMSprop, rate 1e-3 times 0.995 an epoch, weight decay 1e-4, crops of 224, batch 3, then whole images
at 1e-4. CamVid test, table 3: mean IoU 58.9 (56), 65.8 (67), 66.9 (103).

Shapes: N batch, C channels, H height, W width of a level; K classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from intarsia.models.base import MODELS, ModelConfig, SegmentationModel
from intarsia.ops.dense_block import dense_block
from intarsia.ops.normed_conv import saves
from intarsia.ops.pad import pad_to_multiple
from intarsia.ops.transition import transition


class FCDenseNetConfig(ModelConfig):
    """Defaults are FC-DenseNet103's."""

    growth: int = Field(16, ge=1)
    """k, maps that each layer adds."""
    layers: tuple[int, ...] = (4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4)
    """Layers of each dense block: down, bottleneck, up."""
    first: int = Field(48, ge=1)
    """Maps of the first convolution."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of values dropped after each convolution of a layer and of a transition down."""
    memory: Literal["auto", "saving", "naive"] = "auto"
    """What layers keep for gradients: each map once (saving), or copies (naive; double backward needs it); auto: saving in
    training."""

    @field_validator("layers")
    @classmethod
    def _odd(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if len(layers) % 2 == 0 or min(layers, default=0) < 1:
            raise ValueError("layers must be an odd number of positive numbers: down, bottleneck, up")
        return layers

    def build(self) -> FCDenseNet:
        return FCDenseNet(self)


# preset                                                                          weights (3 channels, 11 classes)
MODELS.preset("fcdensenet56", FCDenseNetConfig(growth=12, layers=(4,) * 11))  # ...................... 1,376,795
MODELS.preset("fcdensenet67", FCDenseNetConfig(growth=16, layers=(5,) * 11))  # ...................... 3,463,243
MODELS.preset("fcdensenet103", FCDenseNetConfig())  # ................................................ 9,322,091


class FCDenseNet(SegmentationModel):
    """Dense blocks down and up; a stack of all maps on the way down, the new maps alone on the way up."""

    config: FCDenseNetConfig
    encoder_parts = ("first", "down_blocks", "downs")

    def __init__(self, config: FCDenseNetConfig) -> None:
        super().__init__(config)
        levels, growth = len(config.layers) // 2, config.growth
        down, middle, up = config.layers[:levels], config.layers[levels], config.layers[levels + 1 :]
        self.first = nn.Conv2d(config.channels, config.first, kernel_size=3, padding=1)
        self.down_blocks, self.downs = nn.ModuleList(), nn.ModuleList()
        maps, skips = config.first, []
        for count in down:
            self.down_blocks.append(DenseBlock(maps, count, config, whole=True))
            maps += count * growth
            skips.append(maps)
            self.downs.append(TransitionDown(maps, config.dropout))
        self.bottleneck = DenseBlock(maps, middle, config)
        self.ups, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        new = middle * growth
        for index, count in enumerate(up):
            self.ups.append(nn.ConvTranspose2d(new, new, kernel_size=3, stride=2))
            maps = new + skips.pop()
            self.up_blocks.append(DenseBlock(maps, count, config, whole=index == levels - 1))
            new = count * growth
        self.head = nn.Conv2d(maps + new, config.classes, kernel_size=1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.supervise(
            {f"up_blocks.{index}": (up[index] * growth, 2 ** (levels - 1 - index)) for index in range(levels - 1)}
        )

    def forward(self, image_NCHW: Tensor) -> Tensor:
        saving = self.config.memory == "saving" or (self.config.memory == "auto" and self.training)
        height, width = image_NCHW.shape[-2:]
        stride = 2 ** len(self.downs)
        stack = self.first(pad_to_multiple(image_NCHW, 1, least=2 * stride if self.training else stride))
        skips: list[Tensor] = []
        for block, down in zip(self.down_blocks, self.downs, strict=True):
            skips.append(block(stack, saving=saving))
            stack = down(skips[-1], saving=saving)
        stack = self.bottleneck(stack, saving=saving)
        for up, block in zip(self.ups, self.up_blocks, strict=True):
            skip = skips.pop()
            height_up, width_up = skip.shape[-2:]  # at most one less than 2 h + 1, so that the middle begins at 0
            stack = torch.cat((up(stack)[..., :height_up, :width_up], skip), dim=1)
            stack = block(stack, saving=saving)
        logits: Tensor = self.head(stack)
        return logits[..., :height, :width]


class DenseBlock(nn.Module):
    """Each layer sees the input and all maps before it; the block returns the new maps alone, or the whole stack."""

    def __init__(self, in_channels: int, count: int, config: FCDenseNetConfig, *, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole
        self.layers = nn.ModuleList(
            dense_layer(in_channels + index * config.growth, config.growth, config.dropout) for index in range(count)
        )

    def forward(self, stack_NCHW: Tensor, *, saving: bool = False) -> Tensor:
        if saving and saves(stack_NCHW, self.layers):
            return dense_block(stack_NCHW, self.layers, whole=self.whole)
        new: list[Tensor] = []
        for layer in self.layers:
            new.append(layer(torch.cat((stack_NCHW, *new), dim=1)))
        return torch.cat((stack_NCHW, *new) if self.whole else new, dim=1)


def dense_layer(in_channels: int, growth: int, dropout: float) -> nn.Sequential:
    """BatchNorm, ReLU, 3x3 convolution, dropout: table 1, left."""
    conv = nn.Conv2d(in_channels, growth, kernel_size=3, padding=1)
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), conv, nn.Dropout(dropout))


class TransitionDown(nn.Sequential):
    """BatchNorm, ReLU, 1x1 convolution that keeps the number of maps, dropout, 2x2 max-pooling: table 1, middle."""

    def __init__(self, maps: int, dropout: float) -> None:
        conv = nn.Conv2d(maps, maps, kernel_size=1)
        super().__init__(nn.BatchNorm2d(maps), nn.ReLU(inplace=True), conv, nn.Dropout(dropout), nn.MaxPool2d(2))

    def forward(self, stack_NCHW: Tensor, *, saving: bool = False) -> Tensor:
        if saving and saves(stack_NCHW, [self]):
            return transition(stack_NCHW, list(self))
        for part in self:
            stack_NCHW = part(stack_NCHW)
        return stack_NCHW
