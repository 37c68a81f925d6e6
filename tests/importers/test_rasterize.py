"""Rings to pixels against a slow oracle and against the peers; pixels to rings and back; shapes to one class map."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from intarsia.importers.base import Shape, rectangle
from intarsia.importers.rasterize import fill, placed, render
from intarsia.ops import polygons
from intarsia.ops.polygons import fill_polygon, fill_window, outlines

SIZE = (13, 17)
HALVES = st.integers(-8, 44).map(lambda n: n / 2)  # many pass through the centres of pixels
RINGS = st.lists(st.lists(st.tuples(HALVES, HALVES), min_size=3, max_size=7).map(np.array), min_size=1, max_size=3)
MAPS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
SQUARE = rectangle(10, 10, 20, 20)


def oracle(rings, size):
    """Pixel by pixel: an odd number of edges lies to the left of, or through, its centre."""
    found = np.zeros(size, bool)
    for row, column in np.ndindex(*size):
        x, y, odd = column + 0.5, row + 0.5, False
        for ring in rings:
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if (y0 <= y) != (y1 <= y):
                    odd ^= x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
        found[row, column] = odd
    return found


@given(RINGS)
def test_a_fill_is_what_an_oracle_finds(rings):
    assert np.array_equal(fill_polygon(rings, SIZE), oracle(rings, SIZE))


@given(RINGS)
def test_a_window_holds_all_of_a_fill(rings):
    inside, top, left = fill_window(rings, SIZE)
    whole = np.zeros(SIZE, bool)
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    assert np.array_equal(whole, fill_polygon(rings, SIZE))


@given(RINGS)
def test_work_in_pieces_is_the_same(rings):
    whole = fill_polygon(rings, SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "_MOST_CROSSINGS", 3)
        assert np.array_equal(fill_polygon(rings, SIZE), whole)


@given(st.lists(st.tuples(st.floats(-3, 20), st.floats(-3, 16)), min_size=3, max_size=8, unique=True), st.randoms())
def test_neighbours_neither_overlap_nor_leave_a_gap(points, random):
    """A fan of triangles around a point inside a box covers the box once, whichever way round each is drawn."""
    centre = (8.3, 6.1)
    angle = [np.arctan2(y - centre[1], x - centre[0]) for x, y in points]
    around = [points[i] for i in np.argsort(angle)]
    total = np.zeros(SIZE, int)
    whole = np.zeros(SIZE, bool)
    for a, b in zip(around, [*around[1:], around[0]], strict=True):
        triangle = [centre, a, b]
        random.shuffle(triangle)
        total += fill_polygon([np.array(triangle)], SIZE)
        whole ^= fill_polygon([np.array([centre, a, b])], SIZE)
    assert np.array_equal(total % 2 == 1, whole)
    assert np.array_equal(whole, fill_polygon([np.array(around)], SIZE))


def test_an_edge_through_centres_is_the_same_from_both_sides():
    """Computed from either end, such an edge rounds differently: a pixel would be in both neighbours, or in none."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        row, column, dy, dx = rng.integers(0, 40, 4)
        a = np.array([column + 0.5 - dx / 3, row + 0.5 - (dy + 1) / 3])
        b = a + 3 * np.array([dx / 3, (dy + 1) / 3])
        left = np.array([a, b, (-200, b[1]), (-200, a[1])])
        right = np.array([b, a, (200, a[1]), (200, b[1])])
        one, two = fill_polygon([left], (40, 40)), fill_polygon([right], (40, 40))
        assert not (one & two).any()
        assert np.array_equal((one | two).all(axis=1), (one | two).any(axis=1))


@pytest.mark.parametrize(("rule", "pixels"), [("centre", 100), ("coco", 100), ("labelme", 121), ("opencv", 121)])
def test_a_square_by_each_rule(rule, pixels):
    if rule in ("coco", "opencv"):
        pytest.importorskip({"coco": "pycocotools", "opencv": "cv2"}[rule])
    assert fill([SQUARE], (30, 30), rule).sum() == pixels


@pytest.mark.parametrize("rule", ["centre", "coco", "labelme", "opencv"])
def test_what_sticks_out_is_cut_off(rule):
    if rule in ("coco", "opencv"):
        pytest.importorskip({"coco": "pycocotools", "opencv": "cv2"}[rule])
    assert fill([rectangle(-5, -5, 40, 40)], (9, 7), rule).all()
    assert not fill([rectangle(50, 50, 60, 60)], (9, 7), rule).any()


def test_a_hole_is_a_hole_under_centre_only():
    rings = [SQUARE, rectangle(13, 13, 16, 16)]
    assert fill(rings, (30, 30)).sum() == 100 - 9
    assert fill(rings, (30, 30), "labelme").sum() == 121


