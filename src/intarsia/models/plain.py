"""Plain stack: convolutions that keep the full resolution from image to logits, the simplest design of all.

The article's starting point ("An overview of semantic image segmentation", J. Jordan, 2018): every layer keeps H x W, which
costs H W sum k² C_in C_out multiplications and sees only 2 L + 1 pixels after L layers of 3x3. With `halvings` the same
convolutions become the article's next step, an encoder and decoder: the resolution is halved and doubled that many times,
by operators that `down`, `up` and `skip` exchange with everything else equal. Differs: nothing is prescribed there.

Shapes: N batch, C channels, H height, W width; K classes.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from intarsia.models.base import MODELS, ModelConfig, SegmentationModel
from intarsia.ops.conv import start_he
from intarsia.ops.downsample import Down, make_down
from intarsia.ops.norm import Norm, make_norm
from intarsia.ops.pad import pad_to_multiple
from intarsia.ops.unpool import Unpool, pool_with_indices
from intarsia.ops.upsample import SubPixelConv, Up, make_up, start_icnr


class PlainConfig(ModelConfig):
    """Depth and width of the stack."""

    depth: int = Field(10, ge=1)
    """L, number of 3x3 convolutions; the last one gives the logits."""
    width: int = Field(32, ge=1)
    """Channels between them."""
    norm: Norm = "none"
    """Normalisation after each convolution but the last: none, batch, instance, group or layer."""
    halvings: int = Field(0, ge=0, le=6)
    """How often the resolution is halved, and doubled again; the convolutions are spread evenly between."""
    down: Down = "max"
    """How it is halved: max, average, strided (a convolution), or none: not at all, convolutions are dilated instead."""
    up: Up | Literal["unpool"] = "nearest"
    """How it is doubled: nearest, nails, bilinear, transposed, resize, subpixel, or unpool (to where each maximum was)."""
    skip: Literal["concat", "sum", "none"] = "none"
    """What is done with the maps before each halving: concat, sum, or none."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.depth - 1 < 2 * self.halvings + 1 and self.halvings:
            raise ValueError(f"halvings={self.halvings} needs depth={2 * self.halvings + 2} or more")
        if self.up == "unpool" and self.down != "max":
            raise ValueError("up=unpool needs down=max, whose indices it uses")
        return self

    def build(self) -> Plain:
        return Plain(self)


MODELS.preset("plain", PlainConfig())


class Plain(SegmentationModel):
    """L times a 3x3 convolution, ReLU between them."""

    config: PlainConfig
    encoder_parts = ("stack", "downs", "stages")

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        self.remembers_maxima = config.up == "unpool"
        levels, width = config.halvings, config.width
        counts = [len(range(part, config.depth - 1, 2 * levels + 1)) for part in range(2 * levels + 1)]
        joined = 2 * width if config.skip == "concat" else width
        self.stack = self._stack(config.channels, counts[levels] if not levels else counts[0], 0)
        self.downs, self.stages, self.ups, self.back = (nn.ModuleList() for _ in range(4))
        for level in range(1, levels + 1):
            self.downs.append(make_down(config.down, width))
            self.stages.append(self._stack(width, counts[level], level))
        for level in reversed(range(levels)):
            self.ups.append(self._up())
            self.back.append(self._stack(joined, counts[2 * levels - level], level))
        out = width if config.depth > 1 else config.channels
        self.head = nn.Conv2d(out, config.classes, kernel_size=3, padding=1)
        self.apply(start_he)
        for module in self.modules():
            if isinstance(module, SubPixelConv):
                start_icnr(module.conv, module.factor)
        middle = f"stack.{(len(self.stack) - 1) // 2}" if not levels else "stages." + str(levels - 1)
        self.supervise({middle: (width, 1 if config.down == "none" else 2**levels)} if len(self.stack) else {})

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        levels = self.config.halvings
        x, skips = self.stack(pad_to_multiple(image_NCHW, 2**levels, least=2 ** (levels + 1) if levels else 0)), []
        for down, convolve in zip(self.downs, self.stages, strict=True):
            where = None
            before = x
            if self.config.up == "unpool":
                x, where = pool_with_indices(x)
            else:
                x = down(x)
            skips.append((before, where))
            x = convolve(x)
        for up, convolve in zip(self.ups, self.back, strict=True):
            before, where = skips.pop()
            x = up(x) if where is None else up(x, where, (before.shape[-2], before.shape[-1]))
            if self.config.skip != "none":
                x = x + before if self.config.skip == "sum" else torch.cat((x, before), dim=1)
            x = convolve(x)
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]

    def _stack(self, channels: int, count: int, level: int) -> nn.Sequential:
        """Convolutions of a level, each with its normalisation and ReLU; dilated where nothing was halved."""
        dilation = 2**level if self.config.down == "none" else 1
        layers: list[nn.Module] = []
        for _ in range(count):
            layers.append(nn.Conv2d(channels, self.config.width, 3, padding=dilation, dilation=dilation))
            if self.config.norm != "none":
                layers.append(make_norm(self.config.norm, self.config.width))
            layers.append(nn.ReLU(inplace=True))
            channels = self.config.width
        return nn.Sequential(*layers)

    def _up(self) -> nn.Module:
        width = self.config.width
        if self.config.down == "none":
            return nn.Identity()
        return Unpool(width, width) if self.config.up == "unpool" else make_up(self.config.up, width, width)
