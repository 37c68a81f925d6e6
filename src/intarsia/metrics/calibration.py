"""Calibration: does a model that says 0.8 turn out right in 80 % of the pixels? Counts that add, then scores.

The confidence of a pixel is the largest of its probabilities, and it is right if that class is the true one. Bin m of M holds
the n_m pixels with confidence in ((m - 1) / M, m / M]; acc_m is the share of them that is right, conf_m their mean.

| score | definition | best, worst |
|---|---|---|
| expected calibration error | sum_m n_m / n abs(acc_m - conf_m) (Guo et al., arXiv:1706.04599, equation 3) | 0, 1 |
| maximum calibration error | max abs(acc_m - conf_m) over bins that hold a pixel (equation 5) | 0, 1 |
| Brier score | mean over pixels of sum_k (p_k - [k is true])² (Brier, 1950: over all classes) | 0, 2 |
| accuracy, confidence | sum_m n_m acc_m / n, sum_m n_m conf_m / n | |

All pixels of all images weigh the same. With two classes the Brier score is twice the one-class form.
Ignored pixels (255) are in no bin; with nothing counted there is no score (NaN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intarsia.classes import IGNORE
from intarsia.errors import ConfigError, DataError
from intarsia.metrics.plain import plain

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationCounts:
    """What the scores are made of; adds over images and batches that were counted in the same bins."""

    pixels: NDArray[np.int64]
    """(M,) n_m"""
    confidence: Floats
    """(M,) sum of confidences"""
    right: NDArray[np.int64]
    """(M,) pixels that are right"""
    squared_error: float
    """Sum over pixels of the Brier score."""
    ignored: int
    """Pixels that are in no bin."""

    @classmethod
    def zero(cls, bins: int = 15) -> CalibrationCounts:
        """Of no pixel."""
        return cls(np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins, np.int64), 0.0, 0)

    def __add__(self, other: CalibrationCounts) -> CalibrationCounts:
        if self.pixels.size != other.pixels.size:
            met = f"{self.pixels.size} and {other.pixels.size}"
            raise ConfigError(f"counts of {met} bins cannot be added. Count both with the same `bins`.")
        return CalibrationCounts(
            self.pixels + other.pixels,
            self.confidence + other.confidence,
            self.right + other.right,
            self.squared_error + other.squared_error,
            self.ignored + other.ignored,
        )


@dataclass(frozen=True)
class CalibrationScores:
    """Scores and the reliability curve; NaN where nothing was counted."""

    expected_calibration_error: float
    maximum_calibration_error: float
    brier_score: float
    accuracy: float
    confidence: float
    bin_edges: Floats
    """(M + 1,)"""
    bin_accuracy: Floats
    """(M,) acc_m; against `bin_confidence` it is the reliability curve, and the diagonal is right."""
    bin_confidence: Floats
    """(M,) conf_m"""
    bin_pixels: NDArray[np.int64]
    """(M,) n_m"""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; null where there is no score."""

        return {
            "expected_calibration_error": plain(self.expected_calibration_error),
            "maximum_calibration_error": plain(self.maximum_calibration_error),
            "brier_score": plain(self.brier_score),
            "accuracy": plain(self.accuracy),
            "confidence": plain(self.confidence),
            "bin_edges": self.bin_edges.tolist(),
            "bin_accuracy": plain(self.bin_accuracy),
            "bin_confidence": plain(self.bin_confidence),
            "bin_pixels": self.bin_pixels.tolist(),
        }


