"""Polygons to pixels and pixels to polygons: a pixel belongs to what its centre lies in, so that neither way loses anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""(n, 2) x and y of its corners; (0, 0) is the corner of the first pixel, whose centre is (0.5, 0.5)."""


_MOST_CROSSINGS = 1 << 20
"""Worked on at once."""


def fill_polygon(rings: Sequence[Ring], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) pixels whose centre lies within the rings, together even-odd, edges half-open: neighbours that share an edge
    neither overlap nor leave a gap. What lies outside is cut off.

    A pixel is inside after an odd number of crossings of its row's middle line with the edges.
    """
    found = np.zeros(size, bool)
    inside, top, left = fill_window(rings, size)
    found[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return found


def fill_window(rings: Sequence[Ring], size: tuple[int, int]) -> tuple[NDArray[np.bool_], int, int]:
    """The same within the rings' own box: its pixels, and the box's first row and column."""
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = (
        np.clip(np.ceil(side - 0.5), 0, size[::-1]).astype(np.int64).tolist()
        for side in (corners.min(axis=0), corners.max(axis=0))
    )
    ends = np.concatenate([np.roll(one, -1, axis=0) for one in rings])
    down = (corners[:, 1] <= ends[:, 1])[
        :, None
    ]  # an edge is computed from above, so that both neighbours get the same
    starts, ends = np.where(down, corners, ends), np.where(down, ends, corners)
    first = np.clip(np.ceil(starts[:, 1] - 0.5), top, bottom).astype(np.int64)
    counts = (
        np.clip(np.ceil(ends[:, 1] - 0.5), top, bottom).astype(np.int64) - first
    )  # rows with the middle in [upper y, lower y)
    crossings = np.zeros((bottom - top, right - left + 1), np.uint8)
    begun = np.cumsum(counts) - counts
    total = int(counts.sum())
    for begin in range(0, total, _MOST_CROSSINGS):
        each = np.arange(begin, min(begin + _MOST_CROSSINGS, total))
        edge = np.searchsorted(begun, each, side="right") - 1
        row = each - begun[edge] + first[edge]
        (x0, y0), (x1, y1) = starts[edge].T, ends[edge].T
        at = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        column = np.clip(np.ceil(at - 0.5), left, right).astype(np.int64)  # the first centre at or beyond the crossing
        np.bitwise_xor.at(crossings, (row - top, column - left), 1)
    inside: NDArray[np.bool_] = np.bitwise_xor.accumulate(crossings, axis=1)[:, :-1].astype(bool)
    return inside, top, left


def outlines(inside: NDArray[np.bool_]) -> list[list[Ring]]:
    """The parts of a region, each an outer ring and the rings of its holes, along the edges of pixels.

    Parts are 4-connected. Filling a part under `centre` gives its pixels exactly; corners are whole numbers.
    """
    from scipy import ndimage

    numbered, count = ndimage.label(inside)
    parts = []
    for index, where in enumerate(ndimage.find_objects(numbered), 1):
        part = numbered[where] == index
        rings = _rings(part)
        for one in rings:
            one += (where[1].start, where[0].start)
        parts.append(rings)
    assert len(parts) == count
    return parts


def _rings(part: NDArray[np.bool_]) -> list[Ring]:
    """The rings of one 4-connected part, the outer one first; the region lies on the right of each step.

    Where two pixels of the region touch at a corner only, rings stay with the pixel outside, so that none touches itself, as
    GeoJSON and OGC demand.
    """
    padded = np.pad(part, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, column in np.argwhere(padded[1:, 1:-1] & ~padded[:-1, 1:-1]).tolist():  # an edge above: rightwards
        steps.setdefault((column, row), []).append((column + 1, row))
    for row, column in np.argwhere(~padded[1:, 1:-1] & padded[:-1, 1:-1]).tolist():  # below: leftwards
        steps.setdefault((column + 1, row), []).append((column, row))
    for row, column in np.argwhere(padded[1:-1, 1:] & ~padded[1:-1, :-1]).tolist():  # on the left: upwards
        steps.setdefault((column, row + 1), []).append((column, row))
    for row, column in np.argwhere(~padded[1:-1, 1:] & padded[1:-1, :-1]).tolist():  # on the right: downwards
        steps.setdefault((column, row), []).append((column, row + 1))
    rings = []
    for start in sorted(steps, key=lambda point: (point[1], point[0])):
        while steps[start]:
            rings.append(_walked(steps, start))
    return rings


def _walked(steps: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]) -> Ring:
    """One ring, its steps used up."""
    here, before = start, (0, 0)
    corners: list[tuple[int, int]] = []
    while here != start or not corners:
        ways = steps[here]
        left = here[0] + before[1], here[1] - before[0]
        there = left if left in ways else ways[0]
        ways.remove(there)
        way = there[0] - here[0], there[1] - here[1]
        if way != before:
            corners.append(here)
        here, before = there, way
    return np.array(corners, np.float64)
