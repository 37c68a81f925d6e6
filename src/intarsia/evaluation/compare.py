"""Runs side by side on one split: scores with intervals, and the paired difference on the same images.

Every run is scored by its own counts, kept by `evaluate` for each image; a run that has none of this split, or of other
weights than its model has now, is scored first. The paired difference draws the same images for both sides (paired bootstrap:
metrics/intervals.py), so that images that are hard for both cancel out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import ClassTable
from intarsia.errors import ConfigError
from intarsia.evaluation.evaluate import evaluate
from intarsia.evaluation.measures import (
    LESS_IS_BETTER,
    MEASURES,
    SHOWN,
    Found,
    Scores,
    about_intervals,
    choose_measures,
    judge,
    shaped_as,
)
from intarsia.evaluation.scores import between, number, read_counts, weights_of
from intarsia.metrics.intervals import paired_difference
from intarsia.metrics.plain import plain
from intarsia.progress import Progress, default_progress
from intarsia.recipes.recipe import recipe_of_run
from intarsia.runs import find_model, read_manifest


@dataclass(frozen=True)
class Side:
    """One run."""

    run: str
    images: tuple[str, ...]
    found: dict[str, Found]
    """Measure to its scores."""


@dataclass(frozen=True)
class Gap:
    """What a run scores more than the first one."""

    value: Scores
    low: Scores
    high: Scores


@dataclass(frozen=True)
class Comparison:
    """Two runs or more on one split."""

    split: str
    data: str
    table: ClassTable
    sides: tuple[Side, ...]
    gaps: tuple[dict[str, Gap], ...]
    """Of every run but the first: measure to gap; empty if not paired."""

    @property
    def measures(self) -> list[str]:
        """Those that every run was scored by."""
        return [name for name in MEASURES if all(name in side.found for side in self.sides)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        runs = [{"run": side.run, **{m: side.found[m].to_dict() for m in self.measures}} for side in self.sides]
        differences = [
            {
                "run": side.run,
                "less": self.sides[0].run,
                **{
                    name: {key: plain(np.stack([gap.value[key], gap.low[key], gap.high[key]], -1)) for key in gap.value}
                    for name, gap in gaps.items()
                },
            }
            for side, gaps in zip(self.sides[1:], self.gaps, strict=False)
        ]
        return {
            "split": self.split,
            "data": self.data,
            "classes": list(self.table.names),
            "images": len(self.sides[0].images),
            "about_intervals": about_intervals(len(self.sides[0].images)),
            "runs": runs,
            **({"paired_differences": differences} if self.gaps else {}),
        }

    def table_text(self) -> str:
        """What the command line prints."""
        count = len(self.sides[0].images)
        lines = [f"{self.split} of {self.data}, {count} images; {about_intervals(count)}", ""]
        if any(side.images != self.sides[0].images for side in self.sides):
            lines[1:] = ["not the same images: scores of the runs say little about each other", ""]
        lines += _columns(["", *(side.run for side in self.sides)], [*self._score_rows()])
        if self.gaps:
            runs = [f"{side.run}" for side in self.sides[1:]]
            lines += [
                "",
                f"more than {self.sides[0].run}, on the same images (paired); * 0 is outside the interval",
                "",
            ]
            lines += _columns(["", *runs], [*self._gap_rows()])
        return "\n".join(lines)

    def _score_rows(self) -> Iterator[list[str]]:
        for measure in self.measures:
            first = self.sides[0].found[measure].scores
            for key, place, name in _named(first, self.table):
                cells = [_between(*(_at(part, key, place) for part in _parts(side, measure))) for side in self.sides]
                if any(cell != "-" for cell in cells):
                    yield [name, *cells]

    def _gap_rows(self) -> Iterator[list[str]]:
        for measure in self.measures:
            for key, place, name in _named(self.gaps[0][measure].value, self.table):
                cells = []
                for gaps in self.gaps:
                    gap = gaps[measure]
                    value, low, high = (_at(part, key, place) for part in (gap.value, gap.low, gap.high))
                    sure = " *" if low > 0 or high < 0 else "  "
                    cells.append("-" if np.isnan(value) else f"{value:+.3f} ({low:+.3f} to {high:+.3f}){sure}")
                if any(cell != "-" for cell in cells):
                    yield [name + ("  (less is better)" if key in LESS_IS_BETTER else ""), *cells]


def compare(
    runs: Sequence[Any], *, split: str | None = None, paired: bool = False, progress: Progress | None = None
) -> Comparison:
    """Scores of several runs on the same split, side by side.

    Args:
        runs: two run folders or more, or what `train` returned.
        split: train, val or test; None: test, or val where the first run has no test.
        paired: also the difference of each run to the first, with its interval: they must have been scored on the same
            images and masks.
        progress: where notes and bars go.

    Raises:
        ConfigError: fewer than two runs, other classes, or no such split.
        DataError: paired, and the images or masks differ.
    """
    folders = [Path(getattr(run, "path", run)) for run in runs]
    if len(folders) < 2:
        raise ConfigError(f"compare: got {len(folders)} run{'s' * (len(folders) != 1)}. Name two or more.")
    progress = progress or default_progress()
    dataset = recipe_of_run(folders[0]).data.open(progress)
    chosen = split or ("test" if dataset.splits.get("test") else "val")
    dataset.items(chosen)  # told before anything is scored
    stored = [_counts_of(folder, chosen, progress) for folder in folders]
    _same_classes(folders, dataset.table)
    common = [name for name in MEASURES if all(name in counts for _, counts in stored)]
    measures = choose_measures(common, dataset)
    sides = tuple(
        Side(str(folder), tuple(names), {each.name: judge(each, counts[each.name]) for each in measures})
        for folder, (names, counts) in zip(folders, stored, strict=True)
    )
    gaps = tuple(_gaps(sides[0], side) for side in sides[1:]) if paired else ()
    return Comparison(chosen, dataset.label, dataset.table, sides, gaps)


def _counts_of(folder: Path, split: str, progress: Progress) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Image names and counts of the run's model as it is now."""
    file = folder / "report" / f"{split}.npz"
    weights = weights_of(read_manifest(find_model(folder)))
    if file.is_file():
        names, counted, counts = read_counts(file)
        if counted == weights:
            return names, counts
    progress.note(f"{folder} has no scores of {split}: it is scored now")
    evaluate(folder, split, progress=progress)
    names, _, counts = read_counts(file)
    return names, counts


