"""What can be scored of a split beside each other: a measure counts an image into an array, arrays add, the sum has scores.

Since every score is a function of a sum over images, all of them have an interval by drawing images (metrics/intervals.py),
and two runs have a paired difference.

| measure | of what | scores |
|---|---|---|
| overlap | every evaluation | metrics/overlap.py |
| boundary | every data set | metrics/boundary.py |
| objects | classes but the first: true objects as drawn, else connected parts | metrics/instances.py |
| calibration | the largest probability of each pixel | metrics/calibration.py |
| em | two classes, one of them called membrane | metrics/em.py |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE, ClassTable
from intarsia.data.base import Dataset
from intarsia.errors import ConfigError
from intarsia.metrics.boundary import BoundaryCounts, boundary_counts, boundary_scores
from intarsia.metrics.calibration import CalibrationCounts, calibration_counts, calibration_scores
from intarsia.metrics.em import THRESHOLDS as EM_THRESHOLDS
from intarsia.metrics.em import EmCounts, em_counts
from intarsia.metrics.instances import PERCENT, MatchCounts, match_objects, object_scores
from intarsia.metrics.intervals import LEVEL, ROUNDS, interval
from intarsia.metrics.overlap import overlap_scores
from intarsia.metrics.plain import plain
from intarsia.ops.objects import parts_of
from intarsia.registry import did_you_mean
from intarsia.training.validation import Scored

Floats = NDArray[np.float64]
Scores = dict[str, Floats]
"""Name to a number, (), or to one a class, (K,); NaN where there is none."""

SHOWN = {
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "kappa": "kappa",
    "iou": "IoU",
    "dice": "Dice",
    "precision": "precision",
    "recall": "recall",
    "mean_boundary_f1": "boundary F1",
    "mean_boundary_iou": "boundary IoU",
    "mean_hausdorff95": "Hausdorff 95",
    "mean_surface_distance": "surface distance",
    "boundary_f1": "boundary F1",
    "boundary_iou": "boundary IoU",
    "hausdorff95": "Hausdorff 95",
    "surface_distance": "surface distance",
    "mean_average_precision": "object AP",
    "mean_panoptic_quality": "PQ",
    "average_precision": "object AP",
    "panoptic_quality": "PQ",
    "segmentation_quality": "SQ",
    "recognition_quality": "RQ",
    "expected_calibration_error": "calibration error",
    "maximum_calibration_error": "largest of a bin",
    "brier_score": "Brier score",
    "v_rand": "V_Rand",
    "v_info": "V_Info",
    "adapted_rand_error": "Rand error, not thinned",
    "warping_error": "warping error",
    "pixel_error": "pixel error",
    "squared_error": "squared error",
}
"""What a page or a table calls a score."""
LESS_IS_BETTER = {key for key in SHOWN if "error" in key or "hausdorff" in key or "distance" in key or "brier" in key}


class Measure(ABC):
    """One kind of score."""

    name: ClassVar[str]
    optional: ClassVar[bool] = True
    """Whether it is scored only when asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.table = dataset, dataset.table

    @staticmethod
    def applies(table: ClassTable) -> str:
        """Why it cannot be scored for these classes; "" if it can."""
        return ""

    @abstractmethod
    def count(self, scored: Scored) -> NDArray[Any]:
        """The counts of one image, always of the same shape."""

    @abstractmethod
    def scores(self, counts: NDArray[Any]) -> Scores:
        """Of the summed counts, of one image or of many."""

    def row(self, counts: NDArray[Any]) -> Floats:
        """All scores in one row."""
        return np.concatenate([np.atleast_1d(value) for value in self.scores(counts).values()])

    def facts(self, counts: NDArray[Any]) -> dict[str, Any]:
        """What else is told, as plain values for JSON."""
        return {}


