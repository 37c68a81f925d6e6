"""VGG Image Annotator: real exports, every kind of region, the attribute that holds the class, and files that are damaged."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import intarsia.importers  # noqa: F401
from intarsia.errors import DataError, FileError
from intarsia.importers.base import Files, find_format
from intarsia.importers.rasterize import render
from intarsia.importers.via import read
from tests.conftest import write

CLASS = {"class": "cat"}


def region(attributes=None, **shape):
    return {"shape_attributes": shape, "region_attributes": CLASS if attributes is None else attributes}


def rect(x, y, width, height, attributes=None):
    return region(attributes, name="rect", x=x, y=y, width=width, height=height)


def image(name, *regions):
    return {"filename": name, "size": 10, "regions": list(regions), "file_attributes": {}}


def export(folder, *images, project=None, name="via.json"):
    listed = {f"{each['filename']}{each['size']}": each for each in images}
    document = listed if project is None else {"_via_settings": {}, "_via_img_metadata": listed, **project}
    (folder / name).write_text(json.dumps(document))
    return Files(folder)


def test_a_real_export_without_attributes(shared):
    files = Files(shared("data/annotation_samples/via/kudzu_val"))
    assert find_format(files).name == "via"
    project = read(files)
    assert len(project.pictures) == 16
    assert sum(len(picture.shapes) for picture in project.pictures) == 349
    assert project.classes == ("region",)
    assert project.notes == ("no region has a class: all are 'region'",)
    assert not project.left_out
    raw = json.loads((files.root / "via_region_data.json").read_text())
    by_name = {each["filename"]: each for each in raw.values()}
    for picture in project.pictures:
        assert picture.image is not None
        assert (picture.size, picture.split) == (None, None)
        assert picture.name == picture.image.stem
        shapes = [each["shape_attributes"] for each in by_name[picture.image.name]["regions"]]
        assert [len(shape.rings[0]) for shape in picture.shapes] == [
            len(s["all_points_x"])
            - ((s["all_points_x"][0], s["all_points_y"][0]) == (s["all_points_x"][-1], s["all_points_y"][-1]))
            for s in shapes
        ]


def test_a_real_polygon_has_the_area_of_its_corners(shared):
    project = read(Files(shared("data/annotation_samples/via/kudzu_val")))
    for shape in project.pictures[0].shapes[:40]:
        x, y = shape.rings[0].T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        around = np.hypot(*(np.roll(shape.rings[0], -1, axis=0) - shape.rings[0]).T).sum()
        pixels = (render([shape], (2000, 2000), ["region"]).classes == 0).sum()
        assert abs(pixels - area) < around / 4


def test_a_real_export_with_two_attributes_asks_which(shared):
    files = Files(shared("data/annotation_samples/via/kudzu_train_json_only"))
    assert find_format(files).name == "via"
    with pytest.raises(
        DataError, match=r"'inseto' \(1 values in 520 regions\), 'insect' \(1 .*Say which with data.attribute=inseto"
    ):
        read(files)


def test_one_image_in_two_folders_keeps_its_annotations_apart(tmp_path):
    for split, width in (("train", 2), ("val", 3)):
        write(tmp_path / split / "1.png", np.zeros((4, 4, 3), np.uint8))
        export(tmp_path / split, image("1.png", rect(0, 0, width, 1)))
    project = read(Files(tmp_path))
    assert [(p.name, p.split, p.image) for p in project.pictures] == [
        (f"{split}/1", split, tmp_path / split / "1.png") for split in ("train", "val")
    ]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (rect(1, 0, 2, 1), ["·##··", "·····", "·····"]),
        (
            region(name="polygon", all_points_x=[0, 4, 4, 0], all_points_y=[0, 0, 2, 2]),
            ["####·", "####·", "·····"],
        ),
        (region(name="circle", cx=2.5, cy=1.5, r=1.2), ["··#··", "·###·", "··#··"]),
        (region(name="ellipse", cx=2.5, cy=1.5, rx=2.2, ry=0.6, theta=0), ["·····", "#####", "·····"]),
        (region(name="ellipse", cx=2.5, cy=1.5, rx=2.2, ry=0.6, theta=math.pi / 2), ["··#··", "··#··", "··#··"]),
        (region(name="ellipse", cx=2.5, cy=1.5, rx=2.2, ry=0.6, theta=math.pi / 4), ["·#···", "··#··", "···#·"]),
        (region(name="ellipse", cx=2.5, cy=1.5, rx=2.2, ry=0.6), ["·····", "#####", "·····"]),
    ],
)
def test_each_kind_of_region(tmp_path, made, expected):
    project = read(export(tmp_path, image("a.png", made)))
    found = render(project.pictures[0].shapes, (3, 5), project.classes)
    assert ["".join("#" if covered == 0 else "·" for covered in row) for row in found.classes] == expected


def test_what_has_no_area_is_left_out_and_counted(tmp_path):
    kinds = [region(name="point", cx=1, cy=1), region(name="line"), region(name="brush")]
    kinds += [
        region(name=each, all_points_x=[1, 2], all_points_y=[1, 2]) for each in ("polyline", "polygon", "polyline")
    ]
    project = read(export(tmp_path, image("a.png", *kinds, rect(0, 0, 1, 1))))
    assert project.left_out == {
        "points": 1, "lines": 1, "polylines": 2, "polygons of less than three points": 1, "shapes of type brush": 1,
    }  # fmt: skip
    assert len(project.pictures[0].shapes) == 1
    assert project.pictures[0].missing == "a.png"
    assert project.pictures[0].image is None


def test_version_1_has_regions_by_number(tmp_path):
    one = image("a.png") | {"regions": {"0": rect(0, 0, 1, 1), "1": rect(1, 0, 1, 1, {"class": "dog"})}}
    project = read(export(tmp_path, one))
    assert [shape.label for shape in project.pictures[0].shapes] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("cat", "cat"),
        (" cat ", "cat"),
        ({"cat": True, "dog": False}, "cat"),
        (1, "dog"),
        ("1", "dog"),
        ("cat2", "cat2"),
    ],
)
def test_values_of_an_attribute(tmp_path, value, label):
    options = {
        "_via_attributes": {"region": {"what": {"type": "radio", "options": {"0": "cat", "1": "dog", "cat": "A cat"}}}}
    }
    project = read(export(tmp_path, image("a.png", rect(0, 0, 1, 1, {"what": value})), project=options))
    assert project.classes == (label,)


def test_two_ticked_boxes_are_refused(tmp_path):
    files = export(tmp_path, image("a.png", rect(0, 0, 1, 1, {"what": {"cat": True, "dog": True}})))
    with pytest.raises(FileError, match=r"region 0 of a\.png has 2 boxes of 'what' ticked \(cat, dog\)"):
        read(files)


@pytest.mark.parametrize(
    ("attributes", "label"),
    [
        ({"colour": "red", "Label": "cat"}, "cat"),
        ({"colour": "red", "class": "", "type": "cat"}, "cat"),
        ({"species": "cat", "class": "", "boxes": {"x": False}}, "cat"),
    ],
)
def test_the_class_is_under_the_only_known_name_that_has_values(tmp_path, attributes, label):
    assert read(export(tmp_path, image("a.png", rect(0, 0, 1, 1, attributes)))).classes == (label,)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"species": "cat", "colour": "red"}, "'species'.*'colour'"),
        ({"type": "b", "class": "a"}, "'class'.*'type'.*Say which with data.attribute=class"),
    ],
)
def test_several_attributes_are_not_guessed(tmp_path, attributes, said):
    with pytest.raises(DataError, match=said):
        read(export(tmp_path, image("a.png", rect(0, 0, 1, 1, attributes))))


def test_regions_without_a_value_are_left_out_where_others_have_one(tmp_path):
    project = read(
        export(tmp_path, image("a.png", rect(0, 0, 1, 1), rect(1, 0, 1, 1, {}), rect(2, 0, 1, 1, {"class": ""})))
    )
    assert project.left_out == {"regions without a value of 'class'": 2}
    assert len(project.pictures[0].shapes) == 1


def test_a_project_and_its_export_are_read_once(tmp_path):
    export(tmp_path, image("a.png", rect(0, 0, 1, 1)), image("b.png"))
    project = read(export(tmp_path, image("a.png", rect(0, 0, 1, 1)), name="project.json", project={}))
    assert [picture.name for picture in project.pictures] == ["a", "b"]
    assert project.notes == ("1 images stand in two files with the same regions, and are taken once",)
    export(tmp_path, image("a.png", rect(0, 0, 2, 1)), name="third.json")
    with pytest.raises(DataError, match=r"annotates a\.png differently"):
        read(Files(tmp_path))


def test_an_image_elsewhere_is_not_reached(tmp_path):
    write(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "set").mkdir()
    project = read(export(tmp_path / "set", image("../a.png", rect(0, 0, 1, 1))))
    assert (project.pictures[0].image, project.pictures[0].name) == (None, "a")


def test_via_3_is_refused_by_name(tmp_path):
    keys = ("project", "config", "attribute", "file", "metadata", "view")
    (tmp_path / "a.json").write_text(json.dumps({key: {} for key in keys}))
    assert find_format(Files(tmp_path)).name == "via"
    with pytest.raises(FileError, match="VIA 3, which is not read") as error:
        read(Files(tmp_path))
    assert error.value.code == "E_VERSION"


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (rect("x", 0, 1, 1), "E_NUMBER"),
        (rect(None, 0, 1, 1), "E_NUMBER"),
        (region(name="circle", cx=1, cy=1), "E_NUMBER"),
        (region(name="polygon", all_points_x=[1, 2, 3], all_points_y=[1, 2]), "E_SHAPE"),
        (region(name="polygon", all_points_x=[1, 2, 3]), "E_SHAPE"),
        (region(name="polygon", all_points_x=[1, 2, "x"], all_points_y=[1, 2, 3]), "E_NUMBER"),
        ({"region_attributes": {}}, "E_SHAPE"),
        (None, "E_SHAPE"),
    ],
)
def test_damaged_regions_are_refused(tmp_path, broken, code):
    with pytest.raises(FileError) as error:
        read(export(tmp_path, image("a.png", broken)))
    assert error.value.code == code


@pytest.mark.parametrize("broken", [None, {"regions": []}, {"filename": "a.png"}, {"filename": "a.png", "regions": 3}])
def test_damaged_images_of_a_project_are_refused(tmp_path, broken):
    (tmp_path / "a.json").write_text(json.dumps({"_via_img_metadata": {"a": broken}}))
    with pytest.raises(FileError, match="has no"):
        read(Files(tmp_path))


def test_nan_is_no_json_of_ours(tmp_path):
    export(tmp_path, image("a.png", rect(math.nan, 0, 1, 1)))
    with pytest.raises(DataError, match="no annotation export that is known"):
        find_format(Files(tmp_path))


def test_the_attribute_may_be_said(shared):
    files = Files(shared("data/annotation_samples/via/kudzu_train_json_only"), attribute="insect")
    assert read(files).classes == ("kudzu",)
    with pytest.raises(
        DataError, match=r"no region has the attribute 'bug' \(data.attribute\); there are: 'inseto', 'insect'"
    ):
        read(Files(files.root, attribute="bug"))
