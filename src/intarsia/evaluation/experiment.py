"""The whole path in one call: train, score the best model on images it never saw, write the report."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.evaluation.evaluate import evaluate
from intarsia.evaluation.scores import read_scores
from intarsia.metrics.overlap import OverlapScores, overlap_scores
from intarsia.progress import Progress, default_progress
from intarsia.recipes.recipe import Recipe, recipe_of_run
from intarsia.training.train import train_model


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @cached_property
    def recipe(self) -> Recipe:
        """Every setting, as resolved."""
        return recipe_of_run(self.path)

    @property
    def metrics(self) -> Mapping[str, OverlapScores]:
        """Split to scores, for every split that the best model was scored on: `run.metrics["test"].mean_iou`."""
        return {
            split: overlap_scores(np.asarray(stored["confusion"], np.int64))
            for split, stored in read_scores(self.path).items()
        }

    @property
    def report(self) -> Path | None:
        """The report's page, if there is one."""
        page = self.path / "report" / "index.html"
        return page if page.is_file() else None

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{split}</td><td>{scores.mean_iou:.3f}</td><td>{scores.mean_dice:.3f}</td>"
            f"<td>{scores.pixel_accuracy:.3f}</td></tr>"
            for split, scores in self.metrics.items()
        )
        head = "<tr><th>split</th><th>mean IoU</th><th>mean Dice</th><th>pixel accuracy</th></tr>"
        return f"<p><b>{html.escape(str(self.path))}</b> · {html.escape(self.recipe.model.name)}</p><table>{head}{rows}</table>"


def train(
    target: str | Path | Recipe,
    settings: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **changes: Any,
) -> Run:
    """Train on a folder (or by a recipe), score the best model, write the report.

    >>> run = train("cells/", model="unet_same", train={"minutes": 10})       # doctest: +SKIP

    Args:
        target: a data folder, a YAML file, a recipe's name, or a recipe.
        settings: as on the command line, `["train.lr=1e-3"]`.
        out: the run folder; None: runs/NAME-N, never an existing one.
        resume: go on with the run in `out`.
        progress: where notes and bars go; None: a bar on a terminal, else plain lines on standard error.
        changes: settings by name, `model="unet_same"`, `train={"minutes": 10}`.

    Raises:
        IntarsiaError: with what was wrong, what was met, and what to do; see `intarsia.errors`.
    """
    progress = progress or default_progress()
    run = Run(train_model(target, settings, changes=changes, out=out, resume=resume, progress=progress))
    if run.recipe.evaluate.after_training:
        evaluate(run, progress=progress)
    return run
