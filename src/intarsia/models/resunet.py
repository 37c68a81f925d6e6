"""Residual U-Net: Drozdzal, Vorontsov, Chartrand, Kadoury, Pal, "The Importance of Skip Connections in Biomedical Image
Segmentation", arXiv:1608.04117, figure 1 and the table of layers.

Short skips go around each block, long skips from the way down to the way up; both are added. Every convolution is preceded by
BatchNorm and ReLU, nothing follows the additions. Where the paper is silent, as in the authors' later code, fcn_maker: the
last 3x3 convolution stands behind the topmost long skip, and a long skip is met by a 1x1 convolution of the decoder's maps
where the widths differ.

Differs from the paper:
- start weights are normal (He), not truncated normal; BatchNorm's epsilon is 1e-5, Keras' is 1e-3.
- K logits without the sigmoid. One of K = 1 gives the paper's 11 M weights: 11,451,745 for one channel.
- fcn_maker's own examples set `init_blocks=2`, one halving more; the table has one.

Trained by the authors with: RMSprop, rate 1e-3, divided by 10 every 200 epochs, 500 epochs, soft Dice loss, images of 512 x 512
standardised one by one, rotation to 25 degrees, shear 0.41, flips.

Shapes: N batch, C channels, H height, W width of a level; K classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from intarsia.models.base import MODELS, ModelConfig, SegmentationModel
from intarsia.ops.conv import start_he
from intarsia.ops.norm import Norm, make_norm
from intarsia.ops.pad import pad_to_multiple
from intarsia.ops.upsample import FixedUp, nearest

Block = Literal["bottleneck", "basic", "simple"]


class ResUNetConfig(ModelConfig):
    """Defaults are the paper's table."""

    width: int = Field(32, ge=1)
    """f0, channels at full resolution; doubled at each level below the first main one, and times 4 in a bottleneck."""
    depths: tuple[int, ...] = (3, 8, 10, 3, 10, 8, 3)
    """Blocks of each main stage: down, across, up."""
    init_blocks: int = Field(1, ge=0, le=4)
    """Stages of one simple block above the main ones, on both sides; each halves the resolution."""
    block: Block = "bottleneck"
    """Block of the main stages: bottleneck (1x1, 3x3, 1x1), basic (3x3, 3x3) or simple (3x3)."""
    short: bool = True
    """Short skips: the input of each block is added to its output."""
    skip: Literal["sum", "concat", "none"] = "sum"
    """Long skips, from the way down to the way up."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of values dropped in each block, as in the authors' example."""
    norm: Norm = "batch"
    """Normalisation before each ReLU."""

    @field_validator("depths")
    @classmethod
    def _odd(cls, depths: tuple[int, ...]) -> tuple[int, ...]:
        if len(depths) % 2 == 0 or min(depths, default=0) < 1:
            raise ValueError("depths must be an odd number of positive numbers: down, across, up")
        return depths

    def build(self) -> ResUNet:
        return ResUNet(self)


# preset                                                                                 weights (1 channel, 1 class)
MODELS.preset("resunet", ResUNetConfig())  # ............................................................. 11,451,745


