"""Architectures: one file, one paper. Importing this package registers them."""

from intarsia.models import encdec, fcdensenet, plain, segnet, unet
from intarsia.models.base import MODELS, ModelConfig, SegmentationModel, create_model

__all__ = [
    "MODELS",
    "ModelConfig",
    "SegmentationModel",
    "create_model",
    "encdec",
    "fcdensenet",
    "plain",
    "segnet",
    "unet",
]
