"""The figures of a report as plain values: bars of classes, the confusion matrix, curves. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intarsia.classes import ClassTable
from intarsia.evaluation.scores import Evaluation, between

MOST_ROWS = 40
"""Classes that the confusion matrix shows."""
MOST_NUMBERS = 12
"""Up to so many classes the matrix prints its numbers."""
MOST_POINTS = 300

Row = dict[str, float | None]


def score(value: float, digits: int = 3) -> str:
    """A score as text; "-" where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def whole(value: int) -> str:
    """A count with narrow spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def percent(share: float) -> str:
    """A share as per cent, with about two figures."""
    if not math.isfinite(share):
        return "-"
    value = 100 * share
    if 0 < value < 0.01:
        return "<0.01\u202f%"
    digits = 0 if value >= 9.95 or value == 0 else 1 if value >= 0.995 else 2
    return f"{value:.{digits}f}\u202f%"


@dataclass(frozen=True)
class ClassBar:
    """What the report says of one class."""

    index: int
    name: str
    iou: float
    dice: float
    truth_share: float
    predicted_share: float
    truth_pixels: int
    predicted_pixels: int
    low: float = math.nan
    high: float = math.nan
    """The interval of the IoU."""

    @property
    def between(self) -> str:
        """The interval in words; "" where there is none."""
        return between(self.low, self.high)

    @property
    def ratio(self) -> str:
        """Predicted pixels by true ones, in words."""
        if not self.truth_pixels:
            return "no truth"
        if not self.predicted_pixels:
            return "never"
        ratio = self.predicted_pixels / self.truth_pixels
        return "< 0.01" if ratio < 0.005 else f"{ratio:.2f}" if ratio < 9.95 else whole(round(ratio))


def class_bars(evaluation: Evaluation) -> list[ClassBar]:
    """Classes that have a score, best first."""
    scores, total = evaluation.scores, max(1, int(evaluation.counts.sum()))
    overlap = evaluation.found.get("overlap")
    low, high = (
        (part["iou"] for part in (overlap.low, overlap.high)) if overlap else [[math.nan] * evaluation.table.count] * 2
    )
    bars = [
        ClassBar(
            index=index,
            name=name,
            iou=float(scores.iou[index]),
            dice=float(scores.dice[index]),
            truth_share=int(scores.truth_pixels[index]) / total,
            predicted_share=int(scores.predicted_pixels[index]) / total,
            truth_pixels=int(scores.truth_pixels[index]),
            predicted_pixels=int(scores.predicted_pixels[index]),
            low=float(low[index]),
            high=float(high[index]),
        )
        for index, name in enumerate(evaluation.table.names)
        if math.isfinite(scores.iou[index])
    ]
    return sorted(bars, key=lambda bar: (-bar.iou, bar.index))


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix; share is None where the truth has no pixel of the class."""

    share: float | None
    text: str
    tip: str
    right: bool


@dataclass(frozen=True)
class Confusion:
    """A pair of classes that are taken for each other."""

    truth: int
    predicted: int
    share_of_errors: str
    share_of_class: str


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix, rows normalised."""

    classes: tuple[int, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int
    """Classes that have a score but no row."""
    numbers: bool
    worst: tuple[Confusion, ...]
    """Where most of the wrong pixels are."""


def confusion_matrix(evaluation: Evaluation) -> Matrix:
    """Classes in truth or prediction, in the order of the class table; the most frequent ones if there are many."""
    counts, scores = evaluation.counts, evaluation.scores
    weight = scores.truth_pixels + scores.predicted_pixels
    there = [int(index) for index in np.flatnonzero(weight > 0)]
    shown = tuple(sorted(sorted(there, key=lambda index: (-int(weight[index]), index))[:MOST_ROWS]))
    rows = tuple(tuple(_cell(evaluation, truth, predicted) for predicted in shown) for truth in shown)
    wrong = counts - np.diag(np.diag(counts))
    largest = np.argsort(-wrong, axis=None, kind="stable")[:5]
    pairs = [divmod(int(place), evaluation.table.count) for place in largest]
    worst = tuple(
        Confusion(t, p, percent(wrong[t, p] / wrong.sum()), percent(wrong[t, p] / counts[t].sum()))
        for t, p in pairs
        if wrong[t, p] > 0
    )
    return Matrix(shown, rows, len(there) - len(shown), len(shown) <= MOST_NUMBERS, worst)


def _cell(evaluation: Evaluation, truth: int, predicted: int) -> Cell:
    pixels, total = int(evaluation.counts[truth, predicted]), int(evaluation.counts[truth].sum())
    names, right = evaluation.table.names, truth == predicted
    if not total:
        return Cell(None, "", f"{names[truth]} is not in the truth", right)
    share = pixels / total
    what = "recognised" if right else f"taken for {names[predicted]}"
    tip = f"{names[truth]} {what}: {percent(share)} of its pixels ({whole(pixels)})"
    text = "" if not pixels else "1" if pixels == total else "<.01" if share < 0.005 else f"{min(share, 0.99):.2f}"[1:]
    return Cell(share, text, tip, right)


@dataclass(frozen=True)
class Point:
    """A point of a curve, in the chart's own coordinates."""

    x: float
    y: float
    tip: str


