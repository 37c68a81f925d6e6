"""Boundary scores of each class, from counts of one image that add over images. Needs scipy, imported on use.

The boundary of a class is its pixels with a 4-neighbour outside it, within the class. The image ends where the class does: a
pixel at the image border is on the boundary, as in MONAI, MedPy, surface-distance and the code of Boundary IoU, so that
a class that fills the image has a boundary too. A pixel ignored in the truth (255) is in no class on either side, is no
boundary and makes none of its neighbours; a class with nothing but ignored pixels around it has no boundary.

P and T are the boundaries in prediction and truth, d(p, T) the Euclidean distance of pixel centres from p to the nearest of T.

| score | definition | over images |
|---|---|---|
| boundary F1 | 2 precision recall / (precision + recall) | mean over images with P or T |
| boundary IoU | overlap / union of the inner bands of prediction and truth | overlaps and unions are summed first |
| Hausdorff distance 95 | max of the 95th percentiles of d(p, T) over P and of d(t, P) over T | mean over images with both |
| surface distance | (sum d(p, T) + sum d(t, P)) / (number of P + number of T) | mean over images with both |

Boundary F1 (BF; Csurka et al., BMVC 2013): precision is the share of P with d(p, T) <= tolerance, recall that of T with
d(t, P) <= tolerance. Boundary IoU (Cheng et al., arXiv:2103.16562): the inner band is what `width` erosions by 3 x 3, as in
the authors' code, take from the class: its pixels at most `width` rows and columns from outside. Percentiles are interpolated
linearly. MONAI's distances, the second with `symmetric=True`, are these; MedPy's are not: its `hd95` takes one percentile of
both directions together, and its `assd` the mean of the two directed means, whatever their lengths.

A class with a boundary on neither side has no score in the image (NaN) and enters no mean. With one on one side only, the image
counts with boundary F1 0, its band enters the union, and there is no distance: no finite one is right, and infinity would
swallow the mean. Such images are counted in `missed` and `invented`; read a distance together with them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE
from intarsia.errors import ConfigError, DataError
from intarsia.metrics.plain import plain

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Labels = NDArray[np.int32]

TOLERANCE = 0.0075
"""Share of the image diagonal within which a boundary pixel is right."""
WIDTH = 0.02
"""Share of the image diagonal that the inner band is wide."""
BEYOND = -1
"""What lies beyond the image: no class, and known."""


@dataclass(frozen=True)
class BoundaryCounts:
    """What the scores are made of; adds over images. All are (K,)."""

    truth_only: Counts
    """Images with a boundary in the truth only."""
    prediction_only: Counts
    """Images with a boundary in the prediction only."""
    both: Counts
    """Images with a boundary on both sides."""
    f1: Floats
    """Sum over images of boundary F1."""
    hausdorff95: Floats
    """Sum over `both` of the Hausdorff distance 95."""
    surface_distance: Floats
    """Sum over `both` of the average symmetric surface distance."""
    band_overlap: Counts
    """Pixels in the bands of truth and prediction."""
    band_union: Counts
    """Pixels in either band."""

    @classmethod
    def zero(cls, num_classes: int) -> BoundaryCounts:
        """Of no image."""
        none, nothing = np.zeros(num_classes, np.int64), np.zeros(num_classes)
        return cls(none, none, none, nothing, nothing, nothing, none, none)

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class BoundaryScores:
    """Scores of one image or of many; NaN where a class has no score. Means are over the classes that have one."""

    mean_boundary_f1: float
    mean_boundary_iou: float
    mean_hausdorff95: float
    mean_surface_distance: float
    boundary_f1: Floats
    """(K,) mean over images."""
    boundary_iou: Floats
    """(K,) of the summed bands."""
    hausdorff95: Floats
    """(K,) mean over images that have a distance."""
    surface_distance: Floats
    """(K,) the same."""
    images: Counts
    """(K,) images with the boundary in truth or prediction."""
    missed: Counts
    """(K,) those with it in the truth only: boundary F1 0, no distance."""
    invented: Counts
    """(K,) those with it in the prediction only: the same."""

    @property
    def absent(self) -> list[int]:
        """Classes without a boundary in truth and prediction; they are in no mean."""
        return [int(index) for index in np.flatnonzero(self.images == 0)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; null where a class has no score."""

        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


