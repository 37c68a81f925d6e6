"""Rings to pixels, pixels to rings, and the shapes of a picture to one class map.

| rule | a pixel belongs to a polygon if |
|---|---|
| `centre` | its centre lies inside, even-odd, edges half-open: neighbours neither overlap nor leave a gap |
| `labelme` | Pillow paints it, outline included, as labelme does: about half a pixel more all round |
| `opencv` | cv2.fillPoly paints it, of corners rounded to pixels: the same, by another algorithm |
| `coco` | pycocotools' frPoly has it, as COCO's own masks |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from intarsia.classes import IGNORE
from intarsia.importers.base import Shape
from intarsia.ops.polygons import Ring, fill_polygon, fill_window
from intarsia.optional import need

Rule = Literal["centre", "labelme", "opencv", "coco"]
Order = Literal["document", "z", "area"]


def fill(rings: Sequence[Ring], size: tuple[int, int], rule: Rule = "centre") -> NDArray[np.bool_]:
    """(H, W) what rings enclose, together even-odd under `centre`; under the peers' rules they unite, as the peers have it.

    Raises:
        MissingExtra: the rule's library is not installed.
    """
    if rule == "centre":
        return fill_polygon(rings, size)
    inside = np.zeros(size, bool)
    for one in rings:
        inside |= _PEERS[rule](one, size)
    return inside


def _labelme(one: Ring, size: tuple[int, int]) -> NDArray[np.bool_]:
    canvas = Image.new("L", size[::-1], 0)
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in one], outline=1, fill=1)
    return np.asarray(canvas).astype(bool)


def _opencv(one: Ring, size: tuple[int, int]) -> NDArray[np.bool_]:
    cv2 = need("cv2", extra="annotations")
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [np.rint(one).astype(np.int32)], 1)
    return canvas.astype(bool)


def _coco(one: Ring, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = need("pycocotools.mask", extra="annotations")
    found: NDArray[Any] = mask.decode(mask.frPyObjects([one.ravel().tolist()], *size))[..., 0]
    return found.astype(bool)


_PEERS = {"labelme": _labelme, "opencv": _opencv, "coco": _coco}


@dataclass(frozen=True)
class Rendered:
    """A picture's class map."""

    classes: NDArray[np.uint8]
    """(H, W) class numbers, 255 ignored, `UNCOVERED` where no shape lies."""
    uncovered: NDArray[np.bool_]
    """(H, W) where no shape lies; the class map has 255 there."""
    objects: NDArray[np.int32]
    """(H, W) objects 1..n, 0 where there is none."""
    overlapped: int
    """Pixels that more than one shape claims with different classes."""
    vanished: int
    """Shapes of which other shapes leave nothing."""


def render(
    shapes: Sequence[Shape],
    size: tuple[int, int],
    classes: Sequence[str],
    *,
    order: Order = "document",
    rule: Rule = "centre",
) -> Rendered:
    """One class map of all shapes, the later over the earlier.

    Args:
        order: document; z, then document; or area, the largest below.
        rule: how rings are filled.
    """
    numbers = {label: index for index, label in enumerate(classes)}
    found = np.full(size, IGNORE, np.uint8)
    covered, clash = np.zeros(size, bool), np.zeros(size, bool)
    objects = np.zeros(size, np.int32)
    ids: dict[str, int] = {}
    used = 0
    painted: set[int] = set()
    for index in _sequence(shapes, size, order, rule):
        shape = shapes[index]
        where, mask = _window(shape, size, rule)
        value = IGNORE if shape.ignored else numbers[shape.label]
        clash[where] |= mask & covered[where] & (found[where] != value)
        found[where][mask], covered[where][mask] = value, True
        if shape.ignored:
            objects[where][mask] = 0
            continue
        mine = ids.get(shape.object_id, 0) if shape.object_id is not None else 0
        if not mine:
            used = mine = used + 1
        if shape.object_id is not None:
            ids[shape.object_id] = mine
        objects[where][mask] = mine
        if mask.any():
            painted.add(mine)
    vanished = len(painted - set(np.unique(objects).tolist()))
    return Rendered(found, ~covered, objects, int(clash.sum()), vanished)


def _sequence(shapes: Sequence[Shape], size: tuple[int, int], order: Order, rule: Rule) -> list[int]:
    if order == "document":
        return list(range(len(shapes)))
    keys = [each.z if order == "z" else -int(_window(each, size, rule)[1].sum()) for each in shapes]
    return sorted(range(len(shapes)), key=keys.__getitem__)


def placed(shape: Shape, size: tuple[int, int], rule: Rule = "centre") -> NDArray[np.bool_]:
    """(H, W) the pixels of a shape, what sticks out cut off."""
    whole = np.zeros(size, bool)
    where, mask = _window(shape, size, rule)
    whole[where] = mask
    return whole


def _window(shape: Shape, size: tuple[int, int], rule: Rule) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Where a shape lies in the picture, and its pixels there: of a thousand small shapes none costs a whole picture."""
    parts = []
    if shape.rings and rule == "centre":
        parts.append(fill_window(shape.rings, size))
    elif shape.rings:
        parts.append((fill(shape.rings, size, rule), 0, 0))
    if shape.pixels is not None:
        (top, left), (height, width) = shape.origin, shape.pixels.shape
        rows, columns = _kept(top, height, size[0]), _kept(left, width, size[1])
        inside = np.asarray(shape.pixels)[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
        parts.append((inside, rows.start, columns.start))
    if len(parts) == 1:
        inside, top, left = parts[0]
        return (slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1])), inside
    whole = np.zeros(size, bool)
    for inside, top, left in parts:
        whole[top : top + inside.shape[0], left : left + inside.shape[1]] |= inside
    return (slice(0, size[0]), slice(0, size[1])), whole


def _kept(start: int, length: int, side: int) -> slice:
    """What of `length` pixels lies within 0..side."""
    first = min(max(0, start), side)
    return slice(first, max(first, min(side, start + length)))