class Overlap(Measure):
    """One confusion matrix."""

    name, optional = "overlap", False

    def count(self, scored: Scored) -> NDArray[Any]:
        return scored.counts

    def scores(self, counts: NDArray[Any]) -> Scores:
        found = overlap_scores(counts)
        keys = ("mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "kappa")
        return {key: np.asarray(getattr(found, key)) for key in (*keys, "iou", "dice", "precision", "recall")}


class Boundary(Measure):
    """Distances of outlines, and overlap beside them."""

    name = "boundary"

    def count(self, scored: Scored) -> NDArray[Any]:
        found = boundary_counts(scored.prediction, scored.mask, self.table.count)
        return np.stack([np.asarray(getattr(found, field.name), np.float64) for field in fields(found)])

    def scores(self, counts: NDArray[Any]) -> Scores:
        found = boundary_scores(BoundaryCounts(*counts))
        each = ("boundary_f1", "boundary_iou", "hausdorff95", "surface_distance")
        return {key: np.asarray(getattr(found, key)) for key in (*(f"mean_{key}" for key in each), *each)}

    def facts(self, counts: NDArray[Any]) -> dict[str, Any]:
        found = boundary_scores(BoundaryCounts(*counts))
        keys = ("images", "missed", "invented")
        return {
            "unit": "pixels of the mask",
            **{key: [int(value) for value in getattr(found, key)] for key in keys},
        }


class Objects(Measure):
    """Single objects of each class but the first; means are over the classes that have any."""

    name = "objects"

    def count(self, scored: Scored) -> NDArray[Any]:
        drawn = None if scored.item.instances is None else self.dataset.read_instances(scored.item)
        ignored = scored.mask == IGNORE
        rows = []
        for index in range(1, self.table.count):
            there = scored.mask == index
            truth = parts_of(there) if drawn is None else np.where(there, drawn, 0)
            rows.append(match_objects(truth, parts_of((scored.prediction == index) & ~ignored), ignored))
        return np.array([_as_row(found) for found in rows], np.float64).reshape(self.table.count - 1, len(PERCENT) + 5)

    def scores(self, counts: NDArray[Any]) -> Scores:
        each = [object_scores(_as_counts(row)) for row in counts]
        keys = ("average_precision", "panoptic_quality", "segmentation_quality", "recognition_quality")
        per_class = {key: np.array([math.nan, *(getattr(found, key) for found in each)]) for key in keys}
        return {**{f"mean_{key}": _mean(per_class[key]) for key in keys[:2]}, **per_class}

    def facts(self, counts: NDArray[Any]) -> dict[str, Any]:
        each = [object_scores(_as_counts(row)) for row in counts]
        return {
            "true_objects": [0, *(int(found.true_objects) for found in each)],
            "predicted_objects": [0, *(int(found.predicted_objects) for found in each)],
            "average_precision_at": [{}, *(found.to_dict()["average_precision_at"] for found in each)],
        }


class Calibration(Measure):
    """Whether probabilities mean what they say."""

    name = "calibration"

    def count(self, scored: Scored) -> NDArray[Any]:
        mask = scored.mask_tensor
        found = calibration_counts(scored.logits.float(), mask)
        return np.concatenate([found.pixels, found.confidence, found.right, [found.squared_error, found.ignored]])

    def scores(self, counts: NDArray[Any]) -> Scores:
        found = calibration_scores(self._counts(counts))
        keys = ("expected_calibration_error", "maximum_calibration_error", "brier_score")
        return {key: np.asarray(getattr(found, key)) for key in keys}

    def facts(self, counts: NDArray[Any]) -> dict[str, Any]:
        found = calibration_scores(self._counts(counts)).to_dict()
        return {key: found[key] for key in ("accuracy", "confidence", *(k for k in found if k.startswith("bin_")))}

    @staticmethod
    def _counts(counts: NDArray[Any]) -> CalibrationCounts:
        pixels, confidence, right = np.split(counts[:-2], 3)
        whole = [np.rint(part).astype(np.int64) for part in (pixels, right)]
        return CalibrationCounts(whole[0], confidence, whole[1], float(counts[-2]), int(counts[-1]))


class Em(Measure):
    """Membranes in electron microscopy, as in the ISBI 2012 challenge; an image is a slice."""

    name = "em"

    @staticmethod
    def applies(table: ClassTable) -> str:
        return "" if _membrane(table) is not None else "it needs two classes of which one is called membrane"

    @cached_property
    def membrane(self) -> int:
        index = _membrane(self.table)
        assert index is not None
        return index

    def count(self, scored: Scored) -> NDArray[Any]:
        inside = 1 - self.membrane
        truth = np.where(scored.mask == IGNORE, IGNORE, scored.mask == inside).astype(np.uint8)
        probability = scored.logits[0].float().softmax(0)[inside].cpu().numpy()
        found = em_counts(probability, truth)
        rows = found.slices[:, :, 0]
        there = ~np.isnan(rows)
        parts = (np.where(there, rows, 0.0), there, found.pixels, [found.squared_error, found.counted])
        return np.concatenate([np.ravel(np.asarray(part, np.float64)) for part in parts])

    def scores(self, counts: NDArray[Any]) -> Scores:
        found = self._counts(counts).scores()
        keys = ("v_rand", "v_info", "adapted_rand_error", "warping_error", "pixel_error", "squared_error")
        return {key: np.asarray(getattr(found, key)) for key in keys}

    def facts(self, counts: NDArray[Any]) -> dict[str, Any]:
        found = self._counts(counts).scores().to_dict()
        size = 4 * len(EM_THRESHOLDS)
        slices = int(counts[size : size + len(EM_THRESHOLDS)].max())
        keys = ("v_rand_threshold", "v_info_threshold", "v_rand_at", "v_info_at")
        return {"membrane": self.table.names[self.membrane], **{key: found[key] for key in keys}, "slices": slices}

    @staticmethod
    def _counts(counts: NDArray[Any]) -> EmCounts:
        """The sum over slices as if it were one slice with their means."""
        number = len(EM_THRESHOLDS)
        rows, there, pixels, (error, counted) = np.split(counts, np.cumsum([4 * number, 4 * number, 3 * number]))
        with np.errstate(invalid="ignore"):
            means = (rows / there).reshape(4, number, 1)
        return EmCounts(EM_THRESHOLDS, means, pixels.reshape(number, 3).astype(np.int64), float(error), int(counted))


MEASURES: dict[str, type[Measure]] = {each.name: each for each in (Overlap, Boundary, Objects, Calibration, Em)}


@dataclass(frozen=True)
class Found:
    """What a measure found on a split."""

    measure: Measure
    counts: NDArray[Any]
    """(I, ...) of each image."""
    scores: Scores
    """Of all images together."""
    low: Scores
    high: Scores
    """The interval of each score."""

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the measure tells beside its scores."""
        return self.measure.facts(self.counts.sum(0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **{key: plain(value) for key, value in self.scores.items()},
            "intervals": {key: plain(np.stack([self.low[key], self.high[key]], -1)) for key in self.scores},
            **self.facts,
        }


def choose_measures(wanted: Sequence[str], dataset: Dataset) -> list[Measure]:
    """The measures of these names, overlap always first; all: those that apply to the data.

    Raises:
        ConfigError: there is no such measure, or it cannot be scored for these classes.
    """
    for name in wanted:
        if name not in (*MEASURES, "all"):
            hint = did_you_mean(name, [*MEASURES, "all"])
            raise ConfigError(f"metrics: there is no {name!r}.{hint} There are {', '.join(MEASURES)}, all.")
        reason = "" if name == "all" else MEASURES[name].applies(dataset.table)
        if reason:
            names = ", ".join(dataset.table.names)
            raise ConfigError(
                f"metrics: {name} cannot be scored on {dataset.label}: {reason}; its classes are {names}."
            )
    chosen = [
        each
        for name, each in MEASURES.items()
        if not each.optional or name in wanted or ("all" in wanted and not each.applies(dataset.table))
    ]
    return [each(dataset) for each in chosen]


def judge(measure: Measure, counts: NDArray[Any]) -> Found:
    """Scores of all images together, and intervals over images."""
    scores = measure.scores(counts.sum(0))
    low, high = interval(counts, measure.row)
    return Found(measure, counts, scores, shaped_as(scores, low), shaped_as(scores, high))


def shaped_as(scores: Scores, row: Floats) -> Scores:
    """`Measure.row`, named and shaped again."""
    sizes = [np.atleast_1d(value).size for value in scores.values()]
    parts = np.split(row, np.cumsum(sizes)[:-1])
    return {key: part.reshape(scores[key].shape) for (key, part) in zip(scores, parts, strict=True)}


def about_intervals(images: int) -> str:
    """What the intervals are, in words."""
    words = f"{LEVEL:.0%} intervals by drawing images again ({ROUNDS} times)"
    return f"{words}; with {images} images they are too narrow" if images < 20 else words


def _membrane(table: ClassTable) -> int | None:
    found = [index for index, name in enumerate(table.names) if "membrane" in name.lower()]
    return found[0] if table.count == 2 and len(found) == 1 else None


def _as_row(found: MatchCounts) -> list[float]:
    objects = (found.true_objects, found.predicted_objects, found.iou_sum, found.images, found.precision_sum)
    return [*found.true_positives, *objects]


def _as_counts(row: NDArray[Any]) -> MatchCounts:
    *hits, true_objects, predicted_objects, iou_sum, images, precision_sum = row.tolist()
    return MatchCounts(tuple(hits), true_objects, predicted_objects, iou_sum, images, precision_sum)


def _mean(values: Floats) -> Floats:
    found = values[~np.isnan(values)]
    return np.asarray(found.mean() if found.size else math.nan)
