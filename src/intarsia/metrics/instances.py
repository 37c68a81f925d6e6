"""Object scores: the average precision of the Data Science Bowl 2018, and panoptic quality.

An object is a set of pixels with one number; a predicted and a true object have IoU = intersection / union of their pixels.
They match at a threshold t if IoU > t. The comparison is strict, as in the rules of the competition ("greater than the
threshold") and in arXiv:1801.00868, section 4.1, and is made in whole numbers, so that 11 / 20 is never above 0.55. All
thresholds are 0.5 or more, and IoU > 0.5 allows each object one partner at most (theorem 1 there): the match is unique and
no assignment problem is left. A pair with an IoU of exactly 0.5 or less is no match, hence needs no rule. (StarDist counts
IoU >= t and assigns; the two differ on exact ties only.)

TP(t) are matched pairs, FP(t) predicted objects without a partner, FN(t) true objects without one.

| score | definition | taken over |
|---|---|---|
| AP(t) of an image | TP(t) / (TP(t) + FP(t) + FN(t)) | one image |
| DSB 2018 score | mean over images of the mean of AP(t) over t = 0.50, 0.55, ..., 0.95 | images |
| AP(t) of the data set | the same fraction of the summed counts | all objects |
| SQ | sum of IoU of the matches / TP, at t = 0.5 | all objects |
| RQ | TP / (TP + FP / 2 + FN / 2), at t = 0.5: the F-score | all objects |
| PQ | SQ * RQ = sum of IoU / (TP + FP / 2 + FN / 2) (equation 1) | all objects |

No object in truth and prediction: no score (NaN), and the image or class is left out of the mean. Predictions where nothing
is: 0. No match at all: PQ = RQ = 0, and SQ, a mean over matches, is NaN. Ignored pixels belong to no object on either side.

A semantic mask has no objects: `match_classes` takes the connected parts of each class, which is neither "things" (parts
that touch count as one) nor "stuff" (one segment a class) of the panoptic task, and compares only with itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE
from intarsia.errors import DataError
from intarsia.metrics.plain import plain
from intarsia.ops.objects import parts_of

PERCENT = tuple(range(50, 100, 5))
"""The thresholds of the Data Science Bowl, in percent."""
THRESHOLDS = tuple(percent / 100 for percent in PERCENT)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class MatchCounts:
    """Counts of one image, or their sum over images: `a + b`; `MatchCounts()` is nothing yet."""

    true_positives: tuple[int, ...] = (0,) * len(PERCENT)
    """At each of `THRESHOLDS`."""
    true_objects: int = 0
    predicted_objects: int = 0
    iou_sum: float = 0.0
    """Of the matches at 0.5."""
    images: int = 0
    """With an object in truth or prediction."""
    precision_sum: float = 0.0
    """Of the images' scores, each a mean over thresholds."""

    @property
    def false_positives(self) -> tuple[int, ...]:
        """At each of `THRESHOLDS`."""
        return tuple(self.predicted_objects - hits for hits in self.true_positives)

    @property
    def false_negatives(self) -> tuple[int, ...]:
        """At each of `THRESHOLDS`."""
        return tuple(self.true_objects - hits for hits in self.true_positives)

    def __add__(self, other: MatchCounts) -> MatchCounts:
        return MatchCounts(
            tuple(a + b for a, b in zip(self.true_positives, other.true_positives, strict=True)),
            self.true_objects + other.true_objects,
            self.predicted_objects + other.predicted_objects,
            self.iou_sum + other.iou_sum,
            self.images + other.images,
            self.precision_sum + other.precision_sum,
        )


