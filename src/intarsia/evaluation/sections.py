"""What a report says of the measures beside overlap, as plain values: key numbers, a table by class, the reliability curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intarsia.evaluation.figures import percent, whole
from intarsia.evaluation.measures import SHOWN, Found
from intarsia.evaluation.scores import Evaluation, between, number


@dataclass(frozen=True)
class Figure:
    """A key number with its interval."""

    name: str
    value: str
    between: str
    """ "0.21 to 0.34"; "" where there is no interval."""


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability curve, in the chart's own coordinates."""

    x: float
    y: float
    size: float
    """Height of its bar of pixels."""
    left: float
    width: float
    tip: str


@dataclass(frozen=True)
class Section:
    """One measure."""

    key: str
    title: str
    note: str
    figures: tuple[Figure, ...]
    head: tuple[str, ...] = ()
    rows: tuple[tuple[int, tuple[Figure, ...]], ...] = ()
    """Class, and its numbers."""
    bins: tuple[Bin, ...] = ()

    SIDE = 240.0
    """Of the reliability chart."""


def sections(evaluation: Evaluation) -> list[Section]:
    """Of every measure that was scored beside overlap."""
    makers: Mapping[str, Callable[[Evaluation, Found], Section]] = {
        "boundary": _boundary,
        "objects": _objects,
        "calibration": _calibration,
        "em": _em,
    }
    return [make(evaluation, evaluation.found[name]) for name, make in makers.items() if name in evaluation.found]


def _boundary(evaluation: Evaluation, found: Found) -> Section:
    facts = found.facts
    keys = ("boundary_f1", "boundary_iou", "hausdorff95", "surface_distance")
    note = (
        "How near the outlines of prediction and truth are. F1 is over outline pixels within 0.75 % of the image diagonal, "
        "boundary IoU over a band of 2 % of it; both are best at 1. Distances are in pixels, best at 0, and means over images "
        "that have the class on both sides. Missed and invented are images that have it in the truth or prediction alone; "
        "they have no distance, and F1 0."
    )
    head, rows = _by_class(evaluation, found, keys)
    counted = [
        (index, (*cells, _plain(facts["missed"][index]), _plain(facts["invented"][index]))) for index, cells in rows
    ]
    return Section("boundary", "Boundaries", note, _figures(found), (*head, "Missed", "Invented"), tuple(counted))


def _objects(evaluation: Evaluation, found: Found) -> Section:
    facts = found.facts
    drawn = any(image.item.instances is not None for image in evaluation.images)
    truth = "as drawn" if drawn else "connected parts of the mask"
    note = (
        f"Single objects, in the truth {truth}, in the prediction its connected parts. Object AP is the mean over images of "
        "TP / (TP + FP + FN) at IoU above 0.50, 0.55, ..., 0.95 (Data Science Bowl 2018); PQ is the mean IoU of matches (SQ) "
        "times the F-score of finding objects (RQ), at IoU above 0.5."
    )
    keys = ("average_precision", "panoptic_quality", "segmentation_quality", "recognition_quality")
    head, rows = _by_class(evaluation, found, keys)
    counted = [
        (index, (*cells, _plain(facts["true_objects"][index]), _plain(facts["predicted_objects"][index])))
        for index, cells in rows
    ]
    return Section("objects", "Objects", note, _figures(found), (*head, "True", "Predicted"), tuple(counted))


def _calibration(evaluation: Evaluation, found: Found) -> Section:
    facts = found.facts
    total = max(1, sum(facts["bin_pixels"]))
    note = (
        "Of the pixels whose class has a probability of about 0.8, about 80 % should be right: on the diagonal. Below it the "
        "model is surer than it is right. Bars are the share of pixels. "
    )
    if facts["accuracy"] is not None:
        note += f"On average it says {100 * facts['confidence']:.1f} % and is right in {100 * facts['accuracy']:.1f} %."
    bins = []
    most = max(1, *facts["bin_pixels"])
    for place, (accuracy, confidence, pixels) in enumerate(
        zip(facts["bin_accuracy"], facts["bin_confidence"], facts["bin_pixels"], strict=True)
    ):
        if pixels:
            low, high = facts["bin_edges"][place : place + 2]
            tip = f"says {percent(confidence)}, right in {percent(accuracy)}; {percent(pixels / total)} of the pixels"
            side = Section.SIDE
            bins.append(
                Bin(
                    side * confidence, side * (1 - accuracy), side * pixels / most, side * low, side * (high - low), tip
                )
            )
    return Section("calibration", "Calibration", note, _figures(found), bins=tuple(bins))


def _em(evaluation: Evaluation, found: Found) -> Section:
    facts = found.facts
    note = (
        "As in the ISBI 2012 challenge (Arganda-Carreras et al. 2015): V_Rand and V_Info of regions after thinning the "
        "membrane, best at 1; errors best at 0. Each at the threshold that is best for the whole stack: "
        f"{_threshold(facts['v_rand_threshold'])} for V_Rand, {_threshold(facts['v_info_threshold'])} for V_Info."
    )
    return Section("em", "Membranes", note, _figures(found))


def _threshold(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"


def _figures(found: Found) -> tuple[Figure, ...]:
    """The numbers that are not of one class."""
    return tuple(_figure(found, key) for key, value in found.scores.items() if not value.ndim)


def _figure(found: Found, key: str, place: int | None = None) -> Figure:
    value, low, high = (
        float(part[key] if place is None else part[key][place]) for part in (found.scores, found.low, found.high)
    )
    return Figure(SHOWN[key], "-" if math.isnan(value) else number(value), between(low, high))


def _plain(value: int) -> Figure:
    return Figure("", whole(value), "")


def _by_class(evaluation: Evaluation, found: Found, keys: tuple[str, ...]) -> tuple[Any, Any]:
    """Heading and rows of the classes that have a score."""
    rows = [
        (index, tuple(_figure(found, key, index) for key in keys))
        for index in range(evaluation.table.count)
        if not all(np.isnan(found.scores[key][index]) for key in keys)
    ]
    return tuple(SHOWN[key] for key in keys), tuple(rows)
