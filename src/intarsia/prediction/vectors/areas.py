"""How much of an image each class covers: pixels, share, and square metres where the image tells them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE, ClassTable
from intarsia.errors import DataError, SaveError
from intarsia.images.source import Source
from intarsia.images.tiff.ground import Ground

_ROWS = 256
COLUMNS = ("class", "name", "pixels", "share", "m2")


@dataclass(frozen=True)
class ClassArea:
    """One row of the table."""

    class_index: int
    name: str
    pixels: int
    share: float | None
    """Of the pixels that are not ignored, 0..1; None for those that are."""
    m2: float | None
    """Square metres; None where the image does not tell the size of its pixels."""


def ground_under(like: Source | None) -> Ground | None:
    """Metres and areas of an image: by its coordinates, or by the size of its pixels alone; None where neither is told."""
    if like is None:
        return None
    located: Ground | None = getattr(like, "ground", None)
    if located is None and like.metres is not None:
        height, width = like.metres
        return Ground((width, 0.0, 0.0, 0.0, height, 0.0), 1.0)
    return located


def class_areas(classes: NDArray[np.uint8], table: ClassTable, like: Source | None = None) -> list[ClassArea]:
    """A row for each class of the table, and one for ignored pixels if there are any.

    On a plane m² are those of the map projection. In degrees each row of pixels has its own area on the ellipsoid.

    Args:
        classes: (H, W), 255 ignored; may be mapped from a file.
        like: the image, for the size of its pixels.

    Raises:
        DataError: a class is not in the table, or the sizes differ.
    """
    ground = ground_under(like)
    if like is not None and classes.shape != like.size:
        raise DataError(f"the map is {classes.shape[0]} x {classes.shape[1]}, the image {like.height} x {like.width}.")
    pixels = np.zeros(256, np.int64)
    metres: NDArray[np.float64] = np.zeros(256)
    for top in range(0, len(classes), _ROWS):
        rows = np.asarray(classes[top : top + _ROWS])
        pixels += np.bincount(rows.ravel(), minlength=256)
        if ground is not None and ground.ellipsoid is not None:
            each = np.broadcast_to(ground.pixel_areas(top, top + len(rows), rows.shape[1]), rows.shape)
            metres += np.bincount(rows.ravel(), weights=each.ravel(), minlength=256)
    if ground is not None and ground.ellipsoid is None:
        metres = np.asarray(pixels * float(ground.pixel_areas(0, 1, 1)[0, 0]), np.float64)
    beyond = np.flatnonzero(pixels[table.count : IGNORE]) + table.count
    if len(beyond):
        raise DataError(f"the class map holds class {beyond[0]}, the table has only {table.count} classes.")
    counted = int(pixels.sum() - pixels[IGNORE])
    rows_of = [
        ClassArea(
            index,
            name,
            int(pixels[index]),
            float(pixels[index] / counted) if counted else 0.0,
            float(metres[index]) if ground else None,
        )
        for index, name in enumerate(table.names)
    ]
    if pixels[IGNORE]:
        ignored = float(metres[IGNORE]) if ground else None
        rows_of.append(ClassArea(IGNORE, "ignored", int(pixels[IGNORE]), None, ignored))
    return rows_of


def write_areas(path: Path | str, rows: Iterable[ClassArea]) -> None:
    """A CSV with the columns class, name, pixels, share, m2; empty where a number is not known.

    Raises:
        SaveError: the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(COLUMNS)
            for row in rows:
                lines.writerow(
                    ("" if v is None else v) for v in (row.class_index, row.name, row.pixels, row.share, row.m2)
                )
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SaveError(f"{path}: cannot be written ({error.strerror}).") from None
