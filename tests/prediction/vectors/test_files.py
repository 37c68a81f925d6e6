"""Files of polygons: read back they are the class map, in the image's place; equal polygons are equal bytes."""

from __future__ import annotations

import base64
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from intarsia.classes import ClassTable
from intarsia.errors import ConfigError, DataError, MissingExtra, SaveError
from intarsia.images.source import ArraySource
from intarsia.importers.rle import decode_rle
from intarsia.ops.polygons import fill_polygon
from intarsia.prediction.vectors.areas import class_areas
from intarsia.prediction.vectors.files import SUFFIXES, write_vectors
from intarsia.prediction.vectors.polygons import polygons_of, with_mean_probability
from tests.images.rasters import PLACES, Affine, raster, rasterio

shapely = pytest.importorskip("shapely", reason="needs shapely, of the extra geo")
pyogrio = pytest.importorskip("pyogrio", reason="needs pyogrio, of the extra geo")
from intarsia.images.tiff.geotiff import GeoSource  # noqa: E402

TABLE = ClassTable(names=("sea", "land & <rock>", "Wald, dünn"))


def some_map(seed=0, side=(20, 30)):
    rng = np.random.default_rng(seed)
    classes = np.kron(
        rng.choice(np.array([0, 1, 2, 255], np.uint8), (side[0] // 2, side[1] // 2)), np.ones((2, 2), np.uint8)
    )
    classes[3:12, 4:15], classes[5:8, 6:10] = 1, 2  # a hole
    return classes


def place_of(tmp_path, size=(20, 30), **place):
    return GeoSource(raster(tmp_path / "image.tif", np.ones(size, np.uint8), **place))


def written(tmp_path, classes, kind, like=None, **settings):
    path = tmp_path / f"out{SUFFIXES[kind]}"
    write_vectors(path, polygons_of(classes, table=TABLE), TABLE, kind=kind, like=like, **settings)
    return path


def geometries(path):
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    return np.array([shapely.geometry.shape(each["geometry"]) for each in features]), features


def moved(affine, points):
    a, b, c, d, e, f = tuple(affine)[:6]
    x, y = np.asarray(points).T
    return np.stack([a * x + b * y + c, d * x + e * y + f], 1)


def filled(pairs, shape):
    """The map that shapes give, of each its class and its rings in pixels."""
    found = np.full(shape, 255, np.uint8)
    for index, rings in pairs:
        found[fill_polygon([np.asarray(ring, np.float64) for ring in rings], shape)] = index
    return found


def test_geojson_without_coordinates_is_in_pixels_and_says_so(tmp_path):
    classes = some_map()
    path = written(tmp_path, classes, "geojson")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["coordinates_are"].startswith("pixels")
    pairs = [(each["properties"]["class"], each["geometry"]["coordinates"]) for each in document["features"]]
    np.testing.assert_array_equal(filled(pairs, classes.shape), classes)
    names = {each["properties"]["class"]: each["properties"]["name"] for each in document["features"]}
    assert names == dict(enumerate(TABLE.names))
    assert "area_m2" not in document["features"][0]["properties"]


@pytest.mark.parametrize("place", ["north up", "turned", "south up", "degrees"])
def test_geojson_is_longitude_and_latitude(tmp_path, place):
    from rasterio.warp import transform

    classes = some_map()
    with place_of(tmp_path, **PLACES[place]) as source:
        path = written(tmp_path, classes, "geojson", source)
        drawn, features = geometries(path)
        assert "coordinates_are" not in json.loads(path.read_text())
        pairs = []
        for each in features:
            rings = []
            for at, ring in enumerate(each["geometry"]["coordinates"]):
                assert ring[0] == ring[-1]
                assert shapely.LinearRing(ring).is_ccw == (at == 0)  # RFC 7946: the right-hand rule
                x, y = transform("EPSG:4326", source.crs, *zip(*ring, strict=True))
                back = moved(~source.transform, np.transpose([x, y]))
                rings.append(np.round(back, 2)[:-1])
            pairs.append((each["properties"]["class"], rings))
            assert each["properties"]["area_m2"] == pytest.approx(source.ground.area(rings), rel=1e-6)
        np.testing.assert_array_equal(filled(pairs, classes.shape), classes)
        assert shapely.coverage_is_valid(drawn)


@pytest.mark.parametrize("how", ["degrees", "utm", "beyond"])
def test_geojson_is_cut_at_the_antimeridian(tmp_path, how):
    places = {
        "degrees": {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 179.9, 0, -0.01, 10)},
        "utm": {"crs": "EPSG:32601", "transform": Affine(200, 0, 500_000 - 3_000 - 330_000, 0, -200, 1_100_000)},
        "beyond": {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 181, 0, -0.01, 10)},
    }
    classes = np.zeros((20, 30), np.uint8)
    classes[5:9, 5:9] = 1
    with place_of(tmp_path, **places[how]) as source:
        drawn, features = geometries(written(tmp_path, classes, "geojson", source))
        kinds = [each["geometry"]["type"] for each in features]
    west, _, east, _ = shapely.total_bounds(drawn)
    assert -180 <= west <= east <= 180
    assert shapely.is_valid(drawn).all()
    if how == "beyond":
        assert kinds == ["Polygon", "Polygon"]
        assert east < -178
    else:
        assert "MultiPolygon" in kinds
        assert (west, east) == (-180, 180)
        wide = max(part.bounds[2] - part.bounds[0] for each in drawn for part in shapely.get_parts(each))
        assert wide < 0.3
    if how == "degrees":
        assert shapely.area(drawn).sum() == pytest.approx(0.2 * 0.3)


