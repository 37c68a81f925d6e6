"""Class maps as polygons along the edges of pixels: together they cover every pixel once, filled by centres they are the map.

Each 4-connected region is a polygon, its holes are rings. Where three regions meet, all of them have a corner there, so that
neighbours share their corners (a coverage: no gap, no overlap), also after points were moved to other coordinates.
Ignored pixels (255) belong to no polygon.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE, ClassTable
from intarsia.errors import DataError
from intarsia.images.overlay import is_background
from intarsia.ops.polygons import Ring, fill_window, outlines
from intarsia.optional import found, need

_BATCH = 1 << 19
"""Corners that are worked on at once."""
_ROWS = 1024
_IN_MEMORY = 1 << 26
"""Pixels of a map that is sieved in memory; a larger one in a file."""
_MOST_PIXELS = 1 << 22
"""Of a polygon's box that are filled at once."""


@dataclass(frozen=True)
class Polygon:
    """One region of a class."""

    class_index: int
    rings: tuple[Ring, ...]
    """(n, 2) x and y of the outer ring and of each hole, in pixels, not closed; (0, 0) is the corner of the first pixel."""
    area: float
    """In pixels."""
    mean_probability: float | None = None


@dataclass(frozen=True)
class _Batch:
    """Polygons one after the other, as flat arrays."""

    points: NDArray[np.int64]
    """(n, 2) x and y of all rings' corners, not closed."""
    rings: NDArray[np.int64]
    """Where each ring begins, and n."""
    polygons: NDArray[np.int64]
    """Which ring begins each polygon, and the number of rings."""
    classes: list[int]


def polygons_of(
    classes: NDArray[np.uint8],
    *,
    table: ClassTable,
    min_area_pixels: float = 0,
    simplify_pixels: float = 0,
    skip_background: bool = False,
) -> Iterator[Polygon]:
    """The regions of a class map.

    Memory grows with the number of corners (some 40 bytes each), not with pixels; simplifying keeps all polygons at once.

    Args:
        classes: (H, W), 255 ignored; may be mapped from a file.
        min_area_pixels: smaller regions go to their largest neighbour (`sieve`), so that no gap appears. Needs rasterio.
        simplify_pixels: t: corners are left out that span less than t² with their neighbours on the ring (Visvalingam and
            Whyatt's measure, in pixels), for all polygons together: common borders stay common; the outer edge of the
            image stays. Needs shapely.
        skip_background: leave out class 0, if its name says that it is background.

    Raises:
        MissingExtra: rasterio or shapely is needed and not installed.
        DataError: a class is not in the table.
    """
    if min_area_pixels > 1:
        classes = sieve(classes, min_area_pixels)
    batches = _noded(classes)
    polygons = (
        _simplified(batches, simplify_pixels) if simplify_pixels > 0 else chain.from_iterable(map(_split, batches))
    )
    for polygon in polygons:
        if polygon.class_index == IGNORE or (skip_background and polygon.class_index == 0 and is_background(table)):
            continue
        if polygon.class_index >= table.count:
            raise DataError(
                f"the class map holds class {polygon.class_index}, the table has only {table.count} classes."
            )
        yield polygon


def sieve(classes: NDArray[np.uint8], min_area_pixels: float) -> NDArray[np.uint8]:
    """(H, W) the map with each 4-connected region of less pixels given to its largest neighbour; ignored pixels stay.

    A region none of whose neighbours is large enough stays, as GDAL's sieve has it.

    Raises:
        MissingExtra: rasterio is not installed.
    """
    run = need("rasterio.features", extra="geo").sieve
    result, counted = _scratch(classes.shape), None
    for top in range(0, len(classes), _ROWS):
        ignored = np.asarray(classes[top : top + _ROWS]) == IGNORE
        if ignored.any() and counted is None:
            counted = _scratch(classes.shape)
            counted[:] = 1
        if counted is not None:
            counted[top : top + _ROWS] = ~ignored
    size = min(ceil(min_area_pixels), classes.size)
    run(classes, size, out=result, mask=counted, connectivity=4)
    return result


