"""SegNet: Badrinarayanan, Kendall, Cipolla, arXiv:1511.00561, figure 2, as in the released prototxt.

`segnet`: the 13 convolutions of VGG16 with BatchNorm, five max-poolings that remember where each maximum was, and a decoder
that mirrors them. `segnet_basic`: the study network of 4 levels with 7x7 convolutions, local response normalisation of the
image, no ReLU in the decoder and a 1x1 classifier. Poolings round up (Caffe), so that images of any size come back at theirs.

Differs from the paper: nothing in shape. Start weights are He-normal ("msra"), as in the released solver, not ImageNet's.

Trained in the released solvers with: SGD, momentum 0.9, weight decay 5e-4; SegNet rate 1e-3, batch 4, 40,000 steps;
SegNet-Basic rate 0.1, 10,000 steps; cross-entropy with median-frequency weights. CamVid test: mean IoU 46.4 as others cite it.

Shapes: N batch, C channels, H height, W width of a level; K classes.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from intarsia.models.base import MODELS, ModelConfig, SegmentationModel
from intarsia.ops.conv import start_he
from intarsia.ops.pad import pad_to_multiple
from intarsia.ops.unpool import max_unpool, pool_with_indices


class SegNetConfig(ModelConfig):
    """Defaults are the paper's."""

    widths: tuple[tuple[int, ...], ...] = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
    """Channels of the convolutions of each encoder level; the decoder mirrors them."""
    kernel: int = Field(3, ge=1)
    """Side of the convolutions; odd."""
    basic: bool = False
    """The study network's details: response normalisation of the image, no ReLU in the decoder, a 1x1 classifier."""

    def build(self) -> SegNet:
        return SegNet(self)


# preset                                                                                weights (3 channels, 11 classes)
MODELS.preset("segnet", SegNetConfig())  # ................................................................. 29,449,355
MODELS.preset("segnet_basic", SegNetConfig(widths=((64,),) * 4, kernel=7, basic=True))  # ................... 1,416,587


class SegNet(SegmentationModel):
    """The encoder remembers where each maximum was; the decoder puts values back there."""

    config: SegNetConfig
    remembers_maxima = True

    def __init__(self, config: SegNetConfig) -> None:
        super().__init__(config)
        self.normalise = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75) if config.basic else nn.Identity()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        channels = config.channels
        for widths in config.widths:
            self.encoder.append(conv_stage(channels, widths, config.kernel, relu=True))
            channels = widths[-1]
        for level, widths in reversed(list(enumerate(config.widths))):
            below = config.widths[level - 1][-1] if level else widths[0]
            back = (*widths[:0:-1], below) if level or config.basic else widths[:0:-1]
            self.decoder.append(conv_stage(widths[-1], back, config.kernel, relu=not config.basic))
        side = 1 if config.basic else config.kernel
        self.head = nn.Conv2d(config.widths[0][0], config.classes, kernel_size=side, padding=side // 2)
        self.apply(start_he)
        levels = range(1, len(config.widths))
        self.supervise(
            {f"decoder.{len(config.widths) - 1 - level}": (config.widths[level - 1][-1], 2**level) for level in levels}
        )

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        least = 2 ** (len(self.config.widths) + 1) if self.training else 0
        x, places = self.normalise(pad_to_multiple(image_NCHW, 1, least=least)), []
        for encode in self.encoder:
            x = encode(x)
            size = (x.shape[-2], x.shape[-1])
            x, where = pool_with_indices(x)
            places.append((where, size))
        for decode in self.decoder:
            x = decode(max_unpool(x, *places.pop()))
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]


def conv_stage(in_channels: int, widths: tuple[int, ...], kernel: int, *, relu: bool) -> nn.Sequential:
    """Convolutions that keep the size, each with BatchNorm and perhaps ReLU."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(in_channels, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width)]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        in_channels = width
    return nn.Sequential(*layers)
