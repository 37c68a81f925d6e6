"""Losses: logits (N, K, H, W) and masks (N, H, W) to one number. Importing this package registers them."""

from intarsia.losses.base import LOSSES, Border, LossConfig
from intarsia.losses.binary import (
    binary_cross_entropy,
    binary_focal,
    binary_soft_dice,
    multilabel_cross_entropy,
    multilabel_soft_dice,
)
from intarsia.losses.border import border_weight_map
from intarsia.losses.boundary import BoundaryConfig, boundary, signed_distance
from intarsia.losses.class_weights import class_weights
from intarsia.losses.cross_entropy import CrossEntropyConfig, cross_entropy
from intarsia.losses.dice import DiceConfig, GeneralizedDiceConfig, generalized_dice, soft_dice
from intarsia.losses.focal import FocalConfig, focal
from intarsia.losses.lovasz import LovaszHingeConfig, LovaszSoftmaxConfig, lovasz_hinge, lovasz_softmax
from intarsia.losses.ohem import OhemCrossEntropyConfig, ohem_cross_entropy
from intarsia.losses.sum import CrossEntropyDiceConfig, SumConfig
from intarsia.losses.tversky import (
    FocalTverskyConfig,
    JaccardConfig,
    TverskyConfig,
    focal_tversky,
    jaccard,
    tversky,
)

__all__ = [
    "LOSSES",
    "Border",
    "BoundaryConfig",
    "CrossEntropyConfig",
    "CrossEntropyDiceConfig",
    "DiceConfig",
    "FocalConfig",
    "FocalTverskyConfig",
    "GeneralizedDiceConfig",
    "JaccardConfig",
    "LossConfig",
    "LovaszHingeConfig",
    "LovaszSoftmaxConfig",
    "OhemCrossEntropyConfig",
    "SumConfig",
    "TverskyConfig",
    "binary_cross_entropy",
    "binary_focal",
    "binary_soft_dice",
    "border_weight_map",
    "boundary",
    "class_weights",
    "cross_entropy",
    "focal",
    "focal_tversky",
    "generalized_dice",
    "jaccard",
    "lovasz_hinge",
    "lovasz_softmax",
    "multilabel_cross_entropy",
    "multilabel_soft_dice",
    "ohem_cross_entropy",
    "signed_distance",
    "soft_dice",
    "tversky",
]