def _scratch(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array; a large one lies in a file that goes with it."""
    if np.prod(shape) <= _IN_MEMORY:
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def with_mean_probability(polygons: Iterable[Polygon], probability: NDArray[Any]) -> Iterator[Polygon]:
    """The polygons with the mean over their pixels of a map, such as the probability of the predicted class.

    Args:
        probability: (H, W), 0..1, or uint8 for 0..1 in 255 steps; may be mapped from a file. NaN is left out.
    """
    scale = 255 if probability.dtype == np.uint8 else 1
    for polygon in polygons:
        total, count = 0.0, 0
        corners = np.concatenate(polygon.rings)
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        rows = max(1, _MOST_PIXELS // max(1, ceil(right - left)))
        for begin in range(int(top), ceil(bottom), rows):
            end = min(begin + rows, ceil(bottom))
            moved = [ring - (0, begin) for ring in polygon.rings]
            inside, first, column = fill_window(moved, (end - begin, probability.shape[1]))
            height, width = inside.shape
            values = probability[begin + first : begin + first + height, column : column + width][inside]
            values = values[np.isfinite(values)]
            total, count = total + float(values.sum(dtype=np.float64)), count + len(values)
        yield replace(polygon, mean_probability=total / count / scale if count else None)


def _noded(classes: NDArray[np.uint8]) -> Iterator[_Batch]:
    """All regions, ignored ones too, with corners where three meet."""
    junctions = _junctions(classes)
    for batch in _batched(_traced(np.ascontiguousarray(classes))):
        yield _with_junctions(batch, junctions, classes.shape)


def _traced(classes: NDArray[np.uint8]) -> Iterator[tuple[int, list[Any]]]:
    """Class and rings of each region; rings may be closed."""
    if found("rasterio"):
        for shape, value in need("rasterio.features", extra="geo").shapes(classes, connectivity=4):
            yield int(value), [ring[:-1] for ring in shape["coordinates"]]
        return
    for index in np.unique(classes).tolist():
        for rings in outlines(classes == index):
            yield index, list(rings)


def _batched(regions: Iterable[tuple[int, list[Any]]]) -> Iterator[_Batch]:
    points: list[NDArray[np.int64]] = []
    polygons, classes, corners = [0], [], 0
    for index, rings in regions:
        points += [np.array(ring, np.int64) for ring in rings]
        polygons.append(len(points))
        classes.append(index)
        corners += sum(map(len, rings))
        if corners >= _BATCH:
            yield _flat(points, polygons, classes)
            points, polygons, classes, corners = [], [0], [], 0
    if classes:
        yield _flat(points, polygons, classes)


def _flat(points: list[NDArray[np.int64]], polygons: list[int], classes: list[int]) -> _Batch:
    starts = np.cumsum([0, *map(len, points)])
    return _Batch(np.concatenate(points), starts, np.array(polygons), classes)


def _junctions(classes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Corners of pixels at which one border ends on another that goes straight on: sorted y (W + 1) + x of those on a
    horizontal border, x (H + 1) + y of those on a vertical one. A region on the far side has no corner there of its own.
    """
    height, width = classes.shape
    level, upright = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for top in range(0, height - 1, _ROWS):
        rows = np.asarray(classes[top : top + _ROWS + 1])
        across, down = rows[:, 1:] != rows[:, :-1], rows[1:] != rows[:-1]
        above, below, left, right = across[:-1], across[1:], down[:, :-1], down[:, 1:]
        y, x = np.nonzero((left & right) & (above ^ below))
        level.append((y + top + 1) * (width + 1) + x + 1)
        y, x = np.nonzero((above & below) & (left ^ right))
        upright.append((x + 1) * (height + 1) + y + top + 1)
    return np.concatenate(level), np.sort(np.concatenate(upright))


def _with_junctions(
    batch: _Batch, junctions: tuple[NDArray[np.int64], NDArray[np.int64]], size: tuple[int, ...]
) -> _Batch:
    """The batch with the junctions on each side put between its ends."""
    here = batch.points
    there = here[_following(batch.rings)]
    is_level = here[:, 1] == there[:, 1]
    first = np.zeros(len(here), np.int64)
    counts = np.zeros(len(here), np.int64)
    for keys, sides, along in ((junctions[0], is_level, 0), (junctions[1], ~is_level, 1)):
        base = here[sides, 1 - along] * (size[1 - along] + 1)
        low, high = (pick(here[sides, along], there[sides, along]) + base for pick in (np.minimum, np.maximum))
        first[sides] = np.searchsorted(keys, low, side="right")
        counts[sides] = np.searchsorted(keys, high, side="left") - first[sides]
    before = np.cumsum(counts + 1) - counts - 1  # of each corner among all
    points = np.empty((len(here) + int(counts.sum()), 2), np.int64)
    points[before] = here
    for keys, sides, along in ((junctions[0], is_level, 0), (junctions[1], ~is_level, 1)):
        chosen = np.flatnonzero(sides & (counts > 0))
        number = counts[chosen]
        step = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        backwards = (there[chosen, along] < here[chosen, along]).repeat(number)
        which = first[chosen].repeat(number) + np.where(backwards, number.repeat(number) - 1 - step, step)
        place = before[chosen].repeat(number) + 1 + step
        points[place, along] = keys[which] % (size[1 - along] + 1)
        points[place, 1 - along] = keys[which] // (size[1 - along] + 1)
    return _Batch(points, np.append(before, len(points))[batch.rings], batch.polygons, batch.classes)


def _following(rings: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the corner after each, round its ring."""
    following = np.arange(1, rings[-1] + 1)
    following[rings[1:] - 1] = rings[:-1]
    return following


def _split(batch: _Batch) -> Iterator[Polygon]:
    points = batch.points
    following = points[_following(batch.rings)]
    crossed = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
    areas = np.abs(np.add.reduceat(crossed, batch.rings[:-1])) / 2
    corners = points.astype(np.float64)
    rings = np.split(corners, batch.rings[1:-1])
    for index, begin, end in zip(batch.classes, batch.polygons[:-1].tolist(), batch.polygons[1:].tolist(), strict=True):
        yield Polygon(index, tuple(rings[begin:end]), float(areas[begin] - areas[begin + 1 : end].sum()))


def _simplified(batches: Iterable[_Batch], tolerance: float) -> Iterator[Polygon]:
    """All polygons with less corners, by common borders."""
    shapely = need("shapely", extra="geo")
    kind = shapely.GeometryType.POLYGON
    classes: list[int] = []
    geometries = []
    for batch in batches:
        points, rings = _closed(batch)
        geometries.append(shapely.from_ragged_array(kind, points, (rings, batch.polygons)))
        classes += batch.classes
    if not classes:
        return
    fewer = shapely.coverage_simplify(np.concatenate(geometries), tolerance, simplify_boundary=False)
    del geometries
    for begin in range(0, len(classes), _ROWS):
        yield from _from_shapely(shapely, fewer[begin : begin + _ROWS], classes[begin : begin + _ROWS])


def _closed(batch: _Batch) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Corners with the first of each ring again at its end, and where rings begin."""
    lengths = np.diff(batch.rings) + 1
    starts = np.concatenate(([0], np.cumsum(lengths)))
    order = np.arange(starts[-1]) - np.repeat(np.arange(len(lengths)), lengths)
    order[starts[1:] - 1] = batch.rings[:-1]
    return batch.points[order].astype(np.float64), starts


def _from_shapely(shapely: Any, geometries: NDArray[Any], classes: Sequence[int]) -> Iterator[Polygon]:
    areas = shapely.area(geometries)
    parts, owner = shapely.get_parts(geometries, return_index=True)
    _, points, (rings, polygons) = shapely.to_ragged_array(parts, include_z=False)
    if len(parts) != len(geometries) or not np.array_equal(owner, np.arange(len(parts))):
        areas = shapely.area(parts)
    cut = [ring[:-1] for ring in np.split(points, rings[1:-1])]
    for part, (begin, end) in enumerate(zip(polygons[:-1].tolist(), polygons[1:].tolist(), strict=True)):
        yield Polygon(int(classes[int(owner[part])]), tuple(cut[begin:end]), float(areas[part]))
