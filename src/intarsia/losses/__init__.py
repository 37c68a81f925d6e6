"""Losses: logits (N, K, H, W) and masks (N, H, W) to one number. Importing this package registers them."""

from intarsia.losses.base import LOSSES, LossConfig
from intarsia.losses.cross_entropy import CrossEntropyConfig, cross_entropy
from intarsia.losses.dice import DiceConfig, soft_dice
from intarsia.losses.sum import CrossEntropyDiceConfig

__all__ = [
    "LOSSES",
    "CrossEntropyConfig",
    "CrossEntropyDiceConfig",
    "DiceConfig",
    "LossConfig",
    "cross_entropy",
    "soft_dice",
]
