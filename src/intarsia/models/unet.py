"""U-Net: Ronneberger, Fischer, Brox, "Convolutional Networks for Biomedical Image Segmentation", arXiv:1505.04597, figure 1.

    level  sizes at an input of 572        channels    up: cropped skip       sizes        channels
    d0     570 568 -> pool 284             64          u0: 568 -> 392 (88)    390 388      64 -> 1x1 -> K
    d1     282 280 -> pool 140             128         u1: 280 -> 200 (40)    198 196      128
    d2     138 136 -> pool 68              256         u2: 136 -> 104 (16)    102 100      256
    d3     66 64 (dropout) -> pool 32      512         u3: 64 -> 56 (4)       54 52        512
    d4     30 28 (dropout)                 1024

Differs from the paper, unless set otherwise:
- `unet` differs in nothing that figure 1 shows: valid 3x3 convolutions, ReLU, 2x2 max pooling, 2x2 up-convolutions that
  halve the channels, cropped and concatenated skips (the up-sampled maps first), dropout at the end of the contracting path.
  No ReLU after the up-convolutions: the figure shows none.
- `unet_released` follows the released Caffe net: ReLU after the up-convolutions, the last of which keeps 128 channels.
- `unet_bn` normalises after each 3x3 convolution, biases kept.
- `unet_same` pads every convolution, so that the logits have the image's size, and normalises without biases.
- up, down and skip exchange an operator with everything else equal; the paper's are transposed, max, concat.

Trained in the paper with: SGD, momentum 0.99, one tile a step, cross-entropy with a weight map that parts touching cells
(section 3), elastic deformation; rate and number of steps are not given. ISBI 2012: warping error 0.000353 (table 1); ISBI
2015 tracking: IoU 0.9203 (PhC-U373) and 0.7756 (DIC-HeLa), table 2.

Shapes: N batch, C channels, H height, W width of a level; K classes.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from intarsia.errors import ConfigError
from intarsia.models.base import MODELS, ModelConfig, SegmentationModel
from intarsia.ops.downsample import Down, make_down
from intarsia.ops.norm import Norm, make_norm
from intarsia.ops.pad import center_crop, pad_to_multiple
from intarsia.ops.unpool import Unpool, pool_with_indices
from intarsia.ops.upsample import SubPixelConv, Up, make_up, start_icnr

Skip = Literal["concat", "sum", "none"]


class UNetConfig(ModelConfig):
    """Defaults are the paper's."""

    padding: Literal["valid", "same"] = "valid"
    """valid: convolutions lose their border, 572 gives 388; same: logits of the image's size, for images of any size."""
    width: int = Field(64, ge=1)
    """Channels at full resolution; doubled at each level down."""
    depth: int = Field(4, ge=1, le=8)
    """Number of poolings: the image side shrinks by 2 to this power."""
    norm: Norm = "none"
    """Normalisation after each 3x3 convolution: none (the paper), batch, instance, group or layer."""
    bias: bool = False
    """Convolutions keep their bias in front of a normalisation; without one they always have it."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of values dropped at the end of the contracting path (the two deepest levels)."""
    down: Down = "max"
    """How a level down is made: max, average, strided (a convolution), or none: full resolution, dilated convolutions."""
    up: Up | Literal["unpool"] = "transposed"
    """How a level up is made: transposed (the paper's up-convolution), nearest, nails, bilinear, resize, subpixel, or unpool
    (to where each maximum was). Ignored if down is none."""
    skip: Skip = "concat"
    """What is done with the maps of the contracting path: concat, sum, or none (they are not used)."""
    released: bool = False
    """The released net's details: ReLU after each up-convolution, the last of which keeps the channels."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.down == "none" and self.padding == "valid":
            raise ValueError("down=none needs padding=same")
        if self.up == "unpool" and (self.down, self.padding) != ("max", "same"):
            raise ValueError("up=unpool needs padding=same and down=max, whose indices it uses")
        if self.released and (self.down, self.up, self.skip) != ("max", "transposed", "concat"):
            raise ValueError("released needs down=max, up=transposed and skip=concat")
        return self

    def build(self) -> UNet:
        return UNet(self)


# preset                                                                               weights (1 channel, 2 classes)
MODELS.preset("unet", UNetConfig())  # ................................................................... 31,030,658
MODELS.preset("unet_released", UNetConfig(released=True))  # ............................................. 31,100,354
MODELS.preset("unet_bn", UNetConfig(norm="batch", bias=True))  # ......................................... 31,042,434
MODELS.preset("unet_same", UNetConfig(padding="same", norm="batch", dropout=0.0))  # ..................... 31,036,546


class UNet(SegmentationModel):
    """The contracting path keeps what it saw; the expanding path takes it up again."""

    config: UNetConfig
    encoder_parts = ("down", "pools")

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.remembers_maxima = config.up == "unpool"
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        self.down, self.pools = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            dropout = config.dropout if level >= config.depth - 1 else 0.0
            before = widths[level - 1] if level else config.channels
            self.down.append(double_conv(before, width, config, dropout, self._dilation(level)))
            self.pools.append(make_down(config.down, width) if level < config.depth else nn.Identity())
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for level, width in reversed(list(enumerate(widths[:-1]))):
            up_width = 2 * width if config.released and level == 0 else width
            self.up.append(up_step(2 * width, up_width, config))
            joined = up_width + width if config.skip == "concat" else up_width
            self.merge.append(double_conv(joined, width, config, 0.0, self._dilation(level)))
        self.head = nn.Conv2d(widths[0], config.classes, kernel_size=1)
        self.apply(start_normal)
        for module in self.modules():
            if isinstance(module, SubPixelConv):
                start_icnr(module.conv, module.factor)
        self.auxiliary_origin = 0 if config.padding == "same" else None
        strides = [1 if config.down == "none" else 2**level for level in range(config.depth)]
        self.supervise({f"merge.{config.depth - 1 - k}": (widths[k], strides[k]) for k in range(1, config.depth)})

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        x, places = self._checked(image_NCHW), []
        skips: list[Tensor] = []
        for encode, pool in zip(self.down[:-1], self.pools, strict=False):
            skips.append(encode(x))
            if self.config.up == "unpool":
                x, where = pool_with_indices(skips[-1])
                places.append((where, (skips[-1].shape[-2], skips[-1].shape[-1])))
            else:
                x = pool(skips[-1])
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x, *places.pop()) if places else up(x)
            x = merge(join(x, skips.pop(), self.config.skip))
        logits: Tensor = self.head(x)
        return logits[..., :height, :width] if self.config.padding == "same" else logits

    def _dilation(self, level: int) -> int:
        return 2**level if self.config.down == "none" else 1

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
            if isinstance(size, int) and (size < least or (size - least) % step):  # not fixed in an export
                raise ConfigError(
                    f"{self.config.name or 'unet'} with padding=valid takes sides {least}, {least + step}, "
                    f"{least + 2 * step}, ..., got {tuple(image_NCHW.shape[-2:])}. Pad the image, or use unet_same."
                )
        return image_NCHW


def double_conv(in_channels: int, width: int, config: UNetConfig, dropout: float, dilation: int = 1) -> nn.Sequential:
    """Two 3x3 convolutions, each with its normalisation and ReLU."""
    padding = dilation if config.padding == "same" else 0
    bias = config.bias or config.norm == "none"
    layers: list[nn.Module] = []
    for channels in (in_channels, width):
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=padding, dilation=dilation, bias=bias))
        if config.norm != "none":
            layers.append(make_norm(config.norm, width))
        layers.append(nn.ReLU(inplace=True))
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def up_step(in_channels: int, width: int, config: UNetConfig) -> nn.Module:
    """One level up: twice the resolution (the same, if nothing was pooled) and `width` channels."""
    if config.down == "none":
        step: nn.Module = nn.Conv2d(in_channels, width, kernel_size=1)
    elif config.up == "unpool":
        return Unpool(in_channels, width)
    else:
        step = make_up(config.up, in_channels, width)
    return nn.Sequential(step, nn.ReLU(inplace=True)) if config.released else step


def join(x_NCHW: Tensor, skip_NCHW: Tensor, how: Skip) -> Tensor:
    """The up-sampled maps with the skip's middle behind them, added to them, or alone."""
    if how == "none":
        return x_NCHW
    skip_NCHW = center_crop(skip_NCHW, (x_NCHW.shape[-2], x_NCHW.shape[-1]))
    return x_NCHW + skip_NCHW if how == "sum" else torch.cat((x_NCHW, skip_NCHW), dim=1)


def start_normal(module: nn.Module) -> None:
    """N(0, sqrt(2 / fan-in)), section 3 of the paper (He et al.); biases zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.ConvTranspose2d):
        # Each output pixel of a 2x2 up-convolution with stride 2 sees one input pixel, so fan-in is its input channels.
        nn.init.normal_(module.weight, std=math.sqrt(2 / module.in_channels))
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)
