"""What an evaluation found: scores of a split and of each image, as values, as JSON, as a table; read back from a run."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import ClassTable
from intarsia.data.base import Item
from intarsia.metrics.overlap import OverlapScores, overlap_scores


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
            "images": [self._image_dict(image) for image in self.images],
        }

    def _image_dict(self, image: ImageScores) -> dict[str, Any]:
        item, scores = image.item, image.scores.to_dict()
        return {
            "name": item.name,
            "height": item.height,
            "width": item.width,
            **{key: scores[key] for key in ("mean_iou", "mean_dice", "pixel_accuracy")},
            "worst_class": None if image.worst_class is None else self.table.names[image.worst_class],
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


def table_text_of(folder: Path) -> str:
    """The per-class table of a run's stored scores: of test, else val, else train; "" if there are none."""
    stored = read_scores(folder)
    for split in ("test", "val", "train"):
        if found := stored.get(split):
            scores = overlap_scores(np.asarray(found["confusion"], np.int64))
            return table_text(split, len(found["images"]), tuple(found["classes"]), scores)
    return ""


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Split to stored evaluation, of every split that a run was scored on."""
    return {
        split: json.loads(path.read_text(encoding="utf-8"))
        for split in ("train", "val", "test")
        if (path := folder / "report" / f"{split}.json").is_file()
    }
