"""Polygons written as well-known text, and their fill: even-odd, a pixel is inside where its centre is.

Only POLYGON, MULTIPOLYGON and EMPTY are read. Coordinates are corner-origin: the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from intarsia.ops.polygons import Ring, fill_polygon

Polygon = list[Ring]
"""Outline, then holes."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_POINT = re.compile(rf"\s*({_NUMBER})\s+({_NUMBER})(?:\s+{_NUMBER})?\s*$")
_TEXT = re.compile(r"\s*(MULTIPOLYGON|POLYGON)\s*(?:Z\s*)?(EMPTY|\(.*\))\s*$", re.IGNORECASE | re.DOTALL)


def read_polygons(text: str) -> list[Polygon]:
    """The polygons of a POLYGON or MULTIPOLYGON.

    Raises:
        ValueError: the text is neither; the message says where it stops to be.
    """
    found = _TEXT.match(text)
    if found is None:
        raise ValueError(f"is no POLYGON or MULTIPOLYGON: {text[:40]!r}")
    if found[2].upper() == "EMPTY":
        return []
    body = found[2].strip()[1:-1]
    groups = [body] if found[1].upper() == "POLYGON" else _inside_brackets(body)
    return [[_ring(ring) for ring in _inside_brackets(group)] for group in groups]


def _inside_brackets(text: str) -> list[str]:
    """What stands in the outermost brackets of "(a), (b)"."""
    parts: list[str] = []
    depth, start = 0, 0
    for index, letter in enumerate(text):
        if letter == "(":
            if depth == 0:
                start = index + 1
            depth += 1
        elif letter == ")":
            depth -= 1
            if depth == 0:
                parts.append(text[start:index])
            elif depth < 0:
                break
        elif depth == 0 and letter not in ", \t\r\n":
            raise ValueError(f"has {letter!r} where a bracket is expected")
    if depth or not parts:
        raise ValueError("has brackets that do not close, or none")
    return parts


def _ring(text: str) -> Ring:
    points = []
    for pair in text.split(","):
        match = _POINT.match(pair)
        if match is None:
            raise ValueError(f"has no point in {pair[:40]!r}")
        points.append((float(match[1]), float(match[2])))
    return np.array(points, np.float64)


def fill(polygons: Iterable[Sequence[Ring]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) pixels whose centre lies in a polygon. Rings of one polygon are even-odd, so holes are holes; polygons unite."""
    inside = np.zeros(size, bool)
    for rings in polygons:
        inside |= fill_polygon(rings, size)
    return inside