@dataclass(frozen=True)
class ObjectScores:
    """Scores of a set of images; NaN where there is no score."""

    average_precision: float
    """DSB 2018: mean over images of the mean over thresholds."""
    average_precision_at: Floats
    """(10,) over all objects of the data set, at each of `THRESHOLDS`."""
    panoptic_quality: float
    segmentation_quality: float
    recognition_quality: float
    true_objects: int
    predicted_objects: int
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; null where there is no score."""
        return {
            "average_precision": plain(self.average_precision),
            "average_precision_at": {
                f"{threshold:.2f}": plain(value)
                for threshold, value in zip(THRESHOLDS, self.average_precision_at.tolist(), strict=True)
            },
            "panoptic_quality": plain(self.panoptic_quality),
            "segmentation_quality": plain(self.segmentation_quality),
            "recognition_quality": plain(self.recognition_quality),
            "true_objects": self.true_objects,
            "predicted_objects": self.predicted_objects,
            "images": self.images,
        }


def match_objects(
    truth: NDArray[Any], prediction: NDArray[Any], ignore: NDArray[np.bool_] | None = None
) -> MatchCounts:
    """Counts of one image.

    Args:
        truth: whole numbers, 0 no object, any other number one object, of one part or several; usually (H, W).
        prediction: the same for the prediction; its numbers need not be those of the truth.
        ignore: True where a pixel is not counted; it is taken from the objects on both sides, and an object with no other
            pixel is none.

    Raises:
        DataError: the shapes differ, or the numbers are not whole or below 0.
    """
    truth, prediction = _whole("truth", truth), _whole("prediction", prediction)
    if ignore is not None:
        same_shape(truth, ignore, "ignore")
        counted = ~np.asarray(ignore, np.bool_)
        same_shape(truth, prediction, "prediction")
        truth, prediction = truth[counted], prediction[counted]
    row, column, both = contingency(truth, prediction)
    true_numbers, true_sizes, true_place = sums_by(row, both)
    predicted_numbers, predicted_sizes, predicted_place = sums_by(column, both)
    true_objects, predicted_objects = (int(np.count_nonzero(part)) for part in (true_numbers, predicted_numbers))
    pair = (row > 0) & (column > 0)
    both, union = both[pair], (true_sizes[true_place] + predicted_sizes[predicted_place] - both)[pair]
    hits = tuple(int(np.count_nonzero(100 * both > percent * union)) for percent in PERCENT)
    matched = 2 * both > union
    objects = true_objects + predicted_objects
    return MatchCounts(
        hits,
        true_objects,
        predicted_objects,
        iou_sum=math.fsum(both[matched] / union[matched]),  # in any order the same
        images=int(objects > 0),
        precision_sum=float(np.mean([hit / (objects - hit) for hit in hits])) if objects else 0.0,
    )


def match_classes(
    truth: NDArray[Any],
    prediction: NDArray[Any],
    num_classes: int,
    *,
    ignore_index: int = IGNORE,
    connectivity: int = 8,
) -> tuple[MatchCounts, ...]:
    """Counts of one semantic image, one entry a class: the connected parts of the class are its objects.

    Ignored pixels leave both masks before the parts are found, so that a right prediction is cut where the truth is cut.

    Args:
        truth: (H, W) class numbers; `ignore_index` is not counted.
        prediction: (H, W) class numbers 0..K-1.
        num_classes: K. Class 0 is counted as any other; leave it out of a mean where it is the background.
        ignore_index: the number of a pixel without truth.
        connectivity: 8, parts join by side or corner (default, as in the border weights of the losses), or 4, by side only.
    """
    same_shape(truth, prediction, "prediction")
    counted = truth != ignore_index
    return tuple(
        match_objects(
            parts_of((truth == index) & counted, connectivity),
            parts_of((prediction == index) & counted, connectivity),
        )
        for index in range(num_classes)
    )


def object_scores(counts: MatchCounts) -> ObjectScores:
    """All object scores of summed counts.

    >>> mask = np.array([[1, 1, 0, 2]])
    >>> object_scores(match_objects(mask, mask)).panoptic_quality
    1.0
    """
    hits = np.array(counts.true_positives, np.float64)
    objects = counts.true_objects + counts.predicted_objects
    matched = counts.true_positives[0]
    return ObjectScores(
        average_precision=_share(counts.precision_sum, counts.images),
        average_precision_at=hits / (objects - hits) if objects else np.full(len(PERCENT), np.nan),
        panoptic_quality=_share(2 * counts.iou_sum, objects),  # TP + FP / 2 + FN / 2 = objects / 2
        segmentation_quality=_share(counts.iou_sum, matched),
        recognition_quality=_share(2 * matched, objects),
        true_objects=counts.true_objects,
        predicted_objects=counts.predicted_objects,
        images=counts.images,
    )


def mean_panoptic_quality(counts: Sequence[MatchCounts]) -> float:
    """Mean PQ over classes (arXiv:1801.00868, section 4.2); a class without an object is left out, NaN if all are."""
    values = [object_scores(part).panoptic_quality for part in counts if part.images]
    return float(np.mean(values)) if values else float("nan")


def contingency(truth: NDArray[Any], prediction: NDArray[Any]) -> tuple[Integers, Integers, Integers]:
    """The cells of the contingency table that are not 0: true number, predicted number, pixels; by true number, then predicted.

    Args:
        truth: whole numbers from 0 on, any shape.
        prediction: the same shape.
    """
    same_shape(truth, prediction, "prediction")
    if not truth.size:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing
    rows, columns = int(truth.max()) + 1, int(prediction.max()) + 1
    if max(rows, columns) > 2**31:
        true_numbers, truth = np.unique(truth, return_inverse=True)
        predicted_numbers, prediction = np.unique(prediction, return_inverse=True)
        row, column, pixels = contingency(truth, prediction)
        return true_numbers[row].astype(np.int64), predicted_numbers[column].astype(np.int64), pixels
    cells = truth.astype(np.int64).ravel() * columns + prediction.ravel().astype(np.int64)
    if rows * columns <= 4 * cells.size + 4096:
        table = np.bincount(cells)
        places = np.flatnonzero(table)
        return places // columns, places % columns, table[places]
    places, pixels = np.unique(cells, return_counts=True)
    return places // columns, places % columns, pixels.astype(np.int64)


def sums_by(numbers: Integers, pixels: Integers) -> tuple[Integers, Integers, NDArray[np.intp]]:
    """Numbers that occur, ascending, the pixels of each, and for each cell the place of its number among them."""
    found, places = np.unique(numbers, return_inverse=True)
    sums = np.zeros(found.size, np.int64)
    np.add.at(sums, places, pixels)
    return found, sums, places


def same_shape(truth: NDArray[Any], other: NDArray[Any], name: str) -> None:
    """Refuse arrays that cannot be compared pixel by pixel."""
    if truth.shape != other.shape:
        raise DataError(f"truth is {truth.shape}, {name} {other.shape}. Give both at the size of the truth.")


def _whole(name: str, numbers: NDArray[Any]) -> NDArray[Any]:
    numbers = np.asarray(numbers)
    if numbers.dtype.kind not in "iub":
        raise DataError(f"{name} must hold whole numbers, one an object and 0 for none, got {numbers.dtype}.")
    if numbers.size and numbers.min() < 0:
        raise DataError(f"{name} holds {numbers.min()}; objects are numbered from 1, and 0 is no object.")
    return numbers


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