@dataclass(frozen=True)
class Line:
    """A curve; `points` are marked only where there are few."""

    label: str
    kind: str
    path: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Curves over steps. `LEFT`..`RIGHT` and `TOP`..`BOTTOM` is the plot's area."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    chosen: float | None
    """Place of the chosen step on the x axis."""

    LEFT, RIGHT, TOP, BOTTOM = 46.0, 450.0, 14.0, 204.0


def charts(rows: Sequence[Row], chosen_step: int | None) -> list[Chart]:
    """Loss, and mean IoU on validation, as far as they were measured."""
    wanted = (
        ("Loss", (("loss", "training"), ("val_loss", "validation"))),
        ("Mean IoU on validation", (("val_mean_iou", "mean IoU"),)),
    )
    found = (_chart(rows, title, series, chosen_step) for title, series in wanted)
    return [chart for chart in found if chart is not None]


def _chart(rows: Sequence[Row], title: str, series: Sequence[tuple[str, str]], chosen_step: int | None) -> Chart | None:
    curves = {column: _values(rows, column) for column, _ in series}
    values = [value for points in curves.values() for _, value in points]
    if not values:
        return None
    steps = [step for points in curves.values() for step, _ in points]
    x_ticks = nice_ticks(0.0, max(1.0, *steps), 5)
    y_ticks = nice_ticks(min(values), max(values), 4)
    digits = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0]) + 1e-9))

    def x(step: float) -> float:
        return Chart.LEFT + (Chart.RIGHT - Chart.LEFT) * step / max(1.0, *steps)

    def y(value: float) -> float:
        return Chart.BOTTOM - (Chart.BOTTOM - Chart.TOP) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    lines = []
    for column, label in series:
        points = [Point(x(s), y(v), f"{label} {v:.4g} at step {whole(round(s))}") for s, v in curves[column]]
        path = " ".join(f"{'L' if place else 'M'}{p.x:.1f} {p.y:.1f}" for place, p in enumerate(points))
        if points:
            lines.append(Line(label, column.replace("_", "-"), path, tuple(points) if len(points) <= 60 else ()))
    marked = x(chosen_step) if chosen_step is not None and 0 < chosen_step <= max(steps) else None
    return Chart(
        title,
        tuple(lines),
        tuple(Tick(x(tick), whole(round(tick))) for tick in x_ticks if tick <= max(steps) and tick == round(tick)),
        tuple(Tick(y(tick), f"{tick:.{digits}f}") for tick in y_ticks),
        marked,
    )


def _values(rows: Sequence[Row], column: str) -> list[tuple[float, float]]:
    """Steps and finite values; of very many, means of neighbours."""
    pairs = [(row["step"], row[column]) for row in rows]
    points = [(step, value) for step, value in pairs if step is not None and value is not None and math.isfinite(value)]
    if len(points) <= MOST_POINTS:
        return points
    parts = np.array_split(np.array(points), MOST_POINTS)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that enclose low and high."""
    span = max(high - low, abs(high) * 1e-3, 1e-6)
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, max(last, first + 1) + 1)]


def css(colour: tuple[int, int, int]) -> str:
    """A colour as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def css_colours(table: ClassTable) -> list[str]:
    """The colours of all classes."""
    return [css(colour) for colour in table.colors]
