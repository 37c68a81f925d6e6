"""Overlap scores from one confusion matrix (Long et al., arXiv:1411.4038, section 5).

n_ij is the number of pixels of class i predicted as j, t_i = sum_j n_ij.

| score | definition | classes that take part |
|---|---|---|
| pixel accuracy | sum n_ii / sum t_i | |
| mean accuracy | mean_i n_ii / t_i | those in the truth |
| IoU_i | n_ii / (t_i + sum_j n_ji - n_ii) | those in truth or prediction |
| Dice_i | 2 n_ii / (t_i + sum_j n_ji) | the same |
| mean IoU, mean Dice | mean_i | the same |
| frequency-weighted IoU | sum_i t_i IoU_i / sum t_i | those in the truth |
| kappa | (p_o - p_e) / (1 - p_e), p_o the pixel accuracy, p_e = sum_i t_i sum_j n_ji / (sum t_i)² (Cohen, 1960) | |
| precision_i | n_ii / sum_j n_ji | those in the prediction |
| recall_i | n_ii / t_i | those in the truth |

A class that is in neither truth nor prediction has no score (NaN) and is left out of the means; one that is predicted but
not there has IoU 0 and counts. Dice_i is the harmonic mean of precision_i and recall_i. Kappa is NaN where truth and prediction
are one and the same class throughout: chance alone is right then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.metrics.plain import plain

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OverlapScores:
    """Scores of one set of pixels; NaN where a class has no score."""

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    mean_dice: float
    frequency_weighted_iou: float
    iou: Floats
    """(K,)"""
    dice: Floats
    """(K,)"""
    truth_pixels: NDArray[np.int64]
    """(K,) t_i"""
    predicted_pixels: NDArray[np.int64]
    """(K,) sum_j n_ji"""
    kappa: float
    precision: Floats
    """(K,)"""
    recall: Floats
    """(K,)"""

    @property
    def absent(self) -> list[int]:
        """Classes in neither truth nor prediction; they are in no mean."""
        return [int(index) for index in np.flatnonzero(np.isnan(self.iou))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; null where a class has no score."""
        return {
            "pixel_accuracy": plain(self.pixel_accuracy),
            "mean_accuracy": plain(self.mean_accuracy),
            "mean_iou": plain(self.mean_iou),
            "mean_dice": plain(self.mean_dice),
            "frequency_weighted_iou": plain(self.frequency_weighted_iou),
            "iou": plain(self.iou),
            "dice": plain(self.dice),
            "truth_pixels": self.truth_pixels.tolist(),
            "predicted_pixels": self.predicted_pixels.tolist(),
            "kappa": plain(self.kappa),
            "precision": plain(self.precision),
            "recall": plain(self.recall),
        }


def overlap_scores(counts_KK: NDArray[np.int64]) -> OverlapScores:
    """All overlap scores of a confusion matrix, rows truth, columns prediction.

    >>> round(overlap_scores(np.array([[50, 2], [3, 45]])).mean_iou, 6)
    0.904545
    """
    counts = np.asarray(counts_KK, np.int64)
    right, truth, predicted = np.diag(counts).astype(np.float64), counts.sum(1), counts.sum(0)
    total = truth.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = right / truth, right / predicted
        iou = right / (truth + predicted - right)
        dice = 2 * right / (truth + predicted)
        weighted = np.nansum(np.where(truth > 0, truth * iou, 0.0)) / total if total else np.nan
    return OverlapScores(
        pixel_accuracy=float(right.sum() / total) if total else float("nan"),
        mean_accuracy=_mean(recall[truth > 0]),
        mean_iou=_mean(iou[~np.isnan(iou)]),
        mean_dice=_mean(dice[~np.isnan(dice)]),
        frequency_weighted_iou=float(weighted),
        iou=iou,
        dice=dice,
        truth_pixels=truth,
        predicted_pixels=predicted,
        kappa=_kappa(right, truth, predicted),
        precision=precision,
        recall=recall,
    )


def _kappa(right: Floats, truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    total = float(truth.sum())
    if not total:
        return float("nan")
    by_chance = float((truth / total) @ (predicted / total))
    return float((right.sum() / total - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")
