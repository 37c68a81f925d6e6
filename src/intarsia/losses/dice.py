"""Soft Dice: overlap of probabilities and truth, made a loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from intarsia.losses.base import LOSSES, LossConfig, Pixels
from intarsia.losses.regions import RegionConfig


@LOSSES.family("dice")
class DiceConfig(RegionConfig):
    """1 - mean over classes of (2 sum p t + s) / (sum p + sum t + s)."""

    squared: bool = False
    """Denominator sum p² + sum t² (V-Net, arXiv:1606.04797, section 3) instead of sum p + sum t (Drozdzal et al.,
    arXiv:1608.04117)."""

    @property
    def squares(self) -> bool:
        return self.squared

    def cost(self, intersection: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
        return 1 - (2 * intersection + self.smooth) / (predicted + truth + self.smooth)


def soft_dice(
    logits: Tensor,
    mask: Tensor,
    *,
    squared: bool = False,
    per_image: bool = False,
    background: bool = True,
    absent: Literal["count", "skip"] = "count",
    smooth: float = 1.0,
) -> Tensor:
    """1 - mean_k (2 sum p t + s) / (sum p + sum t + s), p the softmax, t the one-hot mask, sums over counted pixels.

    The article's loss: 1 - Dice, class by class, then averaged. Drozdzal et al. (arXiv:1608.04117) minimise -Dice, V-Net
    (arXiv:1606.04797, section 3, with `squared`) maximises Dice; all have the same gradient.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        squared: sum p² + sum t² in the denominator.
        per_image: sums over each image, then the mean over images.
        background: whether class 0 takes part in the mean.
        absent: a class without a pixel in the truth is counted (predicting it costs) or skipped.
        smooth: s.
    """
    return DiceConfig(squared=squared, per_image=per_image, background=background, absent=absent, smooth=smooth)(
        logits, mask
    )


@LOSSES.family("generalized_dice")
class GeneralizedDiceConfig(LossConfig):
    """1 - 2 sum_k w_k I_k / sum_k w_k (P_k + T_k), w_k = 1 / T_k²."""

    per_image: bool = False
    """Take the sums over each image and average, instead of over the batch."""

    @property
    def regional(self) -> bool:
        return True

    def of(self, pixels: Pixels) -> Tensor:
        found = pixels.class_sums()
        parts = (found.intersection, found.probability, found.truth)
        if not self.per_image:
            parts = tuple(part.sum(0, keepdim=True) for part in parts)  # type: ignore[assignment]
        intersection, probability, truth = parts
        weight = torch.where(truth > 0, 1 / truth.clamp(min=1).square(), truth.new_zeros(()))
        weight = torch.where(truth > 0, weight, weight.amax(dim=1, keepdim=True))
        above, below = (weight * intersection).sum(1), (weight * (probability + truth)).sum(1)
        seen = (below > 0).to(below.dtype)
        dice = 2 * above / torch.where(below > 0, below, torch.ones_like(below))
        return ((1 - dice) * seen).sum() / seen.sum().clamp(min=1)


def generalized_dice(logits: Tensor, mask: Tensor, *, per_image: bool = False) -> Tensor:
    """1 - 2 sum_k w_k I_k / sum_k w_k (P_k + T_k) with w_k = 1 / T_k² (Sudre et al., arXiv:1707.03237, section 2.1).

    I = sum p t, P = sum p, T = sum t over counted pixels. A class without a pixel in the truth has the largest weight of those
    that have one, so that predicting it costs; the authors' code gives it 10^20, which lets it decide alone.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        per_image: sums over each image, then the mean over images.
    """
    return GeneralizedDiceConfig(per_image=per_image)(logits, mask)
