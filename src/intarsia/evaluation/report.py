"""The report of an evaluation: one HTML file that opens anywhere, with nothing from outside.

Other files only say more: `report/SPLIT.json` beside it has all numbers, `report/pictures/` the large pictures at the
images' own size (where the page shows them smaller).
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from intarsia.data.base import Dataset
from intarsia.evaluation import figures
from intarsia.evaluation.figures import ClassBar, percent, score, whole
from intarsia.evaluation.measures import about_intervals
from intarsia.evaluation.pictures import PANELS, Picture, draw_pictures, error_kinds
from intarsia.evaluation.scores import Evaluation, ImageScores, between
from intarsia.evaluation.sections import Figure, Section, sections
from intarsia.prediction.config import changed_settings, in_words
from intarsia.prediction.predictor import Predictor
from intarsia.recipes.recipe import Recipe
from intarsia.runs import MANIFEST, environment, write_text
from intarsia.training.history import read_history

MOST_IMAGES = 15_000
"""Rows of the table of images; the worst ones, if there are more."""
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ImageRow:
    """One line of the table of images."""

    name: str
    iou: float
    dice: float
    accuracy: float
    worst_class: int | None
    height: int
    width: int
    picture: int | None
    """Number of its large picture."""


def write_report(
    evaluation: Evaluation, place: Path, *, run: Path, recipe: Recipe, predictor: Predictor, dataset: Dataset
) -> Path:
    """Write `place/index.html` and return its path.

    Args:
        evaluation: what was scored.
        place: folder of the page, `run/report`; made if need be.
        run: the run folder.
        recipe: its settings.
        predictor: its model, which draws the large pictures.
        dataset: what it was scored on.

    Raises:
        SaveError: the disk does not take it.
    """
    place.mkdir(exist_ok=True)
    beside = place / "pictures"
    shutil.rmtree(beside, ignore_errors=True)
    pictures = draw_pictures(evaluation, predictor, dataset, recipe.evaluate.pictures, beside)
    page = _render(_content(evaluation, run, recipe, predictor, dataset, pictures))
    write_text(place / "index.html", page)
    return place / "index.html"


def _render(content: dict[str, Any]) -> str:
    templates = Environment(
        loader=PackageLoader("intarsia.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(score=score, whole=whole, percent=percent, css=figures.css)
    inlined = {kind: (TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")}
    return templates.get_template("report.html").render(**content, inlined=inlined)


def _content(
    evaluation: Evaluation,
    run: Path,
    recipe: Recipe,
    predictor: Predictor,
    dataset: Dataset,
    pictures: Sequence[Picture],
) -> dict[str, Any]:
    """Everything that the template names."""
    manifest, built = _read_json(predictor.folder / MANIFEST), _read_json(run / "environment.json")
    bars, kinds = figures.class_bars(evaluation), error_kinds(evaluation.table)
    names, scores = evaluation.table.names, evaluation.scores
    trained = manifest.get("trained", {})
    return {
        "title": run.resolve().name,
        "split": evaluation.split,
        "data": evaluation.data,
        "names": names,
        "colours": figures.css_colours(evaluation.table),
        "verdict": verdict(evaluation),
        "caution": caution(evaluation.split),
        "tiles": _tiles(evaluation),
        "recipe_lines": recipe_lines(recipe, predictor, dataset, run, manifest, built),
        "pictures": pictures,
        "kinds": kinds,
        "bars": bars,
        "sections": sections(evaluation),
        "Section": Section,
        "about_intervals": about_intervals(len(evaluation.images)),
        "largest_share": max((max(bar.truth_share, bar.predicted_share) for bar in bars), default=1.0),
        "absent": [names[index] for index in scores.absent],
        "matrix": figures.confusion_matrix(evaluation),
        "charts": figures.charts(read_history(run / "metrics.csv"), trained.get("step")),
        "Chart": figures.Chart,
        "chosen_step": trained.get("step"),
        "rows": _rows(evaluation, pictures)[:MOST_IMAGES],
        "images": len(evaluation.images),
        "for_script": _for_script(evaluation, pictures),
        "versions": _versions(built or environment()),
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "command": _command(evaluation, run, recipe, trained),
    }


def verdict(evaluation: Evaluation) -> str:
    """One sentence that says what the numbers say, and nothing else."""
    bars, images = figures.class_bars(evaluation), len(evaluation.images)
    on = f"on {whole(images)} image{'s' * (images != 1)}"
    if not bars:
        return f"No score {on}: no pixel of the truth counts."
    names, absent = evaluation.table.names, evaluation.scores.absent
    over = f"{len(bars)} of {len(names)}" if absent else f"{len(bars)}"
    sentence = f"Mean IoU {evaluation.mean_iou:.2f} over {over} class{'es' * (len(names) != 1)} {on}"
    best, worst = bars[0], bars[-1]
    if best.iou > worst.iou:
        sentence += f"; best {best.name} {best.iou:.2f}"
        sentence += f", worst {worst.name} {worst.iou:.2f}" if worst.iou > 0 or not worst.truth_pixels else ""
    return "; ".join([sentence, *_weak_points(evaluation, bars)]) + "."


def _weak_points(evaluation: Evaluation, bars: Sequence[ClassBar]) -> list[str]:
    """Classes that are never found, and whether rare classes are worse than common ones."""
    points = []
    missing = [bar.name for bar in bars if bar.truth_pixels and not evaluation.counts[bar.index, bar.index]]
    if missing:
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        points.append(f"never found: {listed}")
    by_size = sorted((bar for bar in bars if bar.truth_pixels), key=lambda bar: bar.truth_pixels)
    half = len(by_size) // 2
    if half >= 2:
        rare, common = (float(np.mean([bar.iou for bar in part])) for part in (by_size[:half], by_size[-half:]))
        if common - rare >= 0.15:
            text = f"the {half} rarest average {rare:.2f}, the {half} commonest {common:.2f}"
            points.append(f"rare classes are the weak point ({text})")
    return points


def caution(split: str) -> str:
    """What to keep in mind about scores on this split."""
    return {
        "train": "These are the images the model was trained on; the scores say little about new images.",
        "val": "The model was chosen by its score on these images, so the scores may flatter it.",
    }.get(split, "")


def _tiles(evaluation: Evaluation) -> list[tuple[Figure, str]]:
    """Key numbers, and what each is."""
    scores, overlap = evaluation.scores, evaluation.found.get("overlap")
    explained = {
        "mean_iou": ("Mean IoU", "Overlap divided by union, averaged over classes"),
        "mean_dice": ("Mean Dice", "Twice the overlap divided by the sum of both areas, averaged over classes"),
        "pixel_accuracy": ("Pixel accuracy", "Share of pixels with the right class"),
        "mean_accuracy": ("Mean accuracy", "Share of each class's pixels that were found, averaged"),
        "frequency_weighted_iou": ("Weighted IoU", "IoU, each class weighted by its share of the truth"),
    }
    found = []
    for key, (name, meaning) in explained.items():
        words = between(float(overlap.low[key]), float(overlap.high[key])) if overlap else ""
        found.append((Figure(name, score(getattr(scores, key)), words), meaning))
    images = Figure("Images", whole(len(evaluation.images)), "")
    return [*found, (images, "Images scored, each at its own size")]


def recipe_lines(
    recipe: Recipe,
    predictor: Predictor,
    dataset: Dataset,
    run: Path,
    manifest: dict[str, Any],
    built: dict[str, Any],
) -> list[tuple[str, str]]:
    """The recipe in about five lines: what, and its value."""
    trained, names = manifest.get("trained", {}), dataset.table.names
    splits = ", ".join(f"{whole(len(items))} {split}" for split, items in dataset.splits.items() if items)
    scored_elsewhere = trained.get("data") not in (None, dataset.label)
    data = f"{dataset.label}: {splits} images" + (f"; trained on {trained['data']}" if scored_elsewhere else "")
    encoder = recipe.model.to_dict().get("encoder")
    model = [recipe.model.name, *([str(encoder)] if encoder else []), predictor.size_in_words]
    model += [f"started from {manifest['start']}"] if manifest.get("start") else []
    numbers = {key: value for key, value in recipe.loss.to_dict().items() if isinstance(value, int | float)}
    settings = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in numbers.items())
    lines = [
        ("Data", data),
        ("Classes", f"{len(names)}: " + ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")),
        ("Model", ", ".join(model)),
        ("Loss", recipe.loss.name + (f" ({settings})" if settings else "")),
        ("Training", _training_line(recipe, run, trained)),
    ]
    if changed := changed_settings(predictor.config):
        lines.append(("Prediction", ", ".join(in_words(changed))))
    return [*lines, ("Device", str(built["device"]))] if built.get("device") else lines


def _training_line(recipe: Recipe, run: Path, trained: dict[str, Any]) -> str:
    train, size = recipe.train, recipe.data.size
    batch = f"batches of {train.batch}" + (f" × {train.accumulate}" if train.accumulate > 1 else "")
    sample = f" at {size[0]} × {size[1]}" if size else ""
    parts = [
        train.budget_in_words(),
        batch + sample,
        f"{train.optimizer}, learning rate {train.lr:g}, {train.schedule}",
    ]
    history = read_history(run / "metrics.csv")
    if history:
        done, seconds = history[-1]["step"] or 0, history[-1]["seconds"] or 0
        took = (
            f"{seconds:.0f} s"
            if seconds < 120
            else f"{seconds / 60:.0f} min"
            if seconds < 7200
            else f"{seconds / 3600:.1f} h"
        )
        parts.append(f"{whole(round(done))} steps in {took}")
    if trained.get("step"):
        parts.append(f"step {whole(int(trained['step']))} was chosen")
    return "; ".join(part for part in parts if part)


def _rows(evaluation: Evaluation, pictures: Sequence[Picture]) -> list[ImageRow]:
    """Every image, worst first; those without a score last."""
    numbers = {picture.scores.item.name: picture.number for picture in pictures}
    unscored = [image for image in evaluation.images if not math.isfinite(image.scores.mean_iou)]
    return [_row(image, numbers.get(image.item.name)) for image in [*evaluation.ranked, *unscored]]


def _row(image: ImageScores, picture: int | None) -> ImageRow:
    scores, item = image.scores, image.item
    return ImageRow(
        item.name,
        scores.mean_iou,
        scores.mean_dice,
        scores.pixel_accuracy,
        image.worst_class,
        item.height,
        item.width,
        picture,
    )


def _for_script(evaluation: Evaluation, pictures: Sequence[Picture]) -> dict[str, Any]:
    """What the page's script needs to know."""
    return {
        "classes": list(evaluation.table.names),
        "colours": figures.css_colours(evaluation.table),
        "panels": list(PANELS),
        "pictures": [
            {
                "name": picture.scores.item.name,
                "full": {panel.name: panel.full for panel in picture.panels if panel.full},
            }
            for picture in pictures
        ],
    }


def _versions(built: dict[str, Any]) -> str:
    packages = {"python": built.get("python", "-"), **built.get("packages", {})}
    first = ("intarsia", "torch", "python")
    order = [*first, *(name for name in packages if name not in first)]
    listed = ", ".join(f"{name} {packages[name]}" for name in order if packages.get(name, "-") != "-")
    return "; ".join(part for part in (listed, built.get("system", "")) if part)


def _command(evaluation: Evaluation, run: Path, recipe: Recipe, trained: dict[str, Any]) -> str:
    """The command line that makes the report again."""
    parts = ["intarsia", "evaluate", str(run), "--split", evaluation.split]
    beside = [name for name in evaluation.found if name != "overlap"]
    parts += ["--metrics", ",".join(beside)] if beside else []
    path = recipe.data.to_dict().get("path")
    if path and trained.get("data") not in (None, evaluation.data):
        parts += ["--data", str(path)]
    return shlex.join(parts)


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping; empty if the file is missing or damaged, as the report can do without it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
