"""What a loss is, and what losses share: log-probabilities, and per-class sums made in one pass.

A loss takes logits (N, K, H, W), before softmax, and a mask (N, H, W) of class numbers in which 255 is ignored: such a
pixel gives no gradient and is not counted. Sums are made in float32, whatever the precision of the logits (float64 stays).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from intarsia.classes import IGNORE
from intarsia.config import NamedConfig
from intarsia.losses.statistics import has_kernel, pixel_nll, softmax_statistics
from intarsia.registry import Registry


@dataclass(frozen=True)
class Border:
    """A weight map that parts touching objects: w0 exp(-(d1 + d2)² / (2 sigma²)), U-Net, arXiv:1505.04597, equation 2."""

    w0: float
    sigma: float


@dataclass(frozen=True)
class Occurrence:
    """How often each class occurs in the training masks, (K,) each."""

    pixels: Sequence[int]
    """Pixels of the class."""
    image_pixels: Sequence[int]
    """Pixels, ignored ones too, of the images that hold the class."""


class LossConfig(NamedConfig):
    """A loss as a value; calling it computes it."""

    def __call__(self, logits_NKHW: Tensor, mask_NHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            logits_NKHW: before softmax.
            mask_NHW: class numbers, 255 ignored.
            weights_NHW: of single pixels, such as a border map; losses of regions do not use them.
        """
        return self.of(Pixels(logits_NKHW, mask_NHW, weights_NHW, squares=self.squares))

    def of(self, pixels: Pixels) -> Tensor:
        """The loss from what another loss may share."""
        raise NotImplementedError

    @property
    def squares(self) -> bool:
        """Whether sums of squared probabilities are needed."""
        return False

    @property
    def border(self) -> Border | None:
        """The weight map that the data have to bring, if any."""
        return None

    @property
    def regional(self) -> bool:
        """Whether it is computed from per-class sums."""
        return False

    def at(self, share: float) -> LossConfig:
        """The loss at a share (0..1) of the training; schedules change it."""
        return self

    def resolved(self, occurrence: Occurrence) -> LossConfig:
        """The loss with numbers where a setting asks for the data's."""
        return self


LOSSES: Registry[LossConfig] = Registry("loss", "losses")


@dataclass(frozen=True)
class ClassSums:
    """Sums over counted pixels, (N, K) each: p the softmax, t the one-hot mask."""

    intersection: Tensor
    """sum p t"""
    probability: Tensor
    """sum p"""
    square: Tensor | None
    """sum p², if it was asked for"""
    truth: Tensor
    """sum t"""


class Pixels:
    """A batch, and what is computed from it once for all terms of a loss."""

    def __init__(
        self, logits_NKHW: Tensor, mask_NHW: Tensor, weights_NHW: Tensor | None = None, *, squares: bool = False
    ) -> None:
        self.num_images, self.num_classes = logits_NKHW.shape[:2]
        self.size_HW = (mask_NHW.shape[-2], mask_NHW.shape[-1])
        self.logits_NKP = widened(logits_NKHW).flatten(2)
        self.mask_NP = mask_NHW.flatten(1)
        self.weights_NP = None if weights_NHW is None else weights_NHW.flatten(1)
        self.squares = squares
        self.wants_sums = False
        """Per-class sums will be asked for: make all sums in one pass, with one softmax."""
        self._shared: tuple[Tensor, Tensor, ClassSums] | None = None

    @cached_property
    def counted_NP(self) -> Tensor:
        """Which pixels are counted."""
        return self.mask_NP != IGNORE

    @cached_property
    def truth_NP(self) -> Tensor:
        """int64 class numbers; 0 where ignored."""
        return torch.where(self.counted_NP, self.mask_NP, self.mask_NP.new_zeros(())).long()

    @cached_property
    def log_p_NKP(self) -> Tensor:
        """Log-probabilities of all classes, for losses that look at more than the true one."""
        return self.logits_NKP.log_softmax(dim=1)

    @cached_property
    def nll_NP(self) -> Tensor:
        """-log p of the true class; 0, and no gradient, where ignored."""
        return pixel_nll(self.logits_NKP, self.mask_NP)

    def weighted_nll(self, weights_NP: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N,) sum of w (-log p) and (N,) sum of w over counted pixels; w = 1 without weights."""
        if self._shared is None and (self.wants_sums or has_kernel(self.logits_NKP, self.mask_NP)):
            self._shared = self._statistics(weights_NP)
            return self._shared[:2]
        if weights_NP is None:
            return self.nll_NP.sum(1), self.counted_NP.sum(1).to(self.nll_NP.dtype)
        counted_NP = torch.where(self.counted_NP, weights_NP, weights_NP.new_zeros(()))
        return (self.nll_NP * counted_NP).sum(1), counted_NP.sum(1)

    def class_sums(self) -> ClassSums:
        """Per-class sums, without a one-hot tensor."""
        if self._shared is None:
            self._shared = self._statistics(None)
        return self._shared[2]

    def _statistics(self, weights_NP: Tensor | None) -> tuple[Tensor, Tensor, ClassSums]:
        nll_N, weight_N, intersection_NK, probability_NK, square_NK, truth_NK = softmax_statistics(
            self.logits_NKP, self.mask_NP, weights_NP, squares=self.squares
        )
        return nll_N, weight_N, ClassSums(intersection_NK, probability_NK, square_NK, truth_NK)


def widened(logits: Tensor) -> Tensor:
    """float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()
