"""Tversky index, its focal form, and Jaccard: overlaps that weigh false positives and false negatives."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from intarsia.losses.base import LOSSES
from intarsia.losses.regions import RegionConfig


@LOSSES.family("jaccard")
class JaccardConfig(RegionConfig):
    """1 - mean over classes of (sum p t + s) / (sum p + sum t - sum p t + s)."""

    def cost(self, intersection: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
        return 1 - (intersection + self.smooth) / (predicted + truth - intersection + self.smooth)


@LOSSES.family("tversky")
class TverskyConfig(RegionConfig):
    """1 - mean over classes of (TP + s) / (TP + alpha FP + beta FN + s)."""

    alpha: float = Field(0.3, ge=0)
    """Weight of false positives."""
    beta: float = Field(0.7, ge=0)
    """Weight of false negatives."""

    def cost(self, intersection: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
        wrong = self.alpha * (predicted - intersection) + self.beta * (truth - intersection)
        return 1 - (intersection + self.smooth) / (intersection + wrong + self.smooth)


@LOSSES.family("focal_tversky")
class FocalTverskyConfig(TverskyConfig):
    """Mean over classes of (1 - Tversky index) ^ gamma."""

    gamma: float = Field(0.75, gt=0)
    """Exponent: below 1 lifts classes that are nearly right, above 1 lowers them."""

    def cost(self, intersection: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
        # A perfect class has no finite slope for gamma < 1: the smallest cost that has one stands for it.
        return super().cost(intersection, predicted, truth).clamp(min=1e-7) ** self.gamma


def jaccard(logits: Tensor, mask: Tensor, **settings: Any) -> Tensor:
    """1 - mean_k (I + s) / (P + T - I + s): soft intersection over union, I = sum p t, P = sum p, T = sum t.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        settings: per_image, background, absent, smooth, as of `soft_dice`.
    """
    return JaccardConfig(**settings)(logits, mask)


def tversky(logits: Tensor, mask: Tensor, *, alpha: float = 0.3, beta: float = 0.7, **settings: Any) -> Tensor:
    """1 - mean_k (TP + s) / (TP + alpha FP + beta FN + s), Salehi et al., arXiv:1706.05721, equation 4.

    TP = sum p t, FP = sum p (1 - t), FN = sum (1 - p) t. alpha = beta = 0.5 is soft Dice (with s / 2), 1 and 1 Jaccard.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        alpha: weight of false positives.
        beta: weight of false negatives; the paper's best are 0.3 and 0.7.
        settings: per_image, background, absent, smooth, as of `soft_dice`.
    """
    return TverskyConfig(alpha=alpha, beta=beta, **settings)(logits, mask)


def focal_tversky(
    logits: Tensor, mask: Tensor, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 0.75, **settings: Any
) -> Tensor:
    """mean_k (1 - Tversky index) ^ gamma, Abraham & Khan, arXiv:1810.07842, equation 4 (whose exponent is 1 / gamma = 0.75).

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        alpha: weight of false positives; the authors' released code calls the weight of false negatives alpha.
        beta: weight of false negatives.
        gamma: the exponent itself.
        settings: per_image, background, absent, smooth, as of `soft_dice`.
    """
    return FocalTverskyConfig(alpha=alpha, beta=beta, gamma=gamma, **settings)(logits, mask)
