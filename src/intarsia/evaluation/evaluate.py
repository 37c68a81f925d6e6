"""Score a run's best model on a split: counts over the whole set and for each image, at the masks' own size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.classes import find_class_file
from intarsia.data.base import Dataset
from intarsia.errors import ConfigError
from intarsia.evaluation.report import write_report
from intarsia.evaluation.scores import Evaluation, ImageScores
from intarsia.metrics.overlap import overlap_scores
from intarsia.prediction.predictor import Predictor, load
from intarsia.progress import Progress, default_progress
from intarsia.recipes.recipe import Recipe, recipe_of_run
from intarsia.runs import write_json
from intarsia.training.validation import score_images


def evaluate(
    run: Any,
    split: str | None = None,
    *,
    data: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    report: bool = True,
) -> Evaluation:
    """Score the best model of a run on a split of its data, and write the report.

    Args:
        run: a run folder, or what `train` returned.
        split: train, val or test; None: test, or val where there is no test.
        data: another data folder; None: the one that the run was trained on.
        device: auto, cpu, cuda, cuda:N or mps.
        progress: where notes and bars go.
        report: write `report/index.html` and `report/SPLIT.json` into the run folder.

    Raises:
        ConfigError: no such run or split.
        DataError: the data cannot be used.
    """
    progress = progress or default_progress()
    folder = Path(getattr(run, "path", run))
    recipe = recipe_of_run(folder)
    if data is not None:
        own_table = find_class_file(Path(data).expanduser()) is not None
        recipe = recipe.replace(data={"path": data, "splits": None, **({"classes": None} if own_table else {})})
    predictor = load(folder, device=device)
    dataset = recipe.data.open(progress)
    if dataset.table.names != predictor.table.names:
        raise ConfigError(
            f"{folder}: was trained on the classes {', '.join(predictor.table.names)}; "
            f"{dataset.label} has {', '.join(dataset.table.names)}."
        )
    chosen = split or ("test" if dataset.splits.get("test") else "val")
    evaluation = score_split(predictor, dataset, chosen, progress)
    if report:
        evaluation = _with_report(evaluation, folder, recipe, predictor, dataset)
    return evaluation


def score_split(predictor: Predictor, dataset: Dataset, split: str, progress: Progress) -> Evaluation:
    """Counts and scores of a split."""
    items = dataset.items(split)
    totals = np.zeros((dataset.table.count,) * 2, np.int64)
    images = []
    with progress.task(split, len(items)) as task:
        scored_images = score_images(
            predictor.model, dataset, items, predictor.preprocess, predictor.device, channels_last=True
        )
        for number, scored in enumerate(scored_images, 1):
            totals += scored.counts
            images.append(ImageScores(scored.item, overlap_scores(scored.counts)))
            task.update(number, f"{number} of {len(items)} images")
    return Evaluation(split, dataset.label, dataset.table, totals, overlap_scores(totals), tuple(images))


def _with_report(
    evaluation: Evaluation, folder: Path, recipe: Recipe, predictor: Predictor, dataset: Dataset
) -> Evaluation:
    place = folder / "report"
    place.mkdir(exist_ok=True)
    write_json(place / f"{evaluation.split}.json", evaluation.to_dict())
    index = write_report(evaluation, run=folder, recipe=recipe, predictor=predictor, dataset=dataset)
    return replace(evaluation, report=index)