def calibration_counts(
    output_NKHW: Tensor, mask_NHW: Tensor, *, bins: int = 15, probabilities: bool = False
) -> CalibrationCounts:
    """Calibration counts of a batch, image by image, so that no more than one image's probabilities are held.

    Args:
        output_NKHW: logits; on any device, in any precision.
        mask_NHW: true class numbers, 255 ignored.
        bins: M; 15 as in the paper.
        probabilities: whether the output went through softmax already.
    """
    if bins < 1:
        raise ConfigError(f"bins must be at least 1, got {bins}.")
    if output_NKHW.ndim != 4 or mask_NHW.shape != (output_NKHW.shape[0], *output_NKHW.shape[2:]):
        met = f"{tuple(output_NKHW.shape)} and {tuple(mask_NHW.shape)}"
        raise DataError(f"output must be (N, K, H, W) and mask (N, H, W), got {met}.")
    total = CalibrationCounts.zero(bins)
    for output_KHW, mask_HW in zip(output_NKHW.detach(), mask_NHW, strict=True):
        total += _counts_of_image(output_KHW, mask_HW.to(output_KHW.device), bins, probabilities)
    return total


def calibration_scores(counts: CalibrationCounts) -> CalibrationScores:
    """All calibration scores of counts.

    >>> logits = torch.log(torch.tensor([[0.8, 0.2]] * 5)).T.reshape(1, 2, 1, 5)
    >>> scores = calibration_scores(calibration_counts(logits, torch.tensor([[[0, 0, 0, 1, 255]]])))
    >>> round(scores.accuracy, 6), round(scores.expected_calibration_error, 6)
    (0.75, 0.05)
    """
    bins, n = counts.pixels.size, int(counts.pixels.sum())
    with np.errstate(invalid="ignore"):
        accuracy, confidence = counts.right / counts.pixels, counts.confidence / counts.pixels
    gap = np.abs(accuracy - confidence)
    nan = float("nan")
    return CalibrationScores(
        expected_calibration_error=float(np.abs(counts.right - counts.confidence).sum() / n) if n else nan,
        maximum_calibration_error=float(np.nanmax(gap)) if n else nan,
        brier_score=counts.squared_error / n if n else nan,
        accuracy=float(counts.right.sum() / n) if n else nan,
        confidence=float(counts.confidence.sum() / n) if n else nan,
        bin_edges=np.arange(bins + 1) / bins,
        bin_accuracy=accuracy,
        bin_confidence=confidence,
        bin_pixels=counts.pixels,
    )


def _counts_of_image(output_KHW: Tensor, mask_HW: Tensor, bins: int, probabilities: bool) -> CalibrationCounts:
    counted = mask_HW != IGNORE
    truth_P, output_KP = mask_HW[counted].long(), output_KHW[:, counted]
    if output_KP.dtype != torch.float64:
        output_KP = output_KP.float()
    p_KP = _checked(output_KP) if probabilities else output_KP.softmax(dim=0)
    confidence_P, predicted_P = p_KP.max(dim=0)
    if not bool(confidence_P.isfinite().all()):
        raise DataError("the output holds NaN or infinity where the mask has a class: there is no confidence to score.")
    if truth_P.numel() and int(truth_P.max()) >= len(p_KP):
        raise DataError(
            f"the mask holds {int(truth_P.max())}, but classes are 0 to {len(p_KP) - 1}. Map it, or use 255."
        )
    # sum_k (p_k - y_k)² = sum_k p_k² - 2 p_true + 1
    squared_P = p_KP.square().sum(dim=0) - 2 * p_KP.gather(0, truth_P[None])[0] + 1
    confidence = confidence_P.clamp(max=1).double().cpu().numpy()
    bin_P = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    right = (predicted_P == truth_P).cpu().numpy()
    return CalibrationCounts(
        np.bincount(bin_P, minlength=bins),
        np.bincount(bin_P, confidence, minlength=bins).astype(np.float64),
        np.bincount(bin_P[right], minlength=bins),
        float(squared_P.double().sum()),
        int(counted.numel() - counted.sum()),
    )


def _checked(p_KP: Tensor) -> Tensor:
    """Probabilities that are some: logits taken for them would give a wrong score in silence."""
    sums = p_KP.sum(dim=0)
    if p_KP.numel() and (float(p_KP.min()) < 0 or float((sums - 1).abs().max()) > 0.02):
        met = f"{float(p_KP.min()):.4g} and sums up to {float(sums.max()):.4g}"
        raise DataError(
            f"probabilities must be at least 0 and sum to 1, got {met}. For logits leave `probabilities` out."
        )
    return p_KP