def test_a_hostile_polygon_takes_little_memory():
    zigzag = np.tile([[0.0, 0.0], [1.0, 4000.0]], (1500, 1))
    tracemalloc.start()
    fill_polygon([zigzag], (4000, 4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20


@given(MAPS)
def test_outlines_give_back_their_region(inside):
    parts = outlines(inside)
    filled = [fill_polygon(rings, inside.shape) for rings in parts]
    assert np.array_equal(np.sum(filled, axis=0) if filled else np.zeros(inside.shape, int), inside.astype(int))


@given(MAPS)
def test_rings_touch_themselves_nowhere_and_the_outer_one_is_first(inside):
    for outer, *holes in outlines(inside):
        for ring in (outer, *holes):
            assert len({tuple(corner) for corner in ring.tolist()}) == len(ring)
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps == 0).sum(axis=1) == 1).all()
            assert (np.roll(steps, -1, axis=0) * steps == 0).all(), "each corner is one"
        for hole in holes:
            assert (hole.min(axis=0) >= outer.min(axis=0)).all()
            assert (hole.max(axis=0) <= outer.max(axis=0)).all()


def test_a_ring_of_pixels_closed_at_a_corner_has_a_hole():
    inside = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    ((outer, hole),) = outlines(inside)
    assert len(outer) == 6
    assert hole.tolist() == [[1, 1], [1, 2], [2, 2], [2, 1]]


def box(label, x0, y0, x1, y1, **more):
    return Shape(label, (rectangle(x0, y0, x1, y1),), **more)


def test_the_later_shape_lies_on_top_and_clashes_are_counted():
    shapes = [box("a", 0, 0, 4, 4), box("b", 2, 0, 6, 4), box("b", 3, 0, 7, 4)]
    found = render(shapes, (5, 8), ["a", "b"])
    assert found.classes[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 255]
    assert (found.overlapped, found.vanished) == (8, 0)
    assert found.uncovered.sum() == 40 - 28
    assert found.objects[0].tolist() == [1, 1, 2, 3, 3, 3, 3, 0]


def test_orders():
    shapes = [box("a", 0, 0, 2, 2, z=5), box("b", 0, 0, 6, 6, z=1), box("c", 0, 0, 4, 4, z=1)]
    row = {
        order: render(shapes, (6, 6), ["a", "b", "c"], order=order).classes[0].tolist()
        for order in ("document", "z", "area")
    }
    assert row["document"] == [2, 2, 2, 2, 1, 1]
    assert row["z"] == [0, 0, 2, 2, 1, 1]
    assert row["area"] == [0, 0, 2, 2, 1, 1]


def test_a_shape_of_which_nothing_is_left_is_counted():
    shapes = [box("a", 1, 1, 3, 3), box("a", 4, 4, 5, 5), box("b", 0, 0, 6, 6), box("a", 50, 50, 60, 60)]
    assert render(shapes, (6, 6), ["a", "b"]).vanished == 2
    assert render(shapes, (6, 6), ["a", "b"], order="area").vanished == 0


def test_ignored_pixels_are_covered_but_no_object():
    shapes = [box("a", 0, 0, 4, 1), box("", 1, 0, 3, 1, ignored=True), box("", 6, 0, 7, 1, ignored=True)]
    found = render(shapes, (1, 8), ["a"])
    assert found.classes[0].tolist() == [0, 255, 255, 0, 255, 255, 255, 255]
    assert found.objects[0].tolist() == [1, 0, 0, 1, 0, 0, 0, 0]
    assert found.uncovered[0].tolist() == [False, False, False, False, True, True, False, True]
    assert found.overlapped == 2


def test_shapes_of_one_object_share_its_number():
    shapes = [box("a", 0, 0, 1, 1, object_id="x"), box("a", 2, 0, 3, 1), box("a", 4, 0, 5, 1, object_id="x")]
    assert render(shapes, (1, 6), ["a"]).objects[0].tolist() == [1, 0, 2, 0, 1, 0]


@pytest.mark.parametrize("origin", [(-2, 3), (3, -2), (4, 3), (3, 5), (-9, 0), (0, -9), (9, 9), (-1, -1), (2, 2)])
def test_pixels_that_stick_out_are_cut_off_on_every_side(origin):
    pixels = np.arange(12).reshape(3, 4) % 5 != 0
    expected = np.zeros((6, 7), bool)
    for row, column in np.argwhere(pixels) + origin:
        if 0 <= row < 6 and 0 <= column < 7:
            expected[row, column] = True
    assert np.array_equal(placed(Shape("a", pixels=pixels, origin=origin), (6, 7)), expected)


def test_rings_and_pixels_of_one_shape_unite():
    shape = Shape("a", (rectangle(0, 0, 2, 1),), np.ones((1, 2), bool), (0, 4))
    assert placed(shape, (1, 7))[0].tolist() == [True, True, False, False, True, True, False]
    assert not placed(Shape("a"), (2, 2)).any()


def test_many_small_shapes_of_a_large_picture_take_little_memory():
    shapes = [box("a", i, i, i + 3, i + 3) for i in range(300)]
    tracemalloc.start()
    found = render(shapes, (3000, 3000), ["a"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.objects.max() == 300
    assert peak < 300 << 20