def _same_classes(folders: Sequence[Path], table: ClassTable) -> None:
    for folder in folders[1:]:
        names = ClassTable(**read_manifest(find_model(folder))["classes"]).names
        if names != table.names:
            raise ConfigError(
                f"{folder}: has the classes {', '.join(names)}, {folders[0]} {', '.join(table.names)}. "
                "Compare runs of the same classes."
            )


def _gaps(first: Side, other: Side) -> dict[str, Gap]:
    found = {}
    for name, one in first.found.items():
        two = other.found[name]
        pair = [dict(zip(side.images, each.counts, strict=True)) for side, each in ((other, two), (first, one))]
        gap = paired_difference(pair[0], pair[1], one.measure.row)
        found[name] = Gap(*(shaped_as(one.scores, np.asarray(part)) for part in (gap.value, gap.low, gap.high)))
    return found


def _parts(side: Side, measure: str) -> tuple[Scores, Scores, Scores]:
    found = side.found[measure]
    return found.scores, found.low, found.high


def _named(scores: Scores, table: ClassTable) -> Iterator[tuple[str, int | None, str]]:
    """Key, place and words of each number: those of the whole first, then of the classes."""
    for key in scores:
        if not scores[key].ndim:
            yield key, None, SHOWN[key]
    for key in ("iou", "boundary_f1", "hausdorff95", "average_precision", "panoptic_quality"):
        if key in scores:
            for place, name in enumerate(table.names):
                yield key, place, f"{SHOWN[key]} of {name}"


def _at(scores: Scores, key: str, place: int | None) -> float:
    return float(scores[key] if place is None else scores[key][place])


def _between(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "-"
    return number(value) + (f" ({between(low, high)})" if between(low, high) else "")


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under a heading, columns as wide as they need."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
