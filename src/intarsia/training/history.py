"""metrics.csv: what a run measured, line by line, and the curves drawn from it."""

from __future__ import annotations

import csv
import math
import time
from collections import deque
from pathlib import Path

import numpy as np

from intarsia.metrics.overlap import OverlapScores
from intarsia.runs import write_text
from intarsia.training.schedules import lr_factor
from intarsia.training.session import Training
from intarsia.training.state import Counters

COLUMNS = ("step", "epoch", "seconds", "lr", "loss", "val_loss", "val_mean_iou", "val_mean_dice", "val_pixel_accuracy")


class History:
    """Appends to metrics.csv; after a resume, lines beyond the checkpoint are cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_mean_iou: float | None = None
        self._times: deque[float] = deque(maxlen=20)
        self._recent: deque[float] = deque(maxlen=20)
        self._speed = 0.0

    def start_at(self, step: int) -> None:
        """Keep the lines up to `step`, and the header."""
        rows = [row for row in read_history(self.path) if (row["step"] or 0) <= step] if step else []
        values = [row["val_mean_iou"] for row in rows if row["val_mean_iou"] is not None]
        self.last_mean_iou = values[-1] if values else None
        lines = [",".join("" if row[column] is None else f"{row[column]:g}" for column in COLUMNS) for row in rows]
        write_text(self.path, "\n".join([",".join(COLUMNS), *lines]) + "\n")

    def add_training(self, training: Training) -> None:
        """A line with the mean loss since the last one."""
        finite = [loss for loss in training.counters.losses if math.isfinite(loss)]
        training.counters.losses.clear()
        self._append(training, loss=float(np.mean(finite)) if finite else None)

    def add_validation(self, training: Training, scores: OverlapScores, val_loss: float) -> None:
        """A line with the scores of a validation."""
        self.last_mean_iou = scores.mean_iou
        self._times.clear()
        self._append(
            training,
            val_loss=val_loss,
            val_mean_iou=scores.mean_iou,
            val_mean_dice=scores.mean_dice,
            val_pixel_accuracy=scores.pixel_accuracy,
        )

    def recent(self, counters: Counters) -> deque[float]:
        """The last losses, for the progress bar."""
        if counters.losses:
            self._recent.append(counters.losses[-1])
        self._times.append(time.monotonic())
        return self._recent

    def speed(self, training: Training) -> float:
        """Images a second over the last steps."""
        if len(self._times) > 2:
            images = (len(self._times) - 1) * training.feeder.batch * training.config.accumulate
            self._speed = images / max(self._times[-1] - self._times[0], 1e-9)
        return self._speed

    def _append(self, training: Training, **values: float | None) -> None:
        counters, config = training.counters, training.config
        samples = counters.step * training.feeder.batch * config.accumulate
        row = {
            "step": counters.step,
            "epoch": round(samples / len(training.feeder.items), 3),
            "seconds": round(counters.seconds, 2),
            "lr": config.lr * lr_factor(training.share, config),
            **values,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(",".join("" if row.get(c) is None else f"{row[c]:.6g}" for c in COLUMNS) + "\n")


def read_history(path: Path) -> list[dict[str, float | None]]:
    """The lines of a metrics.csv; None where a column is empty. A line cut off by a kill is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                rows.append({column: float(row[column]) if row[column] else None for column in COLUMNS})
            except (TypeError, ValueError):
                continue
    return [row for row in rows if row["step"] is not None]


def draw_curves(rows: list[dict[str, float | None]], path: Path, best_step: int) -> None:
    """curves.png: loss and mean IoU over steps, the chosen step marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axis, series, title in (
        (left, (("loss", "training", "#0072b2"), ("val_loss", "validation", "#d55e00")), "loss"),
        (
            right,
            (("val_mean_iou", "mean IoU", "#009e73"), ("val_pixel_accuracy", "pixel accuracy", "#888888")),
            "validation",
        ),
    ):
        for column, label, colour in series:
            points = [(row["step"], row[column]) for row in rows if row[column] is not None]
            if points:
                marker = "o" if column.startswith("val") else None
                axis.plot(
                    *zip(*points, strict=True), label=label, color=colour, marker=marker, markersize=3, linewidth=1.4
                )
        if best_step:
            axis.axvline(best_step, color="#444444", linewidth=0.8, linestyle=":", label=f"chosen, step {best_step}")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
