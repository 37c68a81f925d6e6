"""Areas of classes: counted pixel by pixel, in square metres of the plane or of the ellipsoid."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from intarsia.classes import ClassTable
from intarsia.errors import DataError, SaveError
from intarsia.images.source import ArraySource
from intarsia.prediction.vectors.areas import ClassArea, class_areas, write_areas
from intarsia.prediction.vectors.polygons import polygons_of

TABLE = ClassTable(names=("sea", "land, dry", "unseen"))


def some_map(size=(300, 40), seed=0):
    return np.random.default_rng(seed).choice(np.array([0, 1, 1, 255], np.uint8), size)


def geo(path, size, crs, transform):
    pytest.importorskip("rasterio", reason="needs rasterio, of the extra geo")
    from intarsia.images.tiff.geotiff import GeoSource
    from tests.images.rasters import raster

    return GeoSource(raster(path, np.ones(size, np.uint8), crs=crs, transform=transform))


def test_pixels_and_shares_are_counted():
    classes = some_map()
    sea, land, unseen, ignored = class_areas(classes, TABLE)
    assert (sea.pixels, land.pixels, unseen.pixels) == tuple((classes == k).sum() for k in range(3))
    assert sea.share == pytest.approx(sea.pixels / (classes != 255).sum())
    assert (sea.share + land.share, unseen.share) == (pytest.approx(1), 0)
    assert ignored == ClassArea(255, "ignored", int((classes == 255).sum()), None, None)
    assert sea.m2 is None


def test_without_ignored_pixels_there_is_no_row_of_them():
    assert len(class_areas(np.zeros((3, 4), np.uint8), TABLE)) == 3
    assert all(row.share == 0 for row in class_areas(np.full((3, 4), 255, np.uint8), TABLE)[:3])


def test_square_metres_of_a_plane_are_pixels_times_their_size(tmp_path):
    from tests.images.rasters import Affine

    classes = some_map()
    foot = 1200 / 3937
    for crs, transform, pixel in (
        ("EPSG:32616", Affine(0.5, 0, 0, 0, -0.5, 0), 0.25),
        ("EPSG:32616", Affine(0.4, 0.3, 0, 0.3, -0.4, 0), 0.25),
        ("EPSG:32616", Affine(0.5, 0, 0, 0, 2, 0), 1.0),
        ("EPSG:2263", Affine(2, 0, 0, 0, -3, 0), 6 * foot**2),
    ):
        with geo(tmp_path / "image.tif", classes.shape, crs, transform) as source:
            for row in class_areas(classes, TABLE, source):
                assert row.m2 == pytest.approx(row.pixels * pixel)


def test_square_metres_of_degrees_differ_row_by_row(tmp_path):
    from tests.images.rasters import Affine

    classes = some_map()
    step = 0.05
    a, f = 6378137.0, 1 / 298.257223563
    e2 = f * (2 - f)
    with geo(tmp_path / "image.tif", classes.shape, "EPSG:4326", Affine(step, 0, 0, 0, -step, 70)) as source:
        found = class_areas(classes, TABLE, source)
    slow = np.zeros(256)
    for row, line in enumerate(classes):  # each pixel cut into 20 strips, of which each is a rectangle
        phi = np.radians(70 - step * (row + (np.arange(20) + 0.5) / 20))
        w2 = 1 - e2 * np.sin(phi) ** 2
        pixel = (a * (1 - e2) / w2**1.5 * a / np.sqrt(w2) * np.cos(phi)).mean() * math.radians(step) ** 2
        for value in line:
            slow[value] += pixel
    for row in found:
        assert row.m2 == pytest.approx(slow[row.class_index], rel=1e-8)


def test_turned_degrees_are_near_to_unturned(tmp_path):
    from tests.images.rasters import Affine

    classes = np.zeros((40, 40), np.uint8)
    step, turn = 0.001, math.radians(30)
    place = Affine(step * math.cos(turn), step * math.sin(turn), 5, step * math.sin(turn), -step * math.cos(turn), 50)
    with geo(tmp_path / "turned.tif", classes.shape, "EPSG:4326", place) as source:
        turned = class_areas(classes, TABLE, source)[0].m2
        assert source.pixel_area_m2(3, 5).shape == (2, 40)
        (polygon,) = polygons_of(classes, table=TABLE)
        assert source.ground.area(polygon.rings) == pytest.approx(turned, rel=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32616", "EPSG:2263"])
def test_polygons_have_the_area_of_their_pixels(tmp_path, crs):
    from tests.images.rasters import Affine

    classes = np.kron(some_map((8, 9), 1), np.ones((5, 6), np.uint8))
    step = 0.01 if crs == "EPSG:4326" else 3
    with geo(tmp_path / "image.tif", classes.shape, crs, Affine(step, 0, 7, 0, -step, 60)) as source:
        by_polygon = np.zeros(256)
        for each in polygons_of(classes, table=TABLE):
            by_polygon[each.class_index] += source.ground.area(each.rings)
        for row in class_areas(classes, TABLE, source)[:3]:
            assert by_polygon[row.class_index] == pytest.approx(row.m2, rel=1e-9)


def test_the_size_of_pixels_is_enough(tmp_path):
    classes = some_map((6, 7))
    source = ArraySource(classes)
    source.metres = (0.5, 3.0)
    assert class_areas(classes, TABLE, source)[0].m2 == pytest.approx(1.5 * (classes == 0).sum())


def test_wrong_maps_are_told():
    with pytest.raises(DataError, match="holds class 9, the table has only 3"):
        class_areas(np.full((2, 2), 9, np.uint8), TABLE)
    with pytest.raises(DataError, match="the map is 2 x 3, the image 3 x 2"):
        class_areas(np.zeros((2, 3), np.uint8), TABLE, ArraySource(np.zeros((3, 2), np.uint8)))


def test_the_table_is_written(tmp_path):
    rows = class_areas(some_map(), TABLE)
    write_areas(tmp_path / "areas.csv", rows)
    with (tmp_path / "areas.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == ["sea", "land, dry", "unseen", "ignored"]
    assert float(lines[0]["share"]) == rows[0].share
    assert (lines[3]["class"], lines[3]["share"], lines[0]["m2"]) == ("255", "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["areas.csv"]
    with pytest.raises(SaveError, match="cannot be written"):
        write_areas(tmp_path / "no" / "areas.csv", rows)
