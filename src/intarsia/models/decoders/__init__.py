"""Decoders: from features at several strides to one map of fine stride. One file, one paper."""

from intarsia.models.decoders.base import Decoder
from intarsia.models.decoders.fpn import FPNDecoder
from intarsia.models.decoders.linknet import LinkNetDecoder
from intarsia.models.decoders.psp import PSPDecoder
from intarsia.models.decoders.segformer import SegFormerDecoder
from intarsia.models.decoders.unet import UNetDecoder
from intarsia.models.decoders.unetplusplus import UNetPlusPlusDecoder
from intarsia.models.decoders.upernet import UPerNetDecoder

__all__ = [
    "Decoder",
    "FPNDecoder",
    "LinkNetDecoder",
    "PSPDecoder",
    "SegFormerDecoder",
    "UNetDecoder",
    "UNetPlusPlusDecoder",
    "UPerNetDecoder",
]
