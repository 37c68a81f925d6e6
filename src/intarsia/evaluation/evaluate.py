"""Score a run's best model on a split: counts over the whole set and for each image, at the masks' own size."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import ClassTable, find_class_file
from intarsia.data.base import Dataset, Item
from intarsia.errors import ConfigError
from intarsia.metrics.overlap import OverlapScores, overlap_scores
from intarsia.prediction.predictor import Predictor, load
from intarsia.progress import Progress, default_progress
from intarsia.recipes.recipe import Recipe, recipe_of_run
from intarsia.runs import write_json
from intarsia.training.validation import Scored, score_images


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image."""

    item: Item
    scores: OverlapScores

    @property
    def worst_class(self) -> int | None:
        """The class of lowest IoU in this image; None if no class has one."""
        return None if np.isnan(self.scores.iou).all() else int(np.nanargmin(self.scores.iou))


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a split."""

    split: str
    data: str
    table: ClassTable
    counts: NDArray[np.int64]
    """(K, K) confusion matrix, rows truth, columns prediction."""
    scores: OverlapScores
    """Of all pixels together."""
    images: tuple[ImageScores, ...]
    report: Path | None = None
    """The report's index.html, if one was written."""

    @property
    def mean_iou(self) -> float:
        return self.scores.mean_iou

    @property
    def ranked(self) -> list[ImageScores]:
        """Images with a score, worst first."""
        scored = [image for image in self.images if math.isfinite(image.scores.mean_iou)]
        return sorted(scored, key=lambda image: (image.scores.mean_iou, image.item.name))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = self.table.names
        return {
            "split": self.split,
            "data": self.data,
            "classes": list(names),
            "scores": self.scores.to_dict(),
            "absent_classes": [names[index] for index in self.scores.absent],
            "confusion": self.counts.tolist(),
            "images": [
                {
                    "name": image.item.name,
                    "height": image.item.height,
                    "width": image.item.width,
                    "mean_iou": _plain(image.scores.mean_iou),
                    "mean_dice": _plain(image.scores.mean_dice),
                    "pixel_accuracy": _plain(image.scores.pixel_accuracy),
                    "worst_class": None if image.worst_class is None else names[image.worst_class],
                }
                for image in self.images
            ],
        }

    def table_text(self) -> str:
        """The per-class table, as the command line prints it."""
        return table_text(self.split, len(self.images), self.table.names, self.scores)


def table_text(split: str, num_images: int, names: tuple[str, ...], scores: OverlapScores) -> str:
    """Classes, IoU, Dice and pixels in columns; then the means, and over how many classes."""
    size = "1 image at its own size" if num_images == 1 else f"{num_images} images at their own size"
    title = f"{split}, {size}"
    width = max(len(title) - 2, len("mean of 99 classes"), *(len(name) for name in names))
    lines = [f"{title:<{width + 2}}    IoU    Dice        pixels"]
    for index, name in enumerate(names):
        if np.isnan(scores.iou[index]):
            lines.append(
                f"  {name:<{width}}      -       -             0   in neither truth nor prediction, in no mean"
            )
        else:
            pixels = f"{scores.truth_pixels[index]:,}".replace(",", " ")
            lines.append(f"  {name:<{width}}  {scores.iou[index]:5.3f}   {scores.dice[index]:5.3f}  {pixels:>12}")
    present = len(names) - len(scores.absent)
    mean = f"mean of {present} class{'es' * (present != 1)}"
    lines.append(f"  {mean:<{width}}  {scores.mean_iou:5.3f}   {scores.mean_dice:5.3f}")
    lines.append(
        f"  pixel accuracy {scores.pixel_accuracy:.3f} · mean accuracy {scores.mean_accuracy:.3f} · "
        f"frequency-weighted IoU {scores.frequency_weighted_iou:.3f}"
    )
    return "\n".join(lines)


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


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


def score_split(
    predictor: Predictor,
    dataset: Dataset,
    split: str,
    progress: Progress,
    seen: Callable[[Scored], None] | None = None,
) -> Evaluation:
    """Counts and scores of a split; `seen` is handed each image as it is done."""
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
            if seen:
                seen(scored)
            task.update(number, f"{number} of {len(items)} images")
    return Evaluation(split, dataset.label, dataset.table, totals, overlap_scores(totals), tuple(images))


def _with_report(
    evaluation: Evaluation, folder: Path, recipe: Recipe, predictor: Predictor, dataset: Dataset
) -> Evaluation:
    from intarsia.evaluation.report import write_report

    place = folder / "report"
    place.mkdir(exist_ok=True)
    write_json(place / f"{evaluation.split}.json", evaluation.to_dict())
    index = write_report(evaluation, run=folder, recipe=recipe, predictor=predictor, dataset=dataset)
    return replace(evaluation, report=index)


def table_text_of(folder: Path) -> list[str]:
    """The per-class tables of a run's stored scores, test before val before train, the first only."""
    for split, stored in sorted(
        read_scores(folder).items(), key=lambda entry: ("test", "val", "train").index(entry[0])
    ):
        counts = np.asarray(stored["confusion"], np.int64)
        table = ClassTable(names=stored["classes"], ignore_index=None)
        return [table_text(split, len(stored["images"]), table.names, overlap_scores(counts))]
    return []


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Split to stored evaluation, of every split that a run was scored on."""
    return {
        split: json.loads(path.read_text(encoding="utf-8"))
        for split in ("train", "val", "test")
        if (path := folder / "report" / f"{split}.json").is_file()
    }