def boundary_counts(
    prediction_HW: NDArray[Any],
    mask_HW: NDArray[Any],
    num_classes: int,
    *,
    tolerance: float | None = None,
    width: int | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> BoundaryCounts:
    """Boundary counts of one image.

    Args:
        prediction_HW: class numbers 0..K-1.
        mask_HW: true class numbers, 255 ignored.
        num_classes: K.
        tolerance: of boundary F1, in the unit of `spacing`; None: 0.75 % of the image diagonal, less than one pixel where the
            diagonal is below 134.
        width: of the band of boundary IoU, in pixels whatever the spacing; None: 2 % of the diagonal, rounded, at least 1.
        spacing: height and width of a pixel; distances are in its unit, pixels by default.
    """
    if min(spacing) <= 0 or (tolerance or 0) < 0 or (width is not None and width < 1):
        met = f"spacing {spacing}, tolerance {tolerance}, width {width}"
        raise ConfigError(f"spacing must be above 0, tolerance at least 0 and width at least 1, got {met}.")
    truth, predicted = _labels(prediction_HW, mask_HW, num_classes)
    if not truth.size:
        return BoundaryCounts.zero(num_classes)
    height, length = truth.shape
    if tolerance is None:
        tolerance = TOLERANCE * float(np.hypot(height * spacing[0], length * spacing[1]))
    if width is None:
        width = max(1, round(WIDTH * float(np.hypot(height, length))))
    overlap, union = _bands(truth, predicted, width, num_classes)
    rims = [_points(labels, num_classes) for labels in (truth, predicted)]
    there, said = (np.array([len(points) > 0 for points in rim]) for rim in rims)
    f1, hausdorff95, surface = (np.zeros(num_classes) for _ in range(3))
    for index in np.flatnonzero(there & said):
        t, p = rims[0][index], rims[1][index]
        missing, extra = _distances(t, p, spacing), _distances(p, t, spacing)
        precision, recall = float(np.mean(extra <= tolerance)), float(np.mean(missing <= tolerance))
        f1[index] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        hausdorff95[index] = max(np.percentile(missing, 95), np.percentile(extra, 95))
        surface[index] = (missing.sum() + extra.sum()) / (missing.size + extra.size)
    return BoundaryCounts(
        truth_only=(there & ~said).astype(np.int64),
        prediction_only=(said & ~there).astype(np.int64),
        both=(there & said).astype(np.int64),
        f1=f1,
        hausdorff95=hausdorff95,
        surface_distance=surface,
        band_overlap=overlap,
        band_union=union,
    )


def boundary_scores(counts: BoundaryCounts) -> BoundaryScores:
    """All boundary scores of one image's counts, or of the sum of many.

    >>> truth, moved = np.zeros((2, 20, 20), np.uint8)
    >>> truth[5:15, 5:15] = moved[5:15, 7:17] = 1
    >>> scores = boundary_scores(boundary_counts(moved, truth, 2, tolerance=1))
    >>> float(scores.hausdorff95[1]), round(float(scores.surface_distance[1]), 4)
    (2.0, 1.0)
    """
    images = counts.truth_only + counts.prediction_only + counts.both
    with np.errstate(invalid="ignore"):
        f1, iou = counts.f1 / images, counts.band_overlap / counts.band_union
        hausdorff95, surface = counts.hausdorff95 / counts.both, counts.surface_distance / counts.both
    return BoundaryScores(
        mean_boundary_f1=_mean(f1),
        mean_boundary_iou=_mean(iou),
        mean_hausdorff95=_mean(hausdorff95),
        mean_surface_distance=_mean(surface),
        boundary_f1=f1,
        boundary_iou=iou,
        hausdorff95=hausdorff95,
        surface_distance=surface,
        images=images,
        missed=counts.truth_only,
        invented=counts.prediction_only,
    )


def _labels(prediction: NDArray[Any], mask: NDArray[Any], num_classes: int) -> tuple[Labels, Labels]:
    """Truth and prediction, both 255 where the truth is ignored."""
    truth, predicted = np.asarray(mask), np.asarray(prediction)
    if truth.ndim != 2 or truth.shape != predicted.shape:
        met = f"{predicted.shape} and {truth.shape}"
        raise DataError(f"prediction and mask must both be (height, width), got {met}. Score one image at a time.")
    ignored = truth == IGNORE
    for name, labels in (("prediction", predicted), ("mask", truth)):
        wrong = ~ignored & ((labels < 0) | (labels >= num_classes))
        if wrong.any():
            raise DataError(
                f"the {name} holds {labels[wrong][0]}, but classes are 0 to {num_classes - 1}. Map it, or use 255."
            )
    return truth.astype(np.int32), np.where(ignored, IGNORE, predicted).astype(np.int32)


def _rim(labels: Labels) -> NDArray[np.bool_]:
    """Pixels with a 4-neighbour of another class, or beyond the image; one pass for all classes."""
    around = np.pad(labels, 1, constant_values=BEYOND)
    rim = np.zeros(labels.shape, bool)
    for neighbour in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]):
        rim |= (neighbour != labels) & (neighbour != IGNORE)
    rim &= labels != IGNORE
    return rim