class ResUNet(SegmentationModel):
    """Residual stages down and up; what the way down saw is added on the way up."""

    config: ResUNetConfig
    encoder_parts = ("first", "down")

    def __init__(self, config: ResUNetConfig) -> None:
        super().__init__(config)
        mains = len(config.depths) // 2
        kinds: list[Block] = ["simple" if level < 0 else config.block for level in range(-config.init_blocks, mains)]
        widths = [config.width] * config.init_blocks + [config.width * 2**level for level in range(mains)]
        depths_down = [1] * config.init_blocks + list(config.depths[:mains])
        depths_up = list(config.depths[mains + 1 :]) + [1] * config.init_blocks
        self.stride = 2 ** (len(kinds) + 1)
        self.first = nn.Conv2d(config.channels, config.width, kernel_size=3, padding=1)
        self.down = nn.ModuleList()
        skips = [config.width]
        for kind, width, depth in zip(kinds, widths, depths_down, strict=True):
            self.down.append(Stage(kind, skips[-1], width, depth, config, down=True))
            skips.append(out_channels(kind, width))
        self.across = Stage(
            config.block, skips[-1], config.width * 2**mains, config.depths[mains], config, down=True, up=True
        )
        channels = out_channels(config.block, config.width * 2**mains)
        self.merge, self.up = nn.ModuleList(), nn.ModuleList()
        taps = {}
        for kind, width, depth in zip(kinds[::-1], widths[::-1], depths_up, strict=True):
            merge = LongSkip(channels, skips.pop(), config.skip)
            self.merge.append(merge)
            self.up.append(Stage(kind, merge.out_channels, width, depth, config, up=True))
            channels = out_channels(kind, width)
            taps[f"up.{len(self.up) - 1}"] = (channels, self.stride // 2 ** (len(self.up) + 1))
        self.topmost = LongSkip(channels, skips.pop(), config.skip)
        self.last = norm_relu_conv(self.topmost.out_channels, config.width, 3, config)
        self.head = nn.Conv2d(config.width, config.classes, kernel_size=1)
        self.apply(start_he)
        self.supervise(taps)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        x = self.first(pad_to_multiple(image_NCHW, self.stride, least=2 * self.stride if self.training else 0))
        skips: list[Tensor] = []
        for stage in self.down:
            skips.append(x)
            x = stage(x)
        skips.append(x)
        x = self.across(x)
        for merge, stage in zip(self.merge, self.up, strict=True):
            x = stage(merge(x, skips.pop()))
        logits: Tensor = self.head(self.last(self.topmost(x, skips.pop())))
        return logits[..., :height, :width]


class Stage(nn.Sequential):
    """Blocks of one width; the first one halves the resolution, the last one doubles it, if asked for."""

    def __init__(
        self,
        kind: Block,
        in_channels: int,
        width: int,
        depth: int,
        config: ResUNetConfig,
        *,
        down: bool = False,
        up: bool = False,
    ) -> None:
        blocks: list[nn.Module] = []
        for index in range(depth):
            first, last = index == 0, index == depth - 1
            blocks.append(ResidualBlock(kind, in_channels, width, config, down=down and first, up=up and last))
            in_channels = out_channels(kind, width)
        super().__init__(*blocks)


class ResidualBlock(nn.Module):
    """A block and, around it, its short skip: every other pixel, or each pixel four times, or a 1x1 convolution if need be."""

    def __init__(
        self, kind: Block, in_channels: int, width: int, config: ResUNetConfig, *, down: bool, up: bool
    ) -> None:
        super().__init__()
        self.down, self.up = down, up
        self.body = {"bottleneck": bottleneck, "basic": basic, "simple": simple}[kind](
            in_channels, width, config, down=down, up=up
        )
        self.short = config.short
        self.project: nn.Module = nn.Identity()
        if config.short and in_channels != out_channels(kind, width):
            self.project = nn.Conv2d(in_channels, out_channels(kind, width), kernel_size=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        out: Tensor = self.body(x_NCHW)
        if not self.short:
            return out
        if self.down:
            x_NCHW = x_NCHW[..., ::2, ::2]
        if self.up:
            x_NCHW = nearest(x_NCHW, 2)
        shortcut: Tensor = self.project(x_NCHW)
        return out + shortcut


class LongSkip(nn.Module):
    """The decoder's maps and the encoder's: their sum (brought to the encoder's width first), side by side, or the first."""

    def __init__(self, channels: int, skip_channels: int, how: Literal["sum", "concat", "none"]) -> None:
        super().__init__()
        self.how = how
        self.out_channels = {"sum": skip_channels, "concat": channels + skip_channels, "none": channels}[how]
        self.project: nn.Module = nn.Identity()
        if how == "sum" and channels != skip_channels:
            self.project = nn.Conv2d(channels, skip_channels, kernel_size=1)

    def forward(self, x_NCHW: Tensor, skip_NCHW: Tensor) -> Tensor:
        if self.how == "none":
            return x_NCHW
        projected: Tensor = self.project(x_NCHW)
        return skip_NCHW + projected if self.how == "sum" else torch.cat((projected, skip_NCHW), dim=1)


def bottleneck(in_channels: int, width: int, config: ResUNetConfig, *, down: bool, up: bool) -> nn.Sequential:
    """1x1 (stride 2 on the way down), 3x3, 1x1 to four times the width (behind the doubling on the way up)."""
    return nn.Sequential(
        norm_relu_conv(in_channels, width, 1, config, stride=2 if down else 1),
        norm_relu_conv(width, width, 3, config),
        norm_relu_conv(width, 4 * width, 1, config, up=up),
        nn.Dropout(config.dropout),
    )


def basic(in_channels: int, width: int, config: ResUNetConfig, *, down: bool, up: bool) -> nn.Sequential:
    """3x3 (stride 2 on the way down), dropout, 3x3 (behind the doubling on the way up)."""
    return nn.Sequential(
        norm_relu_conv(in_channels, width, 3, config, stride=2 if down else 1),
        nn.Dropout(config.dropout),
        norm_relu_conv(width, width, 3, config, up=up),
    )


def simple(in_channels: int, width: int, config: ResUNetConfig, *, down: bool, up: bool) -> nn.Sequential:
    """2x2 max-pooling on the way down, one 3x3, dropout, doubling on the way up."""
    layers: list[nn.Module] = [make_norm(config.norm, in_channels), nn.ReLU()]
    layers += [nn.MaxPool2d(2)] if down else []
    layers += [nn.Conv2d(in_channels, width, kernel_size=3, padding=1), nn.Dropout(config.dropout)]
    layers += [FixedUp("nearest", width, width)] if up else []
    return nn.Sequential(*layers)


def norm_relu_conv(
    in_channels: int, width: int, kernel: int, config: ResUNetConfig, *, stride: int = 1, up: bool = False
) -> nn.Sequential:
    """Normalisation, ReLU, doubling (nearest) if asked for, convolution with biases."""
    layers: list[nn.Module] = [make_norm(config.norm, in_channels), nn.ReLU()]
    layers += [FixedUp("nearest", in_channels, in_channels)] if up else []
    layers.append(nn.Conv2d(in_channels, width, kernel, stride=stride, padding=kernel // 2))
    return nn.Sequential(*layers)


def out_channels(kind: Block, width: int) -> int:
    """Channels behind a block of a width."""
    return 4 * width if kind == "bottleneck" else width
