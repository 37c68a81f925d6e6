"""Polygons of class maps: every pixel once, neighbours share their corners, also when simplified; what is measured of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from intarsia.classes import ClassTable, numbered_table
from intarsia.errors import DataError, MissingExtra
from intarsia.ops.polygons import fill_polygon
from intarsia.prediction.vectors import polygons as module
from intarsia.prediction.vectors.polygons import Polygon, polygons_of, sieve, with_mean_probability

shapely = pytest.importorskip("shapely", reason="needs shapely, of the extra geo")
pytest.importorskip("rasterio", reason="needs rasterio, of the extra geo")
TABLE = numbered_table(3)


@pytest.fixture(params=["rasterio", "our own tracing"])
def tracing(request, monkeypatch):
    monkeypatch.setattr(module, "found", lambda _: request.param == "rasterio")


def maps(count=24, seed=0):
    rng = np.random.default_rng(seed)
    for at in range(count):
        height, width = rng.integers(1, 22, 2)
        classes = rng.choice(np.array([0, 1, 2, 255][: 3 + at % 2], np.uint8), (height, width))
        scale = (1, 1), (2, 3), (5, 4)
        yield np.kron(classes, np.ones(scale[at % 3], np.uint8))
    ring = np.zeros((9, 9), np.uint8)
    ring[2:7, 2:7], ring[4, 4], ring[3, 3] = 1, 2, 255  # holes, one of which meets another at a corner
    yield ring


def shapes(found):
    return np.array([shapely.Polygon(each.rings[0], each.rings[1:]) for each in found])


def regions(classes):
    """4-connected regions but the ignored ones, counted another way."""
    return sum(ndimage.label(classes == k)[1] for k in np.unique(classes) if k != 255)


def test_every_pixel_lies_in_one_polygon_of_its_class(tracing):
    for classes in maps():
        filled = np.full(classes.shape, 255, np.uint8)
        found = list(polygons_of(classes, table=TABLE))
        for each in found:
            inside = fill_polygon(each.rings, classes.shape)
            assert (filled[inside] == 255).all()
            filled[inside] = each.class_index
            assert each.area == inside.sum()
        np.testing.assert_array_equal(filled, classes)
        assert len(found) == regions(classes)


def test_neighbours_share_their_corners(tracing):
    for classes in maps():
        drawn = shapes(polygons_of(classes, table=TABLE))
        assert shapely.is_valid(drawn).all()
        assert shapely.coverage_is_valid(drawn)
        assert shapely.union_all(drawn).area == (classes != 255).sum()


def test_a_border_that_ends_on_another_makes_a_corner_there(tracing):
    classes = np.array([[0, 0, 0, 0], [1, 1, 2, 2]], np.uint8)
    (upper,) = (each for each in polygons_of(classes, table=TABLE) if each.class_index == 0)
    assert {tuple(point) for point in upper.rings[0].tolist()} == {(0, 0), (4, 0), (4, 1), (2, 1), (0, 1)}


def test_tracing_is_the_same_with_and_without_rasterio(monkeypatch):
    for classes in maps():
        drawn = []
        for has in (True, False):
            monkeypatch.setattr(module, "found", lambda _, has=has: has)
            drawn.append(sorted(shapely.to_wkb(shapely.normalize(shapes(polygons_of(classes, table=TABLE)))).tolist()))
        assert drawn[0] == drawn[1]


def test_batches_and_blocks_change_nothing(monkeypatch):
    classes = np.random.default_rng(1).integers(0, 3, (50, 60)).astype(np.uint8)
    whole = list(polygons_of(classes, table=TABLE))
    monkeypatch.setattr(module, "_BATCH", 40)
    monkeypatch.setattr(module, "_ROWS", 3)
    parts = list(polygons_of(classes, table=TABLE))
    assert len(parts) == len(whole)
    for one, other in zip(whole, parts, strict=True):
        assert (one.class_index, one.area) == (other.class_index, other.area)
        assert all(np.array_equal(a, b) for a, b in zip(one.rings, other.rings, strict=True))


def test_a_mapped_map_is_traced(tmp_path):
    classes = np.random.default_rng(2).integers(0, 3, (40, 30)).astype(np.uint8)
    np.save(tmp_path / "map.npy", classes)
    mapped = np.load(tmp_path / "map.npy", mmap_mode="r")
    assert len(list(polygons_of(mapped, table=TABLE))) == regions(classes)
    assert len(list(polygons_of(mapped, table=TABLE, min_area_pixels=4))) < regions(classes)


def test_only_background_is_left_out_and_only_if_asked():
    classes = np.array([[0, 1], [0, 1]], np.uint8)
    table = ClassTable(names=("background", "cell"))
    assert [each.class_index for each in polygons_of(classes, table=table)] == [0, 1]
    assert [each.class_index for each in polygons_of(classes, table=table, skip_background=True)] == [1]
    named = ClassTable(names=("sky", "cell"))
    assert [each.class_index for each in polygons_of(classes, table=named, skip_background=True)] == [0, 1]


def test_a_class_beyond_the_table_is_told():
    with pytest.raises(DataError, match="holds class 7, the table has only 3"):
        list(polygons_of(np.full((2, 2), 7, np.uint8), table=TABLE))


def test_small_regions_go_to_their_largest_neighbour():
    classes = np.zeros((12, 12), np.uint8)
    classes[:, 9:], classes[4, 4], classes[5, 9:11] = 1, 2, 2
    classes[8:10, 2:4] = 255
    kept = sieve(classes, 3)
    expected = classes.copy()
    expected[4, 4], expected[5, 9:11] = 0, 0
    assert set(np.unique(kept)) == {0, 1, 255}
    np.testing.assert_array_equal(kept == 255, classes == 255)
    np.testing.assert_array_equal(kept, expected)
    total = sum(each.area for each in polygons_of(classes, table=TABLE, min_area_pixels=3))
    assert total == (classes != 255).sum()  # no gap
    np.testing.assert_array_equal(sieve(classes, 1), classes)


def test_sieving_never_touches_ignored_pixels(monkeypatch):
    for in_memory in (1 << 26, 0):
        monkeypatch.setattr(module, "_IN_MEMORY", in_memory)
        for classes in maps(seed=3):
            np.testing.assert_array_equal(sieve(classes, 6) == 255, classes == 255)


@pytest.mark.parametrize("tolerance", [1, 3])
def test_simplified_polygons_still_meet(tracing, tolerance):
    fewer = 0
    for classes in maps(seed=4):
        exact = list(polygons_of(classes, table=TABLE))
        found = list(polygons_of(classes, table=TABLE, simplify_pixels=tolerance))
        drawn = shapes(found)
        assert len(found) == len(exact)
        assert shapely.is_valid(drawn).all()
        assert shapely.coverage_is_valid(drawn)
        union = shapely.union_all(drawn).area if len(drawn) else 0
        assert sum(each.area for each in found) == pytest.approx(union, abs=1e-9)
        np.testing.assert_allclose([each.area for each in found], shapely.area(drawn), atol=1e-9)
        if not (classes == 255).any():
            assert union == pytest.approx(classes.size, abs=1e-9)  # the image's edge stays
        fewer += sum(map(len, (r for e in exact for r in e.rings))) - sum(map(len, (r for e in found for r in e.rings)))
    assert fewer > 100


def test_simplifying_moves_borders_by_about_what_is_asked_for():
    rows, columns = np.mgrid[:200, :200]
    classes = (np.hypot(rows - 100, columns - 100) < 70).astype(np.uint8)
    found = {
        t: max(polygons_of(classes, table=TABLE, simplify_pixels=t), key=lambda e: e.class_index) for t in (0, 1, 4)
    }
    corners = [len(each.rings[0]) for each in found.values()]
    assert corners[0] > 2 * corners[1] > 4 * corners[2]
    for t, each in found.items():
        distances = np.hypot(*(each.rings[0] - 100.5).T)
        assert np.abs(distances - 70).max() < 1.5 + t


def test_means_are_those_of_the_pixels(monkeypatch):
    rng = np.random.default_rng(5)
    for at, classes in enumerate(maps(seed=5)):
        monkeypatch.setattr(module, "_MOST_PIXELS", (1 << 22, 7)[at % 2])
        probability = rng.random(classes.shape).astype(np.float32)
        probability[rng.random(classes.shape) < 0.1] = np.nan
        for values, scale in ((probability, 1), (rng.integers(0, 256, classes.shape).astype(np.uint8), 255)):
            for each in with_mean_probability(polygons_of(classes, table=TABLE), values):
                own = values[fill_polygon(each.rings, classes.shape)].astype(np.float64) / scale
                own = own[np.isfinite(own)]
                assert (each.mean_probability is None) == (len(own) == 0)
                if len(own):
                    assert each.mean_probability == pytest.approx(own.mean(), rel=1e-6)


def test_what_needs_an_extra_says_so(monkeypatch):
    classes = np.array([[0, 1], [0, 1]], np.uint8)
    monkeypatch.setattr(module, "found", lambda _: False)
    monkeypatch.setattr("intarsia.optional.found", lambda _: False)
    assert len(list(polygons_of(classes, table=TABLE))) == 2
    for setting in ({"min_area_pixels": 4}, {"simplify_pixels": 1}):
        with pytest.raises(MissingExtra, match=r"intarsia\[geo\]"):
            list(polygons_of(classes, table=TABLE, **setting))


def test_a_map_of_nothing_has_no_polygon(tracing):
    nothing = np.full((4, 5), 255, np.uint8)
    assert list(polygons_of(nothing, table=TABLE)) == []
    assert list(polygons_of(nothing, table=TABLE, simplify_pixels=1)) == []
    assert isinstance(next(polygons_of(np.zeros((1, 1), np.uint8), table=TABLE)), Polygon)
