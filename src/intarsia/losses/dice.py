"""Soft Dice: overlap of probabilities and truth, made a loss."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from intarsia.losses.base import LOSSES, LossConfig, PixelLogProbabilities


@LOSSES.family("dice")
class DiceConfig(LossConfig):
    """1 - mean over classes of (2 sum p t + s) / (sum p + sum t + s)."""

    squared: bool = False
    """Denominator sum p² + sum t² (V-Net, arXiv:1606.04797, section 3) instead of sum p + sum t (Drozdzal et al.,
    arXiv:1608.04117)."""
    per_image: bool = False
    """Average the Dice of single images instead of taking the sums over the batch."""
    background: bool = True
    """Whether class 0 takes part in the mean."""
    smooth: float = Field(1.0, gt=0)
    """s, added above and below; makes an absent class that is not predicted either a perfect one."""

    def of(self, pixels: PixelLogProbabilities) -> Tensor:
        sums = pixels.class_sums(squared=self.squared)
        intersection, probability, truth = sums.intersection, sums.probability, sums.truth
        if not self.per_image:
            intersection, probability, truth = (
                part.sum(0, keepdim=True) for part in (intersection, probability, truth)
            )
        dice = (2 * intersection + self.smooth) / (probability + truth + self.smooth)
        if not self.background and dice.shape[1] > 1:
            dice = dice[:, 1:]
        return 1 - dice.mean()


def soft_dice(
    logits: Tensor,
    mask: Tensor,
    *,
    squared: bool = False,
    per_image: bool = False,
    background: bool = True,
    smooth: float = 1.0,
) -> Tensor:
    """1 - mean_k (2 sum p t + s) / (sum p + sum t + s), sums over the counted pixels of the batch, class by class.

    With `squared`, sum p² + sum t² in the denominator (V-Net, arXiv:1606.04797, section 3).

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        squared: squares in the denominator.
        per_image: sums over each image, then the mean over images.
        background: whether class 0 takes part in the mean.
        smooth: s.
    """
    config = DiceConfig(squared=squared, per_image=per_image, background=background, smooth=smooth)
    return config(logits, mask)