def test_a_map_of_the_whole_world_is_not_cut(tmp_path):
    classes = np.zeros((20, 36), np.uint8)
    for crs, transform in (
        ("EPSG:4326", Affine(10, 0, -180, 0, -9, 90)),
        ("EPSG:3857", Affine(40_075_016 / 36, 0, -20_037_508, 0, -40_075_016 / 36, 11_000_000)),
    ):
        with place_of(tmp_path, classes.shape, crs=crs, transform=transform) as source:
            drawn, _ = geometries(written(tmp_path, classes, "geojson", source))
        assert drawn[0].geom_type == "Polygon"
        assert drawn[0].bounds[2] - drawn[0].bounds[0] == pytest.approx(360, abs=1e-4)


def test_points_beyond_the_earth_are_told(tmp_path):
    far = {"crs": "EPSG:3035", "transform": Affine(1, 0, 1e12, 0, -1, 1e12)}
    with place_of(tmp_path, **far) as source, pytest.raises(DataError, match="nowhere on the earth"):
        written(tmp_path, some_map(), "geojson", source)
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]


@pytest.mark.parametrize("place", [name for name in PLACES if name != "rpcs"])
def test_geopackages_keep_the_coordinates_of_the_image(tmp_path, place):
    classes = some_map()
    with place_of(tmp_path, **PLACES[place]) as source:
        path = written(tmp_path, classes, "gpkg", source)
        affine, crs, ground = source.transform or Affine.identity(), source.crs, source.ground
    info = pyogrio.read_info(path, layer="classes")
    assert (rasterio.CRS.from_user_input(info["crs"]) if crs else None) == crs
    meta, _, shapes, fields = pyogrio.raw.read(path)
    columns = dict(zip(meta["fields"], fields, strict=True))
    rings = [
        [moved(~affine, shapely.get_coordinates(ring)[:-1]) for ring in (each.exterior, *each.interiors)]
        for each in shapely.from_wkb(shapes)
    ]
    rings = [[np.round(ring, 3) for ring in each] for each in rings]
    np.testing.assert_array_equal(filled(zip(columns["class"], rings, strict=True), classes.shape), classes)
    assert ("area_m2" in columns) == (ground is not None)
    for index, name, area in zip(columns["class"], columns["name"], columns["area_pixels"], strict=True):
        assert name == TABLE.names[index]
        assert area > 0


