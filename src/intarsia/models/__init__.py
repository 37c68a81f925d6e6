"""Architectures: one file, one paper. Importing this package registers them."""

from intarsia.models import deeplab, deeplab3, dilated, encdec, fcdensenet, fcn, plain, resunet, segnet, unet
from intarsia.models.base import MODELS, ModelConfig, SegmentationModel, create_model

__all__ = [
    "MODELS",
    "ModelConfig",
    "SegmentationModel",
    "create_model",
    "deeplab",
    "deeplab3",
    "dilated",
    "encdec",
    "fcdensenet",
    "fcn",
    "plain",
    "resunet",
    "segnet",
    "unet",
]
