"""QuPath: every kind of feature as GeoJSON has it, what is no annotation, maps; and class maps written and read back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import intarsia.importers  # noqa: F401
from intarsia.data.folder import FolderConfig
from intarsia.errors import ConfigError, DataError, FileError
from intarsia.importers import qupath
from intarsia.importers.base import Files, find_format
from intarsia.importers.qupath import read
from intarsia.importers.rasterize import render
from intarsia.progress import Silent
from tests.conftest import write

BOX = [[1, 0], [3, 0], [3, 2], [1, 2], [1, 0]]
HOLED = [[[0, 0], [6, 0], [6, 4], [0, 4], [0, 0]], [[1, 1], [3, 1], [3, 3], [1, 3], [1, 1]]]
CAT = {"name": "cat", "color": [255, 0, 128]}


def feature(kind="Polygon", coordinates=(BOX,), classification=CAT, plane=None, **more):
    properties = {"objectType": "annotation"} | ({"classification": classification} if classification else {})
    geometry = {"type": kind, "coordinates": list(coordinates)} | ({"plane": plane} if plane else {})
    return {"type": "Feature", "id": "PathAnnotationObject", "geometry": geometry, "properties": properties} | more


def export(folder, *features, name="a.geojson", form="collection", **more):
    document = {"collection": {"type": "FeatureCollection", "features": list(features)} | more, "list": list(features)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document[form] if form != "single" else features[0]))
    return Files(folder)


def rows(files, size=(4, 6)):
    project = read(files)
    found = render(project.pictures[0].shapes, size, project.classes)
    names = {k: name[0] for k, name in enumerate(project.classes)} | {255: "."}
    return ["".join("i" if v == 255 and not free else names[v] for v, free in zip(*row, strict=True))
            for row in zip(found.classes.tolist(), found.uncovered.tolist(), strict=True)]  # fmt: skip


SMALL = [".cc...", ".cc...", "......", "......"]


@pytest.mark.parametrize("form", ["collection", "list", "single"])
@pytest.mark.parametrize("name", ["a.geojson", "a.json"])
def test_each_form_of_a_file(tmp_path, form, name):
    files = export(tmp_path, feature(), form=form, name=name)
    assert find_format(files).name == "qupath"
    assert rows(files) == SMALL
    assert read(files).pictures[0].name == "a"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (feature(), SMALL),
        (feature(coordinates=HOLED), ["cccccc", "c..ccc", "c..ccc", "cccccc"]),
        (
            feature("MultiPolygon", [HOLED, [[[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]]]]),
            ["cccccc", "cc.ccc", "c..ccc", "cccccc"],
        ),
        (feature(plane={"c": -1, "z": 0, "t": 0}), SMALL),
        (feature(classification={"name": "Ignore*", "colorRGB": -1}), [".ii...", ".ii...", "......", "......"]),
        (feature(classification={"names": ["cat", "big"], "color": [1, 2, 3]}), SMALL),
        (feature(classification="cat"), SMALL),
        (feature(classification=None), [".uu...", ".uu...", "......", "......"]),
        (
            {
                **feature(),
                "geometry": {"type": "GeometryCollection", "geometries": [feature()["geometry"], {"type": "Point"}]},
            },
            SMALL,
        ),
    ],
)
def test_each_kind_of_feature(tmp_path, made, expected):
    assert rows(export(tmp_path, made)) == expected


def test_the_later_object_lies_on_top(tmp_path):
    dog = feature(coordinates=[[[2, 0], [4, 0], [4, 1], [2, 1], [2, 0]]], classification={"name": "dog"})
    assert rows(export(tmp_path, feature(), dog))[0] == ".cdd.."
    assert rows(export(tmp_path, dog, feature()))[0] == ".ccd.."


def test_classes_and_colours(tmp_path):
    files = export(
        tmp_path,
        feature(classification={"name": "Tumor", "colorRGB": -3670016}),
        feature(classification={"name": "Stroma", "color": [150, 200, 150]}),
        feature(classification={"names": ["Tumor", "Positive"]}),
        feature(classification=None),
        feature(classification={}),
    )
    project = read(files)
    assert project.classes == ("Tumor", "Stroma", "Tumor: Positive", "unclassified")
    assert project.colors == {"Tumor": (200, 0, 0), "Stroma": (150, 200, 150)}
    assert project.notes == ("2 objects have no classification; their class is 'unclassified'",)


def test_a_project_list_gives_the_order(tmp_path):
    listed = [{"name": each, "color": [k, k, k]} for k, each in enumerate(("dog", "cat", "Ignore*"))]
    (tmp_path / "classifiers").mkdir()
    (tmp_path / "classifiers" / "classes.json").write_text(json.dumps({"pathClasses": listed}))
    project = read(export(tmp_path, feature()))
    assert project.classes == ("dog", "cat")
    assert project.colors == {"dog": (0, 0, 0), "cat": (1, 1, 1)}
    assert [picture.name for picture in project.pictures] == ["a"]


def test_what_is_no_region_is_left_out_and_counted(tmp_path):
    kinds = [feature(each, ()) for each in ("Point", "MultiPoint", "LineString", "Sphere")]
    kinds += [feature(plane={"z": 1, "t": 0}), feature(plane={"z": 0, "t": 2}), feature(plane={"c": 1, "z": 0, "t": 0})]
    kinds += [feature(coordinates=[[[0, 0], [1, 1], [0, 0]]]), feature(geometry=None)]
    kinds += [feature(properties={"objectType": "tma_core"}), feature(properties=None, id="TMACoreObject")]
    kinds += [feature(nucleusGeometry={"type": "Polygon", "coordinates": [BOX]})]
    project = read(export(tmp_path, *kinds))
    assert project.left_out == {
        "points": 2, "lines": 1, "shapes of type Sphere": 1, "objects beyond the first plane": 2,
        "polygons of less than three points": 1, "objects without a geometry": 1, "TMA cores": 2, "nuclei of cells": 1,
    }  # fmt: skip
    assert len(project.pictures[0].shapes) == 2


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.geojson", "a.tif"),
        ("a.geojson", "a.png"),
        ("a.geojson", "a.jpg"),
        ("a.ome.geojson", "a.ome.tif"),
        ("a.ome.geojson", "a.tif"),
        ("a.tif.geojson", "a.tif"),
        ("a.v2.geojson", "a.v2.png"),
        ("A.GEOJSON", "A.png"),
    ],
)
def test_the_image_is_of_the_same_name(tmp_path, name, image):
    path = write(tmp_path / "slides" / image, np.zeros((4, 6, 3), np.uint8))
    write(tmp_path / "slides" / "b.png", np.zeros((4, 6, 3), np.uint8))
    assert read(export(tmp_path / "slides", feature(), name=name)).pictures[0].image == path
    assert read(export(tmp_path / "other", feature(), name=f"x{name}")).pictures[0].image is None


@pytest.mark.parametrize("where", ["collection", "feature"])
def test_maps_are_refused(tmp_path, where):
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    files = export(tmp_path, feature(crs=crs)) if where == "feature" else export(tmp_path, feature(), crs=crs)
    with pytest.raises(FileError, match=r"coordinates of a map .*CRS84.*not pixels") as error:
        read(files)
    assert error.value.code == "E_CRS"


def test_a_frame_of_pixels_is_no_map(tmp_path):
    assert rows(export(tmp_path, feature(), crs={"type": "name", "properties": {"name": "pixel"}})) == SMALL


def test_coordinates_like_degrees_are_told(tmp_path):
    project = read(
        export(tmp_path, feature(coordinates=[[[8.51, 47.31], [8.62, 47.32], [8.57, 47.44], [8.51, 47.31]]]))
    )
    assert "as of a map" in project.notes[0]
    assert not read(export(tmp_path, feature())).notes


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (feature(coordinates=3 * [5]), "E_SHAPE"),
        (feature(coordinates=[[[1, 2], [3, 4], [5, "x"]]]), "E_NUMBER"),
        (feature(coordinates=[[[1, 2, 3], [3, 4, 5], [5, 6, 7]]]), "E_NUMBER"),
        (feature("MultiPolygon", [BOX]), "E_SHAPE"),
        (feature(geometry={"type": "Polygon"}), "E_SHAPE"),
        (feature(geometry=[1]), "E_SHAPE"),
        (feature(properties=[1]), "E_SHAPE"),
        (feature(classification={"color": [1, 2, 3]}), "E_SHAPE"),
        (feature(classification=[1]), "E_SHAPE"),
        (None, "E_SHAPE"),
    ],
)
def test_damaged_features_are_refused(tmp_path, broken, code):
    with pytest.raises(FileError) as error:
        read(export(tmp_path, broken))
    assert error.value.code == code


def test_deep_nesting_is_refused_by_the_parser(tmp_path):
    deep = json.dumps(feature()).replace(json.dumps(BOX), "[" * 200 + "]" * 200)
    (tmp_path / "a.geojson").write_text(f"[{deep}]")
    with pytest.raises(DataError, match="no annotation export that is known"):
        find_format(Files(tmp_path))


def dataset(folder, maps, names=("sky", "sea", "land")):
    for index, classes in enumerate(maps):
        write(folder / "images" / f"i{index}.png", np.full((*classes.shape, 3), 40 * index + 7, np.uint8))
        write(folder / "masks" / f"i{index}.png", classes)
    (folder / "classes.yaml").write_text(json.dumps({"names": list(names), "ignore_index": 255}))
    return FolderConfig(path=str(folder)).open(Silent())


def assert_same(project, maps):
    assert len(project.pictures) == len(maps)
    for picture in project.pictures:
        found = render(picture.shapes, maps[picture.name].shape, project.classes)
        assert np.array_equal(found.classes, maps[picture.name])
        assert (found.overlapped, found.vanished) == (0, 0)


MAPS = arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 1, 2, 255]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MAPS, min_size=3, max_size=4))
def test_class_maps_come_back_bit_by_bit(tmp_path_factory, maps):
    folder = tmp_path_factory.mktemp("qupath")
    for index, each in enumerate(maps):
        each.flat[0] = index % 3  # every class somewhere, no image without any
    data = dataset(folder / "set", maps)
    written = qupath.write(data, folder / "out", Silent())
    assert (written.files, written.lossless, written.path) == (len(maps), True, folder / "out")
    project = read(Files(folder / "out"))
    assert project.classes == data.table.names
    assert dict(project.colors) == dict(zip(data.table.names, data.table.colors, strict=True))
    assert_same(project, {item.name: data.read_mask(item) for split in data.splits.values() for item in split})
    for picture in project.pictures:
        assert picture.image is not None
        assert picture.image.read_bytes() == (folder / "set" / "images" / f"{picture.name}.png").read_bytes()


def test_what_is_written_is_geojson_as_qupath_has_it(tmp_path):
    ring = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 255], [0, 0, 0, 2]], np.uint8)
    qupath.write(dataset(tmp_path / "set", [ring] * 3), tmp_path / "out", Silent())
    document = json.loads((tmp_path / "out" / "i0.geojson").read_text())
    by_class: dict[str, list] = {}
    for each in document["features"]:
        assert each["properties"]["objectType"] == "annotation"
        by_class.setdefault(each["properties"]["classification"]["name"], []).append(each["geometry"]["coordinates"])
    assert {name: len(parts) for name, parts in by_class.items()} == {"sky": 3, "sea": 1, "land": 1, "Ignore*": 1}
    outer, hole = by_class["sea"][0]
    assert outer == [[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]]
    assert hole[0] == hole[-1]
    assert len({each["id"] for each in document["features"]}) == 6


def test_writing_refuses_a_full_folder_and_the_word_for_ignored(tmp_path):
    maps = [np.array([[0, 1, 2]], np.uint8)] * 3
    with pytest.raises(ConfigError, match="not an empty folder"):
        qupath.write(dataset(tmp_path / "set", maps), tmp_path / "set", Silent())
    with pytest.raises(DataError, match=r"'Ignore\*', which is QuPath's word"):
        qupath.write(dataset(tmp_path / "b", maps, ("sky", "Ignore*", "sea")), tmp_path / "out", Silent())