@pytest.mark.parametrize("name", ["sample_geotiff.tif", "sample_geotiff_custom_proj.tif"])
def test_polygons_lie_on_the_real_images(shared, tmp_path, name):
    with GeoSource(shared("data/geotiff_sample") / name) as source:
        classes = np.kron(some_map(1, (16, 16)), np.ones((64, 64), np.uint8))[: source.height, : source.width]
        written(tmp_path, classes, "gpkg", source)
        written(tmp_path, classes, "geojson", source)
        table = class_areas(classes, TABLE, source)
        with rasterio.open(source.path) as file:
            bounds, crs = file.bounds, file.crs
    meta, _, shapes, fields = pyogrio.raw.read(tmp_path / "out.gpkg")
    drawn = shapely.from_wkb(shapes)
    assert rasterio.CRS.from_user_input(meta["crs"]) == crs
    found = shapely.total_bounds(drawn)
    assert found[0] >= bounds.left
    assert found[3] <= bounds.top
    columns = dict(zip(meta["fields"], fields, strict=True))
    for row in table[:3]:
        own = columns["class"] == row.class_index
        assert columns["area_m2"][own].sum() == pytest.approx(row.m2)
        assert shapely.area(drawn[own]).sum() == pytest.approx(row.m2)  # both images are in metres
    west, south, east, north = shapely.total_bounds(geometries(tmp_path / "out.geojson")[0])
    expected = rasterio.warp.transform_bounds(crs, "EPSG:4326", *bounds)
    assert (west, north) == pytest.approx((expected[0], expected[3]), abs=0.2)
    assert east > west
    assert north > south


