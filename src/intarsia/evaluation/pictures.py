"""The large pictures of a report: which images, what their errors look like, and how they fit into one file.

A class map is embedded once, as a palette PNG: the eye sees the class colours, and the page's script reads the class
numbers from the same bytes. Ignored pixels (255) are drawn as a fine grey hatch, so that they differ from a grey class.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from intarsia.classes import IGNORE, ClassTable, Colour
from intarsia.data.base import Dataset, Item
from intarsia.evaluation.scores import Evaluation, ImageScores
from intarsia.images.overlay import is_background
from intarsia.prediction.predictor import Predictor
from intarsia.training.validation import score_images

Bytes = NDArray[np.uint8]

LARGEST_SIDE = 640
SMALLEST_SIDE = 96
BUDGET = 6_500_000
"""Characters of data URIs that all pictures of a report may take together."""
HATCH = 254
"""Palette index of the darker half of the hatch over ignored pixels."""
PANELS = ("image", "truth", "prediction", "errors")

_GREYS = 24
_HATCH_GREYS: tuple[Colour, Colour] = ((150, 150, 150), (132, 132, 132))
MISSED: Colour = (255, 106, 61)
FALSE: Colour = (64, 156, 255)
CONFUSED: Colour = (255, 211, 61)


@dataclass(frozen=True)
class ErrorKind:
    """One kind of wrong pixel: its name, what it means, its colour."""

    name: str
    meaning: str
    colour: Colour


@dataclass(frozen=True)
class Panel:
    """One of the four pictures of an image."""

    name: str
    uri: str
    full: str | None
    """Path of the picture at the image's own size, from the report's folder; None if the embedded one has it."""


@dataclass(frozen=True)
class Picture:
    """An image with its truth, prediction and errors."""

    number: int
    scores: ImageScores
    rank: str
    panels: tuple[Panel, ...]
    small: bool
    """Few pixels: shown without smoothing."""


def error_kinds(table: ClassTable) -> tuple[ErrorKind, ...]:
    """The kinds of errors that make sense for a class table, in the order of their numbers from 1."""
    if not is_background(table):
        return (ErrorKind("wrong", "another class was predicted than the truth has", MISSED),)
    kinds = [
        ErrorKind("missed", f"the truth is a class of interest, {table.names[0]} was predicted", MISSED),
        ErrorKind("false", f"the truth is {table.names[0]}, a class of interest was predicted", FALSE),
    ]
    if table.count > 2:
        kinds.append(ErrorKind("confused", "one class of interest was taken for another", CONFUSED))
    return tuple(kinds)


def error_map(mask_HW: Bytes, prediction_HW: Bytes, table: ClassTable) -> Bytes:
    """(H, W): 0 right, 1.. the number of the error kind, 255 ignored."""
    wrong = mask_HW != prediction_HW
    errors: Bytes = wrong.astype(np.uint8)
    if is_background(table):
        errors[wrong & (mask_HW == 0)] = 2
        errors[wrong & (mask_HW != 0) & (prediction_HW != 0)] = 3
    errors[mask_HW == IGNORE] = IGNORE
    return errors


def choose(ranked: Sequence[ImageScores], count: int) -> list[int]:
    """Positions of at most `count` images, evenly from the first to the last; the median is among them from three on."""
    total = len(ranked)
    count = min(count, total)
    if count <= 1:
        return list(range(count))
    places = [round(step * (total - 1) / (count - 1)) for step in range(count)]
    median = (total - 1) // 2
    if count > 2 and median not in places:
        nearest = min(range(1, count - 1), key=lambda place: abs(places[place] - median))
        places[nearest] = median
    return places


def draw_pictures(
    evaluation: Evaluation, predictor: Predictor, dataset: Dataset, count: int, folder: Path
) -> list[Picture]:
    """The chosen images, worst first; those larger than the page shows are also written at full size to `folder`."""
    ranked = evaluation.ranked
    places = choose(ranked, count)
    chosen = [ranked[place] for place in places]
    budget = BUDGET // max(1, len(chosen))
    scored_images = score_images(predictor.network, dataset, [image.item for image in chosen])
    pictures = []
    for number, (place, image, scored) in enumerate(zip(places, chosen, scored_images, strict=True), 1):
        photo = dataset.picture(image.item)
        layers = (photo, scored.mask, scored.prediction)
        uris, reduced = _fitting(layers, dataset.table, budget)
        full = _write_full(layers, dataset.table, image.item, number, folder) if reduced else {}
        panels = tuple(Panel(name, uris[name], full.get(name)) for name in PANELS)
        rank = _rank(place, len(ranked))
        pictures.append(Picture(number, image, rank, panels, small=max(photo.shape[:2]) <= 200))
    return pictures


def _rank(place: int, total: int) -> str:
    named = {total - 1: "best", (total - 1) // 2: "median", 0: "worst"}
    return named.get(place, f"{place + 1} of {total}") if total > 1 else "only image"


def _fitting(layers: tuple[Bytes, Bytes, Bytes], table: ClassTable, budget: int) -> tuple[dict[str, str], bool]:
    """Panels as data URIs, made smaller until they keep to the budget; and whether they are smaller than the image."""
    height, width = layers[1].shape
    largest = max(height, width)
    side = min(largest, LARGEST_SIDE)
    while True:
        size = (max(1, round(width * side / largest)), max(1, round(height * side / largest)))
        uris = {name: draw() for name, draw in _drawings(layers, size, table).items()}
        if side <= SMALLEST_SIDE or sum(map(len, uris.values())) <= budget:
            return uris, side < largest
        side = max(SMALLEST_SIDE, side * 3 // 4)


def _drawings(
    layers: tuple[Bytes, Bytes, Bytes], size: tuple[int, int], table: ClassTable
) -> dict[str, Callable[[], str]]:
    photo, mask, prediction = layers
    small = Image.fromarray(photo).resize(size, Image.Resampling.BOX)
    maps = [np.asarray(Image.fromarray(layer).resize(size, Image.Resampling.NEAREST)) for layer in (mask, prediction)]
    return {
        "image": lambda: _uri(small, lossless=False),
        "truth": lambda: class_map_uri(maps[0], table),
        "prediction": lambda: class_map_uri(maps[1], table),
        "errors": lambda: _uri(errors_picture(np.asarray(small), maps[0], maps[1], table), lossless=True),
    }


def _write_full(
    layers: tuple[Bytes, Bytes, Bytes], table: ClassTable, item: Item, number: int, folder: Path
) -> dict[str, str]:
    """The panels at the image's own size as files; panel to path from the report's folder."""
    photo, mask, prediction = layers
    folder.mkdir(exist_ok=True)
    stem = f"{number:03d}-" + (re.sub(r"[^\w.-]+", "-", item.name).strip("-.")[-60:] or "image")
    drawn = {
        "image": Image.fromarray(photo),
        "truth": _palette_image(_hatched(mask, table), table),
        "prediction": _palette_image(_hatched(prediction, table), table),
        "errors": errors_picture(photo, mask, prediction, table),
    }
    paths = {}
    for name, picture in drawn.items():
        path = folder / f"{stem}-{name}.{'jpg' if name == 'image' else 'png'}"
        picture.save(path, quality=92)
        paths[name] = f"{folder.name}/{path.name}"
    return paths


def errors_picture(photo: Bytes, mask_HW: Bytes, prediction_HW: Bytes, table: ClassTable) -> Image.Image:
    """The image dimmed and grey where the prediction is right, the error's colour where it is wrong."""
    errors = error_map(mask_HW, prediction_HW, table)
    grey = photo.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    dimmed = (24 + 0.42 * grey).astype(np.int32)
    step = 256 // _GREYS
    flat = (dimmed // step * step).astype(np.uint8)
    picture = np.repeat(flat[..., None], 3, axis=2)
    for number, kind in enumerate(error_kinds(table), 1):
        picture[errors == number] = kind.colour
    lines = _diagonals(errors.shape)
    for place, shade in ((~lines, 84), (lines, 72)):
        picture[(errors == IGNORE) & place] = shade
    return Image.fromarray(picture)


def class_map_uri(classes_HW: Bytes, table: ClassTable) -> str:
    """A class map as the data URI of a palette PNG without row filters: one byte a pixel is its class number."""
    buffer = io.BytesIO()
    _palette_image(_hatched(classes_HW, table), table).save(
        buffer, format="PNG", bits=8, optimize=False, compress_level=9
    )
    return _encoded(buffer.getvalue(), "png")


def _palette_image(indices_HW: Bytes, table: ClassTable) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(indices_HW))
    palette = table.palette()
    palette[3 * IGNORE :] = _HATCH_GREYS[0]
    if table.count <= HATCH:
        palette[3 * HATCH : 3 * HATCH + 3] = _HATCH_GREYS[1]
    image.putpalette(palette)
    return image


def _hatched(classes_HW: Bytes, table: ClassTable) -> Bytes:
    if table.count > HATCH:
        return classes_HW
    return np.where((classes_HW == IGNORE) & _diagonals(classes_HW.shape), np.uint8(HATCH), classes_HW)


def _diagonals(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    lines: NDArray[np.bool_] = (rows + columns) % 6 < 2
    return lines


def _uri(picture: Image.Image, *, lossless: bool) -> str:
    buffer = io.BytesIO()
    if features.check("webp"):
        picture.save(buffer, format="WEBP", lossless=lossless, quality=60 if lossless else 82, method=4)
        return _encoded(buffer.getvalue(), "webp")
    kind = "png" if lossless else "jpeg"
    picture.save(buffer, format=kind.upper())
    return _encoded(buffer.getvalue(), kind)


def _encoded(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
