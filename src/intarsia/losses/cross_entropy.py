"""Pixel-wise cross-entropy."""

from __future__ import annotations

import torch
from pydantic import field_validator
from torch import Tensor

from intarsia.errors import ConfigError
from intarsia.losses.base import LOSSES, LossConfig, PixelLogProbabilities


@LOSSES.family("ce")
class CrossEntropyConfig(LossConfig):
    """- sum_i w(t_i) log p_i(t_i) / sum_i w(t_i) over counted pixels i."""

    class_weights: tuple[float, ...] | None = None
    """One weight a class, w; null: all 1."""

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None and (min(weights, default=-1) < 0 or sum(weights) == 0):
            raise ValueError("class_weights must not be negative, and not all zero")
        return weights

    def of(self, pixels: PixelLogProbabilities) -> Tensor:
        weights = None
        if self.class_weights is not None:
            if len(self.class_weights) != pixels.num_classes:
                raise ConfigError(
                    f"loss.class_weights: has {len(self.class_weights)} numbers for {pixels.num_classes} classes."
                )
            weights = pixels.log_p_NKP.new_tensor(self.class_weights)
        return _mean(pixels, weights)


def cross_entropy(logits: Tensor, mask: Tensor, *, class_weights: Tensor | None = None) -> Tensor:
    """- sum_i w(t_i) log p_i(t_i) / sum_i w(t_i), p the softmax, over pixels i that are not ignored (255).

    Equal to `torch.nn.functional.cross_entropy(..., ignore_index=255)`, but 0 instead of NaN where nothing is counted.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        class_weights: (K,), w; None: all 1.
    """
    return _mean(PixelLogProbabilities(logits, mask), class_weights)


def _mean(pixels: PixelLogProbabilities, class_weights: Tensor | None) -> Tensor:
    if class_weights is None:
        return -pixels.log_p_truth_NP.sum() / pixels.counted_NP.sum().clamp(min=1)
    weights_NP = torch.where(pixels.counted_NP, class_weights.float()[pixels.truth_NP], class_weights.new_zeros(()))
    total = weights_NP.sum()
    return -(weights_NP * pixels.log_p_truth_NP).sum() / torch.where(total > 0, total, torch.ones_like(total))