def test_coco_holds_every_pixel_once(tmp_path):
    classes = some_map()
    document = json.loads(written(tmp_path, classes, "coco", ArraySource(classes), image_path="scene.tif").read_text())
    assert document["images"] == [{"id": 1, "file_name": "scene.tif", "height": 20, "width": 30}]
    assert [each["name"] for each in document["categories"]] == list(TABLE.names)
    found = np.full(classes.shape, 255, np.uint8)
    kinds = set()
    for each in document["annotations"]:
        region = each["segmentation"]
        kinds.add(type(region))
        if isinstance(region, dict):
            inside = decode_rle(region["counts"], tuple(region["size"]))
        else:
            inside = fill_polygon([np.reshape(ring, (-1, 2)).astype(float) for ring in region], classes.shape)
        assert (found[inside] == 255).all()
        found[inside] = each["category_id"] - 1
        assert each["area"] == inside.sum()
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        assert each["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
    np.testing.assert_array_equal(found, classes)
    assert kinds == {dict, list}


def test_labelme_holds_every_pixel_once(tmp_path):
    classes = some_map()
    document = json.loads(
        written(tmp_path, classes, "labelme", ArraySource(classes), image_path="scene.tif").read_text()
    )
    assert (document["imagePath"], document["imageHeight"], document["imageWidth"]) == ("scene.tif", 20, 30)
    found = np.full(classes.shape, 255, np.uint8)
    for each in document["shapes"]:
        if each["shape_type"] == "mask":
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(each["mask"])))).astype(bool)
            left, top = each["points"][0]
            inside = np.zeros(classes.shape, bool)
            inside[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        else:
            inside = fill_polygon([np.array(each["points"], float)], classes.shape)
        assert (found[inside] == 255).all()
        found[inside] = TABLE.names.index(each["label"])
    np.testing.assert_array_equal(found, classes)
    assert {each["shape_type"] for each in document["shapes"]} == {"mask", "polygon"}


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_our_importers_read_them(tmp_path, kind):
    from intarsia.importers.base import FORMATS, Files

    classes = some_map()
    Image.fromarray(classes).save(tmp_path / "scene.png")
    written(tmp_path, classes, kind, ArraySource(classes), image_path="scene.png")
    project = FORMATS[kind].read(Files(tmp_path))
    (picture,) = project.pictures
    assert picture.image == tmp_path / "scene.png"
    assert len(picture.shapes) == len(list(polygons_of(classes, table=TABLE)))


@pytest.mark.parametrize("kind", SUFFIXES)
def test_equal_polygons_are_equal_bytes(tmp_path, kind):
    classes = some_map()
    with place_of(tmp_path, **PLACES["north up"]) as source:
        first = written(tmp_path, classes, kind, source).read_bytes()
        if kind == "gpkg":
            time.sleep(1.1)  # its clock counts seconds
        assert written(tmp_path, classes, kind, source).read_bytes() == first
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None


@pytest.mark.parametrize("kind", SUFFIXES)
def test_portions_change_nothing(tmp_path, kind, monkeypatch):
    from intarsia.prediction.vectors import files

    classes = some_map()
    with place_of(tmp_path, **PLACES["north up"]) as source:
        read = (lambda path: pyogrio.raw.read(path)[2].tolist()) if kind == "gpkg" else (lambda path: path.read_bytes())
        whole = read(written(tmp_path, classes, kind, source))
        monkeypatch.setattr(files, "_TOGETHER", 5)
        assert read(written(tmp_path, classes, kind, source)) == whole


@pytest.mark.parametrize("kind", SUFFIXES)
def test_nothing_is_a_file_without_polygons(tmp_path, kind):
    path = written(tmp_path, np.full((3, 4), 255, np.uint8), kind, size=(3, 4))
    if kind == "gpkg":
        assert pyogrio.read_info(path, layer="classes")["features"] == 0
    else:
        document = json.loads(path.read_text())
        assert document[{"geojson": "features", "coco": "annotations", "labelme": "shapes"}[kind]] == []


def test_the_mean_probability_is_written_where_it_is_known(tmp_path):
    classes = some_map()
    found = list(with_mean_probability(polygons_of(classes, table=TABLE), np.full(classes.shape, 51, np.uint8)))
    for kind in ("geojson", "gpkg", "coco", "labelme"):
        write_vectors(tmp_path / f"p{kind}{SUFFIXES[kind]}", found, TABLE, kind=kind, size=classes.shape)
    properties = json.loads((tmp_path / "pgeojson.geojson").read_text())["features"][0]["properties"]
    assert properties["mean_probability"] == pytest.approx(0.2)
    meta, _, _, fields = pyogrio.raw.read(tmp_path / "pgpkg.gpkg")
    np.testing.assert_allclose(dict(zip(meta["fields"], fields, strict=True))["mean_probability"], 0.2)
    assert json.loads((tmp_path / "pcoco.json").read_text())["annotations"][0]["mean_probability"] == pytest.approx(0.2)
    assert "mean_probability 0.2" in json.loads((tmp_path / "plabelme.json").read_text())["shapes"][0]["description"]


def test_simplified_polygons_meet_in_degrees_too(tmp_path):
    classes = np.kron(some_map(3), np.ones((3, 3), np.uint8))
    with place_of(tmp_path, classes.shape, **PLACES["turned"]) as source:
        path = tmp_path / "s.geojson"
        write_vectors(path, polygons_of(classes, table=TABLE, simplify_pixels=2), TABLE, kind="geojson", like=source)
    drawn, _ = geometries(path)
    assert shapely.coverage_is_valid(drawn)


def test_what_cannot_be_written_is_told(tmp_path, monkeypatch):
    classes = some_map()
    for kind in SUFFIXES:
        with pytest.raises(SaveError, match="cannot be written"):
            written(tmp_path / "no", classes, kind, size=classes.shape)
    for kind in ("coco", "labelme"):
        with pytest.raises(ConfigError, match="give `like` or `size`"):
            written(tmp_path, classes, kind)
    monkeypatch.setattr("intarsia.optional.found", lambda _: False)
    with pytest.raises(MissingExtra, match=r"intarsia\[geo\]"):
        written(tmp_path, classes, "gpkg")
    assert list(tmp_path.iterdir()) == []
