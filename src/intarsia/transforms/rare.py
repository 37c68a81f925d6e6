"""Which classes are rare, where they lie in a mask, and a place of one of them for a window to look at.

A class is rare if it has fewer training pixels than the mean of the classes that occur. Of the rare classes of an image one is
drawn, all alike, and then one of its pixels, so that a class of a few pixels is met as often as one of many (nnU-Net,
arXiv:1809.10486, does so with a third of its samples, for every class but 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

MOST = 1000
"""Places that are remembered of one class in one image."""
DRAW = 0x9A7E
"""Seed of the places that are remembered; a mask alone decides them."""


def rare_classes(pixels: ArrayLike) -> tuple[int, ...]:
    """Classes that occur, in fewer pixels than the mean of those that occur.

    >>> rare_classes([700, 200, 0, 100])
    (1, 3)

    Args:
        pixels: (K,) training pixels of each class.
    """
    count = np.asarray(pixels, np.float64)
    there = count > 0
    return tuple(np.flatnonzero(there & (count < count[there].mean())).tolist()) if there.any() else ()


def find_places(mask_HW: Tensor, classes: Sequence[int]) -> Tensor:
    """(n, 3) int32: class, row, column of up to 1000 pixels of each of the classes, in the order of the classes."""
    mask = mask_HW.numpy()
    found = [np.zeros((0, 3), np.int32)]
    for index in classes:
        flat = np.flatnonzero(mask == index)
        if len(flat) > MOST:
            flat = np.sort(np.random.default_rng((DRAW, index)).choice(flat, MOST, replace=False))
        found.append(np.stack((np.full_like(flat, index), *divmod(flat, mask.shape[1])), axis=1).astype(np.int32))
    return torch.from_numpy(np.concatenate(found))


def draw_place(places_n3: Tensor | None, rng: np.random.Generator) -> tuple[int, int] | None:
    """(row, column) of a class drawn among those with places, all alike; None if there is no place."""
    if places_n3 is None or not len(places_n3):
        return None
    places = places_n3.numpy()
    starts = np.flatnonzero(np.diff(places[:, 0], prepend=-1))
    which = int(rng.integers(len(starts)))
    end = starts[which + 1] if which + 1 < len(starts) else len(places)
    _, row, column = places[int(rng.integers(starts[which], end))].tolist()
    return row, column
