"""Score a run's best model on a split: counts over the whole set and for each image, at the masks' own size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import ClassTable, find_class_file
from intarsia.data.base import DataConfig, Dataset
from intarsia.errors import ConfigError
from intarsia.evaluation.measures import choose_measures, judge
from intarsia.evaluation.report import write_report
from intarsia.evaluation.scores import Evaluation, ImageScores, write_counts
from intarsia.metrics.overlap import overlap_scores
from intarsia.metrics.processes import gathered, process_count, process_rank
from intarsia.prediction.config import PredictConfig, changed_settings, report_name
from intarsia.prediction.predictor import Predictor, load
from intarsia.progress import Progress, default_progress
from intarsia.recipes.recipe import Recipe, recipe_of_run
from intarsia.runs import read_manifest, write_json
from intarsia.training.validation import score_images


def evaluate(
    run: Any,
    split: str | None = None,
    *,
    data: str | None = None,
    metrics: str | Sequence[str] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    report: bool = True,
    settings: PredictConfig | Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score the best model of a run on a split of its data, and write the report.

    With settings of prediction the report goes into a folder of their name, such as `report_crf-deeplab`, so that the one
    without them stays.

    Args:
        run: a run folder, or what `train` returned.
        split: train, val or test; None: test, or val where there is no test.
        data: another data folder; None: the one that the run was trained on.
        metrics: names of what to score beside overlap: boundary, objects, calibration, em, or all that apply to the data;
            None: those of the recipe.
        device: auto, cpu, cuda, cuda:N or mps.
        progress: where notes and bars go.
        report: write `report/index.html` and `report/SPLIT.json` into the run folder.
        settings: how images are predicted, such as `{"crf": "deeplab", "mirrors": "horizontal"}`.

    Raises:
        ConfigError: no such run, split or metric, or one that cannot be scored for these classes.
        DataError: the data cannot be used.
    """
    progress = progress or default_progress()
    folder = Path(getattr(run, "path", run))
    recipe, predictor, dataset = opened_for(folder, data, device, settings, progress)
    chosen = split or ("test" if dataset.splits.get("test") else "val")
    names = recipe.evaluate.metrics if metrics is None else (metrics,) if isinstance(metrics, str) else tuple(metrics)
    evaluation = score_split(predictor, dataset, chosen, progress, names)
    if report:
        evaluation = _with_report(evaluation, folder, recipe, predictor, dataset)
    return evaluation


def opened_for(
    folder: Path,
    data: str | None,
    device: str,
    settings: PredictConfig | Mapping[str, Any] | None,
    progress: Progress,
) -> tuple[Recipe, Predictor, Dataset]:
    """A run's recipe, its best model and its data, or other data of the same classes.

    Raises:
        ConfigError: no such run, or other classes.
        DataError: the data cannot be used.
    """
    recipe = recipe_of_run(folder)
    predictor = load(folder, device=device, settings=settings)
    recipe, dataset = data_for(recipe, folder, data, predictor.table, progress)
    return recipe, predictor, dataset


def data_for(
    recipe: Recipe, folder: Path, data: str | None, table: ClassTable, progress: Progress
) -> tuple[Recipe, Dataset]:
    """The data of a run's recipe, or other data, and the recipe that has it.

    Args:
        folder: of the run, for messages.
        data: a folder in place of the recipe's own.
        table: classes of the run's model.

    Raises:
        ConfigError: it has other classes.
        DataError: it cannot be used.
    """
    if data is not None:
        recipe = recipe.replace(data=_elsewhere(recipe.data, data))
    dataset = recipe.data.open(progress)
    if dataset.table.names != table.names:
        raise ConfigError(
            f"{folder}: was trained on the classes {', '.join(table.names)}; "
            f"{dataset.label} has {', '.join(dataset.table.names)}."
        )
    return recipe, dataset


def _elsewhere(config: DataConfig, data: str) -> dict[str, Any]:
    """Settings that open another folder as the run's own: its class table, if it has one, and its split."""
    known = type(config).model_fields
    if "path" not in known:
        raise ConfigError(f"--data: {config.name} is no single folder, so no other one can take its place.")
    own_table = find_class_file(Path(data).expanduser()) is not None
    changes: dict[str, Any] = {"path": data, "splits": None, **({"classes": None} if own_table else {})}
    return {key: value for key, value in changes.items() if key in known}


def score_split(
    predictor: Predictor, dataset: Dataset, split: str, progress: Progress, metrics: Sequence[str] = ()
) -> Evaluation:
    """Counts and scores of a split, one image after the other; where several processes run, each takes its share."""
    measures = choose_measures(metrics, dataset)
    items = dataset.items(split)
    mine = items[process_rank() :: process_count()]
    counts: list[list[NDArray[Any]]] = []
    with progress.task(split, len(mine)) as task:
        for number, scored in enumerate(score_images(predictor.network, dataset, mine), 1):
            counts.append([_compact(measure.count(scored)) for measure in measures])
            task.update(number, f"{number} of {len(mine)} images")
    counts = gathered(counts)
    found = {
        measure.name: judge(measure, np.stack([each[place] for each in counts]))
        for place, measure in enumerate(measures)
    }
    overlap = found["overlap"].counts
    images = tuple(ImageScores(item, overlap_scores(each)) for item, each in zip(items, overlap, strict=True))
    totals = overlap.sum(0, dtype=np.int64)
    return Evaluation(split, dataset.label, dataset.table, totals, overlap_scores(totals), images, found)


def _compact(counts: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in four bytes, where they fit."""
    return counts.astype(np.uint32) if counts.dtype == np.int64 and counts.max(initial=0) < 1 << 32 else counts


def _with_report(
    evaluation: Evaluation, folder: Path, recipe: Recipe, predictor: Predictor, dataset: Dataset
) -> Evaluation:
    changed = changed_settings(predictor.config)
    place = folder / report_name(changed)
    place.mkdir(exist_ok=True)
    about = {"prediction": changed} if changed else {}
    write_json(place / f"{evaluation.split}.json", {**evaluation.to_dict(), **about})
    write_counts(place / f"{evaluation.split}.npz", evaluation, read_manifest(predictor.folder))
    index = write_report(evaluation, place, run=folder, recipe=recipe, predictor=predictor, dataset=dataset)
    return replace(evaluation, report=index)
