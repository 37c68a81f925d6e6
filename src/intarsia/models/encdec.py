"""Encoder-decoder: any timm encoder with the decoder of one of seven papers.

| decoder | paper | what is merged, and how |
|---|---|---|
| unet | arXiv:1505.04597 | every level, concatenated, step by step |
| unetplusplus | arXiv:1807.10165 | every level through nested dense skips |
| linknet | arXiv:1707.03718 | every level, added, step by step |
| fpn | arXiv:1612.03144, 1901.02446 | a pyramid from stride 4 on, summed |
| psp | arXiv:1612.01105 | the deepest level, beside its means over 1, 4, 9 and 36 cells |
| upernet | arXiv:1807.10221 | psp on the deepest level, a pyramid above it, concatenated |
| segformer | arXiv:2105.15203 | a linear layer a level, concatenated |

`models/decoders/` has a file for each, with what differs from its paper. `encdec` with its defaults is the usual practice of
pretrained encoders rather than one paper: U-Net's decoder with nearest up-sampling and BatchNorm.

Images of any size: padded inside to a multiple of the encoder's stride, cropped back.

Shapes: N batch, C channels, H height, W width of a level; K classes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from intarsia.errors import ConfigError
from intarsia.models import decoders
from intarsia.models.base import MODELS, ModelConfig, SegmentationModel, resize_logits
from intarsia.models.decoders.base import Attention, Decoder, Skip
from intarsia.models.encoders.timm import TimmEncoder
from intarsia.models.weights import FirstLayer
from intarsia.ops.downsample import exchange_down
from intarsia.ops.norm import Norm
from intarsia.ops.pad import pad_to_multiple
from intarsia.ops.upsample import Up

DecoderName = Literal["unet", "unetplusplus", "linknet", "fpn", "psp", "upernet", "segformer"]


class EncDecConfig(ModelConfig):
    """The encoder, where its weights come from, and the decoder with its parts."""

    encoder: str = "tf_efficientnet_lite0"
    """Any timm network with features_only; `timm.list_models()` names them."""
    pretrained: str = "auto"
    """Start weights of the encoder: auto, none, hub, package, or a file; auto says what it found."""
    first_layer: FirstLayer = "adapt"
    """Loaded weights of the first layer for other images than RGB: adapt sums or repeats them, fresh draws new ones."""
    decoder: DecoderName = "unet"
    """What brings the encoder's features back to the image's resolution."""
    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    """Channels of unet and unetplusplus after each doubling, deepest first; fewer numbers than the encoder has halvings make
    the logits coarser (then bilinear to the image's size)."""
    width: int | None = Field(None, ge=1)
    """Channels of the other decoders; null: 32 behind linknet's last level, 512 in psp, 256 in fpn (its branch has half),
    upernet and segformer."""
    up: Up | None = None
    """Up-sampling of unet, unetplusplus and linknet; null: nearest, and transposed for linknet. The others are bilinear."""
    down: Literal["encoder", "max", "average", "strided", "none"] = "encoder"
    """What halves the resolution in a convolutional encoder; none: nothing below stride 8, later convolutions are dilated."""
    skip: Skip | None = None
    """How unet merges the encoder's maps: concat, sum (after a 1x1 convolution), none; null: as the decoder's paper does."""
    attention: Attention = "none"
    """scse: attention before the first and behind the second convolution of each block of unet and unetplusplus."""
    norm: Norm | None = None
    """Normalisation in the decoder; null: batch, and group for fpn, as in its paper."""
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

    @field_validator("up", "skip", "attention")
    @classmethod
    def _fitting(cls, value: str | None, info: ValidationInfo) -> str | None:
        allowed = _BY_DEFINITION.get(info.data.get("decoder", "unet"), {}).get(str(info.field_name))
        if value not in (None, allowed or value):
            raise ValueError(
                f"the decoder {info.data['decoder']} has {allowed} by definition; leave it out or set {allowed}"
            )
        return value

    def build(self) -> EncDec:
        return EncDec(self)


_PYRAMID = {"up": "bilinear", "attention": "none"}
_BY_DEFINITION: dict[str, dict[str, str]] = {
    "unetplusplus": {"skip": "concat"},
    "linknet": {"skip": "sum", "attention": "none"},
    "fpn": {"skip": "sum", **_PYRAMID},
    "psp": {"skip": "none", **_PYRAMID},
    "upernet": {"skip": "concat", **_PYRAMID},
    "segformer": {"skip": "concat", **_PYRAMID},
}

# preset                                                                       weights (3 channels, 2 classes)
MODELS.preset("encdec", EncDecConfig())  # ......................................................... 5,198,306
MODELS.preset("encdec_unetplusplus", EncDecConfig(decoder="unetplusplus"))  # ...................... 5,429,826
MODELS.preset("encdec_linknet", EncDecConfig(decoder="linknet"))  # ................................ 3,117,266
MODELS.preset("encdec_fpn", EncDecConfig(decoder="fpn"))  # ........................................ 4,710,914
MODELS.preset("encdec_psp", EncDecConfig(decoder="psp", down="none", dropout=0.1))  # .............. 6,013,058
MODELS.preset("encdec_upernet", EncDecConfig(decoder="upernet"))  # ............................... 10,563,586
MODELS.preset("encdec_segformer", EncDecConfig(decoder="segformer", dropout=0.1))  # ............... 3,350,018


class EncDec(SegmentationModel):
    """Encoder, decoder, dropout, classifier."""

    config: EncDecConfig

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__(config)
        self.encoder = make_encoder(config)
        self.mean, self.std, self.start = self.encoder.mean, self.encoder.std, self.encoder.start
        self.decoder = make_decoder(config, self.encoder)
        self.dropout = nn.Dropout2d(config.dropout)
        side = self.decoder.kernel
        self.head = nn.Conv2d(self.decoder.width, config.classes, kernel_size=side, padding=side // 2)
        self.supervise({f"decoder.{part}": tap for part, tap in self.decoder.taps.items()})

    def forward(self, image_NCHW: Tensor) -> Tensor:
        height, width = image_NCHW.shape[-2:]
        stride = max(self.encoder.strides)
        padded = pad_to_multiple(image_NCHW, stride, least=2 * stride if self.training else 0)
        x = self.decoder(self.encoder(padded))
        logits = self.head(self.dropout(x))
        return resize_logits(logits, (padded.shape[-2], padded.shape[-1]))[..., :height, :width]


def make_encoder(config: EncDecConfig) -> TimmEncoder:
    """The encoder, its halvings as `config.down` says."""
    start: dict[str, Any] = {"pretrained": config.pretrained, "first_layer": config.first_layer}
    if config.down == "none":
        try:
            return TimmEncoder(config.encoder, in_channels=config.channels, output_stride=8, **start)
        except ConfigError as error:
            raise ConfigError(str(error).replace("model.output_stride=32", "model.down=encoder")) from None
    encoder = TimmEncoder(config.encoder, in_channels=config.channels, **start)
    if config.down != "encoder":
        exchange_down(encoder.net, config.down, config.channels)
    return encoder


def make_decoder(config: EncDecConfig, encoder: TimmEncoder) -> Decoder:
    """The decoder that the config names, with its paper's choices where the config has none."""
    levels = encoder.channels, encoder.strides
    norm: Norm = config.norm or ("group" if config.decoder == "fpn" else "batch")
    if config.decoder == "unet":
        return decoders.UNetDecoder(
            *levels,
            config.widths,
            up=config.up or "nearest",
            skip=config.skip or "concat",
            attention=config.attention,
            norm=norm,
        )
    if config.decoder == "unetplusplus":
        return decoders.UNetPlusPlusDecoder(
            *levels, config.widths, up=config.up or "nearest", attention=config.attention, norm=norm
        )
    if config.decoder == "linknet":
        return decoders.LinkNetDecoder(*levels, width=config.width or 32, up=config.up or "transposed", norm=norm)
    if config.decoder == "psp":
        return decoders.PSPDecoder(*levels, width=config.width or 512, norm=norm)
    kinds = {
        "fpn": decoders.FPNDecoder,
        "upernet": decoders.UPerNetDecoder,
        "segformer": decoders.SegFormerDecoder,
    }
    return kinds[config.decoder](*levels, width=config.width or 256, norm=norm)
