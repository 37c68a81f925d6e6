"""Cross-entropy of the hardest pixels alone."""

from __future__ import annotations

import math
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from intarsia.losses.base import LOSSES, LossConfig, Pixels


@LOSSES.family("ohem_ce")
class OhemCrossEntropyConfig(LossConfig):
    """Mean of -log p_t over the pixels with p_t below a threshold, or over the hardest ones."""

    threshold: float = Field(0.7, gt=0, le=1)
    """A pixel is hard if the probability of its true class is below this."""
    min_kept: int = Field(100_000, ge=1)
    """The hardest pixels of the batch that are kept at least, hard or not (all, if fewer are counted)."""
    share: float | None = Field(None, gt=0, le=1)
    """Instead of both: the share of counted pixels that is kept, the hardest first ("bootstrapped"); null: not used."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        usual = type(self).model_fields
        if self.share is not None and (self.threshold, self.min_kept) != (
            usual["threshold"].default,
            usual["min_kept"].default,
        ):
            raise ValueError("share takes the place of threshold and min_kept; set share, or the other two")
        return self

    def of(self, pixels: Pixels) -> Tensor:
        nll_P = pixels.nll_NP.flatten()
        counted_P = pixels.counted_NP.flatten()
        hardness_P = torch.where(counted_P, nll_P.detach(), nll_P.new_full((), -1.0))
        counted = int(counted_P.sum())
        if not counted:
            return nll_P.sum() * 0
        if self.share is not None:
            kept = max(1, math.ceil(self.share * counted - 1e-6))  # 0.1 of 30 is 3, whatever the last bit says
        else:
            hard_P = hardness_P > -math.log(self.threshold)
            hard, kept = int(hard_P.sum()), min(self.min_kept, counted)
            if hard >= kept:
                return torch.where(hard_P, nll_P, nll_P.new_zeros(())).sum() / hard
        if kept == counted:
            return nll_P.sum() / counted
        return nll_P[torch.topk(hardness_P, kept, sorted=False).indices].sum() / kept


def ohem_cross_entropy(
    logits: Tensor, mask: Tensor, *, threshold: float = 0.7, min_kept: int = 100_000, share: float | None = None
) -> Tensor:
    """Mean of -log p_t over the hard pixels of the batch: those with p_t < threshold, but at least the min_kept hardest.

    Online bootstrapping (Wu et al., arXiv:1605.06885), known as online hard example mining after Shrivastava et al.
    (arXiv:1604.03540). With `share`, the hardest share of counted pixels instead, rounded up to whole pixels. Pixels are
    ranked over the batch, not image by image; of equally hard ones any may be kept, the value is the same.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        threshold: above 0, up to 1.
        min_kept: pixels of the batch; all, if fewer are counted.
        share: above 0, up to 1; takes the place of threshold and min_kept. None: not used.
    """
    return OhemCrossEntropyConfig(threshold=threshold, min_kept=min_kept, share=share)(logits, mask)
