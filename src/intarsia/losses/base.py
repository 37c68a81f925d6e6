"""What a loss is, and the per-class sums that region losses share.

A loss takes logits (N, K, H, W), before softmax, and a mask (N, H, W) of class numbers in which 255 is ignored: such a
pixel gives no gradient and is not counted. Everything is summed in float32, whatever the precision of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from intarsia.classes import IGNORE
from intarsia.config import NamedConfig
from intarsia.registry import Registry


class LossConfig(NamedConfig):
    """A loss as a value; calling it computes it."""

    def __call__(self, logits_NKHW: Tensor, mask_NHW: Tensor) -> Tensor:
        return self.of(PixelLogProbabilities(logits_NKHW, mask_NHW))

    def of(self, pixels: PixelLogProbabilities) -> Tensor:
        """The loss from log-probabilities that another loss may share."""
        raise NotImplementedError


LOSSES: Registry[LossConfig] = Registry("loss", "losses")


@dataclass(frozen=True)
class ClassSums:
    """Sums over counted pixels, (N, K) each: p the softmax, t the one-hot mask."""

    intersection: Tensor
    """sum p t"""
    probability: Tensor
    """sum p, or sum p² if `squared`"""
    truth: Tensor
    """sum t"""


class PixelLogProbabilities:
    """Log-probabilities of a batch, computed once for all terms of a loss."""

    def __init__(self, logits_NKHW: Tensor, mask_NHW: Tensor) -> None:
        self.num_images, self.num_classes = logits_NKHW.shape[:2]
        self.log_p_NKP = logits_NKHW.float().log_softmax(dim=1).flatten(2)
        mask_NP = mask_NHW.flatten(1)
        self.counted_NP = mask_NP != IGNORE
        self.truth_NP = torch.where(self.counted_NP, mask_NP, mask_NP.new_zeros(())).long()

    @cached_property
    def log_p_truth_NP(self) -> Tensor:
        """log p of the true class; 0 (and no gradient) where ignored."""
        picked = self.log_p_NKP.gather(1, self.truth_NP.unsqueeze(1)).squeeze(1)
        return torch.where(self.counted_NP, picked, picked.new_zeros(()))

    def class_sums(self, *, squared: bool) -> ClassSums:
        """Per-class sums without a one-hot tensor: the true class's probability is added where it belongs."""
        p_NKP = self.log_p_NKP.exp()
        counted_NP = self.counted_NP.float()
        per_class = p_NKP.new_zeros(self.num_images, self.num_classes)
        p_truth_NP = self.log_p_truth_NP.exp() * counted_NP
        weights_NP1 = counted_NP.unsqueeze(2)
        return ClassSums(
            intersection=per_class.scatter_add(1, self.truth_NP, p_truth_NP),
            probability=torch.bmm(p_NKP.square() if squared else p_NKP, weights_NP1).squeeze(2),
            truth=per_class.scatter_add(1, self.truth_NP, counted_NP),
        )
