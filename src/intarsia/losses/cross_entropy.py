"""Pixel-wise cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from intarsia.errors import ConfigError
from intarsia.losses.base import LOSSES, Border, LossConfig, Occurrence, Pixels
from intarsia.losses.class_weights import Weighting, class_weights

Reduction = Literal["mean", "mean_pixels", "sum"]


@LOSSES.family("ce")
class CrossEntropyConfig(LossConfig):
    """- sum_i w_i log p_i(t_i) / sum_i w_i over counted pixels i."""

    class_weights: tuple[float, ...] | Weighting | None = None
    """Weights of classes: one number a class, or from the training masks: inverse, median_frequency (of the images that hold
    the class), median_frequency_global, enet; null: all 1."""
    border_w0: float = Field(0.0, ge=0)
    """w0 of U-Net's map, added to the class's weight where two objects are near: w0 exp(-(d1 + d2)² / (2 sigma²)); the paper
    has 10; 0: no map."""
    border_sigma: float = Field(5.0, gt=0)
    """sigma of that map, in pixels of the mask."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread evenly over all classes."""
    reduction: Reduction = "mean"
    """mean: by the sum of weights; mean_pixels: by the number of counted pixels; sum: not divided, as FCN was trained."""

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, weights: tuple[float, ...] | str | None) -> tuple[float, ...] | str | None:
        if isinstance(weights, tuple) and (min(weights, default=-1) < 0 or sum(weights) == 0):
            raise ValueError("class_weights must not be negative, and not all zero")
        return weights

    @property
    def border(self) -> Border | None:
        return Border(self.border_w0, self.border_sigma) if self.border_w0 else None

    def resolved(self, occurrence: Occurrence) -> CrossEntropyConfig:
        if not isinstance(self.class_weights, str):
            return self
        numbers = class_weights(self.class_weights, occurrence.pixels, occurrence.image_pixels)
        return self.replace(class_weights=numbers)

    def of(self, pixels: Pixels) -> Tensor:
        weights_NP = self._weights(pixels)
        if self.label_smoothing:
            return self._smoothed(pixels, weights_NP)
        nll_N, weight_N = pixels.weighted_nll(weights_NP)
        return self._reduced(pixels, nll_N.sum(), weight_N.sum())

    def _weights(self, pixels: Pixels) -> Tensor | None:
        """w_i: the class's weight and the border term; None where all are 1."""
        weights_NP = None
        if self.class_weights is not None:
            if isinstance(self.class_weights, str):
                raise ConfigError(
                    f"loss.class_weights: {self.class_weights} needs the training set's counts; give numbers, or train."
                )
            if len(self.class_weights) != pixels.num_classes:
                raise ConfigError(
                    f"loss.class_weights: has {len(self.class_weights)} numbers for {pixels.num_classes} classes."
                )
            weights_NP = pixels.logits_NKP.new_tensor(self.class_weights)[pixels.truth_NP]
        if pixels.weights_NP is not None and self.border_w0:
            border_NP = pixels.weights_NP.to(pixels.logits_NKP.dtype)
            weights_NP = border_NP + (1 if weights_NP is None else weights_NP)
        return weights_NP

    def _smoothed(self, pixels: Pixels, weights_NP: Tensor | None) -> Tensor:
        share = self.label_smoothing
        spread_NP = -pixels.log_p_NKP.mean(dim=1)
        counted_NP = pixels.counted_NP.to(spread_NP.dtype)
        weights_NP = counted_NP if weights_NP is None else weights_NP * counted_NP
        zero = spread_NP.new_zeros(())
        cost_NP = torch.where(pixels.counted_NP, (1 - share) * pixels.nll_NP + share * spread_NP, zero)
        return self._reduced(pixels, (weights_NP * cost_NP).sum(), weights_NP.sum())

    def _reduced(self, pixels: Pixels, total: Tensor, weight: Tensor) -> Tensor:
        if self.reduction == "sum":
            return total
        if self.reduction == "mean_pixels":
            return total / pixels.counted_NP.sum().clamp(min=1)
        return total / torch.where(weight > 0, weight, torch.ones_like(weight))


def cross_entropy(
    logits: Tensor,
    mask: Tensor,
    *,
    class_weights: Tensor | Sequence[float] | None = None,
    border: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """- sum_i w_i log p_i(t_i) / sum_i w_i, p the softmax, over pixels i that are not ignored (255); w = w_class + border.

    Equal to `torch.nn.functional.cross_entropy(..., ignore_index=255)`, but 0 instead of NaN where nothing is counted. With
    smoothing e the cost of a pixel is (1 - e)(-log p_t) + e mean_k(-log p_k), weighted by its own class alone.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        class_weights: (K,); None: all 1.
        border: (N, H, W), added to the class's weight, such as `border_weight_map` (U-Net, arXiv:1505.04597, equation 2).
        label_smoothing: e, 0 to 1.
        reduction: mean (by the sum of weights), mean_pixels (by the number of counted pixels), or sum (FCN's training).
    """
    numbers = None if class_weights is None else tuple(float(weight) for weight in class_weights)
    config = CrossEntropyConfig(
        class_weights=numbers,
        border_w0=0.0 if border is None else 1.0,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
    return config(logits, mask, border)