def _points(labels: Labels, num_classes: int) -> list[NDArray[np.int64]]:
    """(n, 2) boundary pixels of each class."""
    where = np.argwhere(_rim(labels))
    classes = labels[where[:, 0], where[:, 1]]
    order = np.argsort(classes, kind="stable")
    return np.split(where[order], np.cumsum(np.bincount(classes, minlength=num_classes))[:-1])


def _distances(
    points: NDArray[np.int64], others: NDArray[np.int64], spacing: tuple[float, float], tree: bool | None = None
) -> Floats:
    """Distance of each point to the nearest of the others.

    Both ways are exact. A tree costs by points; a distance transform by pixels of the rectangle that holds both sets, about a
    thirtieth of a point each. None: the cheaper one, which is the tree unless the outline is ragged.
    """
    from scipy import ndimage
    from scipy.spatial import cKDTree

    first = np.minimum(points.min(0), others.min(0))
    height, length = np.maximum(points.max(0), others.max(0)) - first + 1
    if tree is None:
        tree = len(points) * 30 < height * length
    if tree:
        found, _ = cKDTree(others * np.asarray(spacing)).query(points * np.asarray(spacing))
        return np.asarray(found, np.float64)
    free = np.ones((height, length), bool)
    free[tuple((others - first).T)] = False
    transform: Floats = ndimage.distance_transform_edt(free, sampling=spacing)
    return np.asarray(transform[tuple((points - first).T)])


def _band(labels: Labels, width: int) -> NDArray[np.bool_]:
    """Pixels with another class, or what is beyond the image, at most `width` rows and columns away; for all classes at once.

    There is another class in a square exactly if its least or its largest class is not that of the pixel in the middle.
    """
    from scipy import ndimage

    ignored, size = labels == IGNORE, 2 * width + 1
    least = np.where(ignored, np.iinfo(np.int32).max, labels)
    most = np.where(ignored, np.iinfo(np.int32).min, labels)
    for axis in (0, 1):
        least = ndimage.minimum_filter1d(least, size, axis, mode="constant", cval=BEYOND)
        most = ndimage.maximum_filter1d(most, size, axis, mode="constant", cval=BEYOND)
    band: NDArray[np.bool_] = ((least != labels) | (most != labels)) & ~ignored
    return band


def _bands(truth: Labels, predicted: Labels, width: int, num_classes: int) -> tuple[Counts, Counts]:
    """Pixels of each class in both bands, and in either."""
    t, p = _band(truth, width), _band(predicted, width)
    each = [
        np.bincount(labels[where], minlength=num_classes)
        for labels, where in ((truth, t & p & (truth == predicted)), (truth, t), (predicted, p))
    ]
    return each[0], each[1] + each[2] - each[0]


def _mean(values: Floats) -> float:
    found = values[~np.isnan(values)]
    return float(found.mean()) if found.size else float("nan")
