"""What an evaluation found: scores of a split and of each image, as values, as JSON, as a table; read back from a run."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import ClassTable
from intarsia.data.base import Item
from intarsia.errors import IntegrityError
from intarsia.evaluation.measures import MEASURES, SHOWN, Found, about_intervals
from intarsia.metrics.intervals import interval
from intarsia.metrics.overlap import OverlapScores, overlap_scores
from intarsia.metrics.plain import plain
from intarsia.runs import WEIGHTS, write_bytes


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
    found: Mapping[str, Found] = field(default_factory=dict)
    """Measure to what it found, with intervals."""
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
        names, overlap = self.table.names, self.found.get("overlap")
        return {
            "split": self.split,
            "data": self.data,
            "classes": list(names),
            "scores": self.scores.to_dict(),
            **({"intervals": overlap.to_dict()["intervals"]} if overlap else {}),
            "about_intervals": about_intervals(len(self.images)),
            "mean_over_images": self.mean_over_images(),
            **{name: each.to_dict() for name, each in self.found.items() if name != "overlap"},
            "absent_classes": [names[index] for index in self.scores.absent],
            "confusion": self.counts.tolist(),
            "images": [self._image_dict(image) for image in self.images],
        }

    def mean_over_images(self) -> dict[str, Any]:
        """Each image scored by itself, then the mean over those that have the score: value, low, high."""
        found = {}
        for key in ("mean_iou", "mean_dice", "pixel_accuracy"):
            values = np.array([getattr(image.scores, key) for image in self.images], np.float64)
            there = values[~np.isnan(values)]
            low, high = interval(values) if len(values) else (np.nan, np.nan)
            found[key] = plain(np.array([there.mean() if there.size else np.nan, low, high]))
        return found

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
        return table_text(self.to_dict())


def table_text(stored: dict[str, Any]) -> str:
    """Classes, IoU, Dice and pixels in columns; then the means, over how many classes, and the other measures.

    Args:
        stored: `Evaluation.to_dict`, fresh or read back.
    """
    names, scores = stored["classes"], overlap_scores(np.asarray(stored["confusion"], np.int64))
    count = len(stored["images"])
    size = "1 image at its own size" if count == 1 else f"{count} images at their own size"
    title = f"{stored['split']}, {size}"
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
    between = stored.get("intervals", {}).get("mean_iou", [None, None])
    about = f"   IoU between {between[0]:.3f} and {between[1]:.3f}" if None not in between else ""
    lines.append(f"  {mean:<{width}}  {scores.mean_iou:5.3f}   {scores.mean_dice:5.3f}{about}")
    lines.append(
        f"  pixel accuracy {scores.pixel_accuracy:.3f} · mean accuracy {scores.mean_accuracy:.3f} · "
        f"frequency-weighted IoU {scores.frequency_weighted_iou:.3f}"
    )
    return "\n".join([*lines, *_measure_lines(stored)])


def _measure_lines(stored: dict[str, Any]) -> list[str]:
    """The other measures of the whole set, with their intervals, two scores a line."""
    lines = []
    for name in MEASURES:
        found = stored.get(name, {})
        parts = []
        for key, value in found.items():
            if key in SHOWN and not isinstance(value, list):
                low, high = found["intervals"][key]
                words = f" ({between(low, high)})" if between(low, high) else ""
                parts.append(f"{SHOWN[key]} {'-' if value is None else number(value)}{words}")
        lines += ["  " + " · ".join(parts[place : place + 2]) for place in range(0, len(parts), 2)]
    return lines


def between(low: float | None, high: float | None) -> str:
    """An interval in words; "" where there is none."""
    return "" if low is None or high is None or math.isnan(low) else f"{number(low)} to {number(high)}"


def number(value: float) -> str:
    """Three digits behind the point below 10, else one."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def table_text_of(folder: Path) -> str:
    """The per-class table of a run's stored scores: of test, else val, else train; "" if there are none."""
    stored = read_scores(folder)
    for split in ("test", "val", "train"):
        if found := stored.get(split):
            return table_text(found)
    return ""


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Split to stored evaluation, of every split that a run was scored on."""
    return {
        split: json.loads(path.read_text(encoding="utf-8"))
        for split in ("train", "val", "test")
        if (path := folder / "report" / f"{split}.json").is_file()
    }


def write_counts(path: Path, evaluation: Evaluation, manifest: Mapping[str, Any]) -> None:
    """Every image's counts of every measure, and of which weights they are: what `intarsia compare` draws images from.

    Raises:
        SaveError: the disk does not take it.
    """
    buffer = io.BytesIO()
    counts = {f"counts_{name}": each.counts for name, each in evaluation.found.items()}
    names = np.array([image.item.name for image in evaluation.images], np.str_)
    np.savez_compressed(buffer, allow_pickle=False, images=names, weights=np.array(weights_of(manifest)), **counts)
    write_bytes(path, buffer.getvalue())


def weights_of(manifest: Mapping[str, Any]) -> str:
    """The hash of a model's weights; "" if the manifest has none."""
    return str(manifest.get("files", {}).get(WEIGHTS, ""))


def read_counts(path: Path) -> tuple[list[str], str, dict[str, NDArray[Any]]]:
    """Image names, hash of the weights, and counts of each measure.

    Raises:
        IntegrityError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            counts = {key.removeprefix("counts_"): stored[key] for key in stored.files if key.startswith("counts_")}
            return [str(name) for name in stored["images"]], str(stored["weights"]), counts
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise IntegrityError(f"{path}: cannot be read ({error}). `intarsia evaluate` writes it again.") from None
