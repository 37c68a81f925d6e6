"""Polygons in well-known text against a point-in-polygon oracle."""

import numpy as np
import pytest

from intarsia.data.published.wkt import fill, read_polygons


def oracle(polygons, size):
    """Even-odd by counting the edges to the right of each pixel's centre, one pixel at a time."""
    inside = np.zeros(size, bool)
    for row, column in np.ndindex(size):
        x, y = column + 0.5, row + 0.5
        for rings in polygons:
            odd = False
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                    if (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                        odd = not odd
            inside[row, column] |= odd
    return inside


def test_a_square_of_whole_corners_is_its_area():
    (polygon,) = read_polygons("POLYGON ((5 5, 35 5, 35 35, 5 35, 5 5))")
    assert fill([polygon], (40, 40)).sum() == 900


@pytest.mark.parametrize("seed", range(8))
def test_fill_is_even_odd_at_centres(seed):
    rng = np.random.default_rng(seed)
    polygons = [[rng.uniform(-4, 24, (rng.integers(3, 9), 2)) for _ in range(rng.integers(1, 3))] for _ in range(2)]
    assert np.array_equal(fill(polygons, (18, 21)), oracle(polygons, (18, 21)))


def test_holes_scientific_numbers_and_empty():
    text = "MULTIPOLYGON (((0 0, 1e1 0, 10 10, 0 10, 0 0), (2 2, 4 2, 4 4, 2 4, 2 2)), ((.5 12, 3 12, 3 14, .5 14, .5 12)))"
    polygons = read_polygons(text)
    assert [len(rings) for rings in polygons] == [2, 1]
    assert fill(polygons, (20, 20)).sum() == 100 - 4 + 6
    assert read_polygons("MULTIPOLYGON EMPTY") == []


@pytest.mark.parametrize(
    "text",
    ["POINT (1 2)", "POLYGON ((1 2, 3)", "POLYGON ((1 2, 3 x, 4 5))", "POLYGON (1 2, 3 4)", "MULTIPOLYGON ()", ""],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"no POLYGON|no point|brackets|a bracket"):
        read_polygons(text)
