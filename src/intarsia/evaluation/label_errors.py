"""Masks that are probably wrong: where a trained model is sure and the mask says something else.

After Northcutt et al., "Confident Learning", arXiv:1911.00068, in its plainest form: a pixel is in doubt if the class that
the model takes has a probability above 0.9 and is not the mask's. A model that was trained on a wrong mask may have learned
it by heart, so doubts in train are fewer than there are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from intarsia.classes import IGNORE, ClassTable
from intarsia.data.base import Dataset, Item
from intarsia.data.sheet import Section, Tile, draw_sheet, small_map, small_photo
from intarsia.errors import ConfigError
from intarsia.images.overlay import Rgb, colorize
from intarsia.ops.objects import parts_of
from intarsia.prediction.predictor import load
from intarsia.progress import Progress
from intarsia.training.validation import Scored, score_images

SURE = 0.9
"""Probability above which the model counts as sure."""
DOUBT = (255, 64, 32)
"""Colour of pixels in doubt."""


@dataclass(frozen=True)
class Doubt:
    """What speaks against the mask of one image."""

    split: str
    item: Item
    share: float
    """Pixels in doubt over pixels that count."""
    largest: int
    """Pixels of the largest connected part in doubt."""
    box: tuple[int, int, int, int]
    """Its first row, first column, last row and last column."""
    pair: tuple[str, str]
    """The mask's class and the model's that meet most often."""
    prediction: NDArray[np.uint8]
    """(H, W)"""
    in_doubt: NDArray[np.bool_]
    """(H, W)"""

    def line(self) -> str:
        top, left, bottom, right = self.box
        return (
            f"{100 * self.share:5.1f} %  {self.item.mask}  mask {self.pair[0]}, model {self.pair[1]}; "
            f"largest part {self.largest} px, rows {top} to {bottom}, columns {left} to {right}  ({self.split})"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "mask": str(self.item.mask),
            "image": str(self.item.image),
            "split": self.split,
            "share": round(self.share, 6),
            "largest_part": self.largest,
            "box": list(self.box),
            "mask_class": self.pair[0],
            "model_class": self.pair[1],
        }


def find_label_errors(
    run: Any, dataset: Dataset, progress: Progress, *, most: int = 10, device: str = "auto"
) -> list[Doubt]:
    """The images whose masks a run's model doubts most, by share of pixels.

    Args:
        run: a run folder, a model folder, or what `train` returned.
        most: how many are kept.

    Raises:
        ConfigError: there is no such model, or it knows other classes.
    """
    predictor = load(run, device=device)
    if predictor.table.names != dataset.table.names:
        raise ConfigError(
            f"--model {run}: was trained on the classes {', '.join(predictor.table.names)}; "
            f"{dataset.label} has {', '.join(dataset.table.names)}."
        )
    where = {item.mask: (split, item) for split, items in dataset.splits.items() for item in items if item.mask}
    items = [item for _, item in where.values()]
    doubts: list[Doubt] = []
    with progress.task("doubt", len(items)) as task:
        scored_images = score_images(predictor.network, dataset, items)
        for number, ((split, _), scored) in enumerate(zip(where.values(), scored_images, strict=True), 1):
            if (doubt := _doubt(split, scored, dataset.table)) is not None:
                doubts = sorted([*doubts, doubt], key=lambda each: -each.share)[:most]
            task.update(number, f"{number} of {len(items)} images")
    return doubts


def _doubt(split: str, scored: Scored, table: ClassTable) -> Doubt | None:
    sure = (scored.logits[0].float().softmax(dim=0).amax(dim=0) > SURE).cpu().numpy()
    counted = scored.mask != IGNORE
    in_doubt = sure & counted & (scored.prediction != scored.mask)
    if not in_doubt.any():
        return None
    parts = parts_of(in_doubt)
    sizes = np.bincount(parts.ravel())[1:]
    rows, columns = np.nonzero(parts == sizes.argmax() + 1)
    pairs = scored.mask[in_doubt].astype(np.int64) * 256 + scored.prediction[in_doubt]
    commonest = int(np.bincount(pairs).argmax())
    return Doubt(
        split=split,
        item=scored.item,
        share=float(in_doubt.sum() / counted.sum()),
        largest=int(sizes.max()),
        box=(int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max())),
        pair=(table.names[commonest >> 8], table.names[commonest & 255]),
        prediction=scored.prediction,
        in_doubt=in_doubt,
    )


def sheet_of_doubts(dataset: Dataset, doubts: Sequence[Doubt]) -> Rgb:
    """Image, mask, prediction and what is in doubt of each, the most doubtful first."""
    sections = []
    present: set[int] = set()
    for number, doubt in enumerate(doubts, 1):
        photo = small_photo(dataset.picture(doubt.item))
        mask = dataset.read_mask(doubt.item)
        present |= {int(index) for layer in (mask, doubt.prediction) for index in np.unique(layer)} - {IGNORE}
        tiles = [
            Tile(photo, "image"),
            Tile(colorize(small_map(mask, photo.shape), dataset.table), f"mask: {doubt.pair[0]}"),
            Tile(colorize(small_map(doubt.prediction, photo.shape), dataset.table), f"model: {doubt.pair[1]}"),
            Tile(_marked(photo, doubt), "sure, and not the mask's"),
        ]
        sections.append(Section(f"{number}  {doubt.item.name}  {100 * doubt.share:.1f} %  ({doubt.split})", tiles))
    return draw_sheet(sections, dataset.table, sorted(present), columns=4)


def _marked(photo: Rgb, doubt: Doubt) -> Rgb:
    """The photograph dimmed, pixels in doubt in one colour, a frame around the largest part."""
    height, width = photo.shape[:2]
    covered = np.asarray(
        Image.fromarray(doubt.in_doubt.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    )
    share = np.minimum(covered.astype(np.float32) / 128, 1)[..., None]
    grey = photo.mean(axis=2, keepdims=True) * 0.6
    picture = Image.fromarray((grey * (1 - share) + np.asarray(DOUBT) * share).round().astype(np.uint8))
    top, left, bottom, right = doubt.box
    down, across = height / doubt.prediction.shape[0], width / doubt.prediction.shape[1]
    frame = (left * across - 2, top * down - 2, (right + 1) * across + 1, (bottom + 1) * down + 1)
    ImageDraw.Draw(picture).rectangle([round(edge) for edge in frame], outline=(255, 255, 255))
    return np.asarray(picture)
