"""Class maps to shapes and back to regions; the split that a file's or a folder's name says; an image's size by its header."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intarsia.importers.base import Shape
from intarsia.importers.pictures import split_of

if TYPE_CHECKING:
    from intarsia.data.base import Dataset, Item

SPLITS = ("train", "val", "test")
UNLABELLED = -1
"""In a map of what `shapes_of` makes shapes: no shape lies here."""
VOID = -2
"""Likewise: an ignored shape lies here."""
_WORDS = re.compile(r"[a-z]+")


def split_in(text: str) -> str | None:
    """The split that a name has as a word: "instances_val2017"; None if it has none, or several."""
    found = {split for word in _WORDS.findall(text.lower()) if (split := split_of(word))}
    return found.pop() if len(found) == 1 else None


def split_of_file(path: Path, folder: Path) -> str | None:
    """The split that a file's name says, else the nearest of the folders between it and `folder`."""
    names = [path.stem, *reversed(path.relative_to(folder).parts[:-1])]
    return next((split for name in names if (split := split_in(name))), None)


def cropped(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], tuple[int, int]] | None:
    """What a mask holds, cut to its box, and where that begins (row, column); None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return mask[top : rows[-1] + 1, left : columns[-1] + 1].copy(), (top, left)


def parts_by(numbers: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.bool_], tuple[int, int]]]:
    """Each number of a map in order: the number, its pixels cut to their box, and the box's row and column."""
    from scipy import ndimage

    values, which = np.unique(numbers, return_inverse=True)
    which = which.reshape(numbers.shape)
    for index, box in enumerate(ndimage.find_objects(which + 1)):
        yield int(values[index]), which[box] == index, (box[0].start, box[1].start)


def shapes_of(classes: NDArray[Any], names: Sequence[str], objects: NDArray[Any] | None = None) -> tuple[Shape, ...]:
    """A shape for each class, or for each object of it.

    Args:
        classes: (H, W) class numbers, `UNLABELLED` or `VOID`.
        objects: (H, W) numbers of the objects; None: a class is one.
    """
    keys = classes.astype(np.int64)
    if objects is not None:
        _, which = np.unique(objects, return_inverse=True)
        keys = np.where(keys >= 0, keys + which.reshape(keys.shape).astype(np.int64) * len(names), keys)
    shapes = []
    for key, pixels, origin in parts_by(keys):
        if key == VOID:
            shapes.append(Shape("", pixels=pixels, origin=origin, ignored=True))
        elif key != UNLABELLED:
            shapes.append(Shape(names[key % len(names)], pixels=pixels, origin=origin))
    return tuple(shapes)


def regions_of(
    dataset: Dataset, item: Item, classes: NDArray[np.uint8]
) -> Iterator[tuple[int, NDArray[np.bool_], tuple[int, int]]]:
    """Class number, pixels and their place of each object of a class map; of whole classes where no objects were drawn."""
    count = dataset.table.count
    keys = np.where(classes == 255, -1, classes.astype(np.int64))
    if item.instances is not None:
        keys = np.where(keys >= 0, keys + dataset.read_instances(item).astype(np.int64) * count, -1)
    for key, pixels, origin in parts_by(keys):
        if key >= 0:
            yield key % count, pixels, origin


def first_splits(dataset: Dataset) -> dict[str, str]:
    """Item's name to the first split that holds it: one that has no images of its own may be another's again."""
    found: dict[str, str] = {}
    for split in (*SPLITS, *dataset.splits):
        for item in dataset.splits.get(split, ()):
            found.setdefault(item.name, split)
    return found
