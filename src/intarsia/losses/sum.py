"""Weighted sums of losses; the softmax is computed once for all terms."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from intarsia.losses.base import LOSSES, LossConfig, PixelLogProbabilities
from intarsia.losses.cross_entropy import CrossEntropyConfig
from intarsia.losses.dice import DiceConfig


@LOSSES.family("ce_dice")
class CrossEntropyDiceConfig(LossConfig):
    """ce_weight * cross-entropy + dice_weight * soft Dice."""

    ce_weight: float = Field(1.0, ge=0)
    """Factor of the cross-entropy."""
    dice_weight: float = Field(1.0, ge=0)
    """Factor of soft Dice."""
    ce: CrossEntropyConfig = CrossEntropyConfig()
    """Settings of the cross-entropy."""
    dice: DiceConfig = DiceConfig()
    """Settings of soft Dice."""

    def of(self, pixels: PixelLogProbabilities) -> Tensor:
        return self.ce_weight * self.ce.of(pixels) + self.dice_weight * self.dice.of(pixels)
