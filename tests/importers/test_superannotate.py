"""SuperAnnotate: real pixel and vector projects against their own colours, every kind of object, and what is damaged."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import intarsia.importers  # noqa: F401
from intarsia.errors import FileError
from intarsia.importers.base import Files, find_format
from intarsia.importers.rasterize import render
from intarsia.importers.superannotate import read
from tests.conftest import write

SAMPLES = "data/annotation_samples/superannotate"
LISTED = [
    {"id": 7, "name": "cat", "color": "#ff0080"},
    {"id": 8, "name": "dog", "color": "#010203"},
    {"id": 9, "name": "unused"},
]


def part(color, **more):
    return {"className": "cat", "parts": [{"color": each} for each in color.split()], **more}


def drawn(kind, **more):
    return {"type": kind, "className": "cat", **more}


def export(folder, *instances, ending="___objects.json", classes=LISTED, **metadata):
    document = {"metadata": {"name": "a.png", **metadata}, "instances": list(instances), "tags": [], "comments": []}
    (folder / f"a.png{ending}").write_text(json.dumps(document))
    if classes is not None:
        (folder / "classes").mkdir(exist_ok=True)
        (folder / "classes" / "classes.json").write_text(json.dumps(classes))
    return Files(folder)


def rows(files, size=(4, 6)):
    project = read(files)
    found = render(project.pictures[0].shapes, size, project.classes).classes
    return ["".join("." if value == 255 else project.classes[value][0] for value in row) for row in found]


@pytest.mark.parametrize(
    ("folder", "objects"),
    [
        ("pixel_project", {"example_image_1": 32, "example_image_2": 44, "example_image_3": 9}),
        ("pixel_with_holes", {"1": 4, "2": 1}),
    ],
)
def test_real_pixel_projects_have_the_pixels_of_their_colours(shared, folder, objects):
    root = shared(f"{SAMPLES}/{folder}")
    assert find_format(Files(root)).name == "superannotate"
    project = read(Files(root))
    assert {picture.name: len(picture.shapes) for picture in project.pictures} == objects
    for picture in project.pictures:
        assert picture.image is not None
        name = picture.image.name
        assert name.rsplit(".", 1)[0] == picture.name
        painted = np.asarray(Image.open(root / f"{name}___save.png").convert("RGB"))
        assert picture.size == painted.shape[:2]
        document = json.loads((root / f"{name}___pixel.json").read_text())
        expected = Counter()
        for instance in document["instances"]:
            for each in instance["parts"]:
                color = [int(each["color"][i : i + 2], 16) for i in (1, 3, 5)]
                expected[instance["className"]] += int((painted == color).all(axis=2).sum())
        found = render(picture.shapes, picture.size, project.classes)
        assert {name: int((found.classes == k).sum()) for k, name in enumerate(project.classes)} == {
            name: expected[name] for name in project.classes
        }
        assert found.overlapped == found.vanished == 0
        assert (found.uncovered == (painted == 0).all(axis=2)).mean() > 0.99
    assert sum(project.left_out.values()) == {"pixel_project": 0, "pixel_with_holes": 0}[folder], project.left_out


def test_a_real_vector_project(shared):
    project = read(Files(shared(f"{SAMPLES}/vector_project")))
    counts = {picture.name: len(picture.shapes) for picture in project.pictures}
    assert counts == {"example_image_1": 22, "example_image_2": 24, "example_image_3": 9, "example_image_4": 14}
    assert project.left_out == {"templates": 7}
    assert project.classes[:2] == ("Personal vehicle", "Large vehicle")
    assert "Personal vehicle1" in project.classes
    assert project.colors["Personal vehicle"] == (0xEC, 0xB6, 0x5F)
    images = {picture.name: picture.image for picture in project.pictures}
    assert [name for name, image in images.items() if image is None] == [f"example_image_{i}" for i in (1, 2, 3)]
    assert [p.size for p in project.pictures] == [(683, 1024), (1060, 1885), (675, 1200), (382, 680)]
    for picture in project.pictures:
        for shape in picture.shapes:
            x, y = shape.rings[0].T
            area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
            around = np.hypot(*(np.roll(shape.rings[0], -1, axis=0) - shape.rings[0]).T).sum()
            pixels = (render([shape], (1200, 2000), project.classes).classes != 255).sum()
            assert abs(pixels - area) < max(4, around / 4)


def test_all_samples_together_keep_apart(shared):
    project = read(Files(shared(SAMPLES)))
    names = [picture.name for picture in project.pictures]
    assert len(names) == len(set(names)) == 9
    borrowed = next(picture for picture in project.pictures if picture.name == "vector_project/example_image_2")
    assert borrowed.image is not None
    assert borrowed.image.parent.name == "pixel_project"


def paint(folder, *values):
    canvas = np.zeros((4, 6, 4), np.uint8)
    for row, column, color in values:
        canvas[row, column] = (*bytes.fromhex(color), 255)
    write(folder / "a.png___save.png", canvas)


def test_parts_are_pixels_of_their_colour(tmp_path):
    paint(tmp_path, (0, 0, "00000f"), (3, 5, "00001e"), (1, 1, "ff002d"), (2, 2, "123456"))
    made = [part("#00000f #00001E #0a0b0c"), part("#ff002d", className="dog"), part("#999999")]
    files = export(tmp_path, *made, ending="___pixel.json")
    assert rows(files) == ["c.....", ".d....", "......", ".....c"]
    project = read(files)
    assert project.left_out == {"parts without a pixel": 2, "painted colours without an object": 1}
    assert [shape.pixels.shape for shape in project.pictures[0].shapes] == [(4, 6), (1, 1)]
    assert project.pictures[0].size == (4, 6)
    assert project.classes == ("cat", "dog", "unused")
    assert project.colors == {"cat": (255, 0, 128), "dog": (1, 2, 3)}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (drawn("polygon", points=[1, 0, 3, 0, 3, 2, 1, 2]), [".cc...", ".cc...", "......", "......"]),
        (
            drawn(
                "polygon", points=[0, 0, 6, 0, 6, 4, 0, 4], exclude=[[1, 1, 3, 1, 3, 3, 1, 3], [5, 3, 6, 3, 6, 4, 5, 4]]
            ),
            ["cccccc", "c..ccc", "c..ccc", "ccccc."],
        ),
        (drawn("bbox", points={"x1": 3, "y1": 2, "x2": 1, "y2": 0}), [".cc...", ".cc...", "......", "......"]),
        (
            drawn("rbbox", points={"x1": 2, "y1": 0, "x2": 4, "y2": 2, "x3": 2, "y3": 4, "x4": 0, "y4": 2}),
            [".c....", "ccc...", "ccc...", ".c...."],
        ),
        (drawn("ellipse", cx=3, cy=2.5, rx=2.2, ry=0.6, angle=0), ["......", "......", ".cccc.", "......"]),
        (drawn("ellipse", cx=2.5, cy=2, rx=2.2, ry=0.6, angle=90), ["..c...", "..c...", "..c...", "..c..."]),
        (drawn("ellipse", cx=2.5, cy=1.5, rx=2.2, ry=0.6, angle=45), [".c....", "..c...", "...c..", "......"]),
    ],
)
def test_each_kind_of_object(tmp_path, made, expected):
    assert rows(export(tmp_path, made)) == expected


def test_what_has_no_area_is_left_out_and_counted(tmp_path):
    kinds = ["point", "polyline", "template", "template", "cuboid", "odd"]
    project = read(export(tmp_path, *(drawn(kind) for kind in kinds), drawn("polygon", points=[1, 1, 2, 2])))
    assert project.left_out == {
        "points": 1, "polylines": 1, "templates": 2, "cuboids": 1, "shapes of type odd": 1,
        "polygons of less than three points": 1,
    }  # fmt: skip


def test_a_class_may_be_given_by_its_number(tmp_path):
    box = {"type": "bbox", "points": {"x1": 0, "y1": 0, "x2": 1, "y2": 1}}
    made = [
        box | {"classId": 8},
        box | {"classId": 99},
        box | {"classId": -1},
        box,
        box | {"classId": -1, "className": "cat"},
    ]
    project = read(export(tmp_path, *made))
    assert [shape.label for shape in project.pictures[0].shapes] == ["dog", "cat"]
    assert project.left_out == {"objects without a class": 3}


def test_a_group_is_one_object(tmp_path):
    boxes = [
        drawn("bbox", points={"x1": x, "y1": 0, "x2": x + 1, "y2": 1}, groupId=group)
        for x, group in enumerate((0, 1, 0, 1))
    ]
    shapes = read(export(tmp_path, *boxes)).pictures[0].shapes
    assert render(shapes, (1, 4), ["cat"]).objects[0].tolist() == [1, 2, 3, 2]


def test_the_image_is_found_by_its_name_in_the_export(tmp_path):
    image = write(tmp_path / "elsewhere" / "a.png", np.zeros((4, 6, 3), np.uint8))
    assert read(export(tmp_path)).pictures[0].image == image


def test_an_image_outside_is_not_reached(tmp_path):
    write(tmp_path / "b.png", np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "set").mkdir()
    picture = read(export(tmp_path / "set", name="../b.png")).pictures[0]
    assert (picture.image, picture.missing) == (None, "../b.png")


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (drawn("polygon"), "E_NUMBER"),
        (drawn("polygon", points=[1, 2, 3]), "E_NUMBER"),
        (drawn("polygon", points=[1, 2, 3, 4, 5, 6], exclude=5), "E_SHAPE"),
        (drawn("polygon", points=[1, 2, 3, 4, 5, 6], exclude=[5]), "E_NUMBER"),
        (drawn("bbox"), "E_SHAPE"),
        (drawn("bbox", points={"x1": 1}), "E_NUMBER"),
        (drawn("rbbox", points={"x1": 1, "y1": 1, "x2": 3, "y2": 3}), "E_NUMBER"),
        (drawn("ellipse", cx=1), "E_NUMBER"),
        (drawn("ellipse", cx=1, cy=1, rx=1, ry=1, angle="x"), "E_NUMBER"),
        ("text", "E_SHAPE"),
    ],
)
def test_damaged_objects_are_refused(tmp_path, broken, code):
    with pytest.raises(FileError) as error:
        read(export(tmp_path, broken))
    assert error.value.code == code


@pytest.mark.parametrize(
    ("broken", "code"),
    [(part("red-ish"), "E_SHAPE"), (part("") | {"parts": 3}, "E_SHAPE"), (part("") | {"parts": [3]}, "E_SHAPE")],
)
def test_damaged_parts_are_refused(tmp_path, broken, code):
    paint(tmp_path)
    with pytest.raises(FileError) as error:
        read(export(tmp_path, broken, ending="___pixel.json"))
    assert error.value.code == code


def test_a_painted_picture_that_is_not_there_or_no_picture_is_said(tmp_path):
    files = export(tmp_path, part("#00000f"), ending="___pixel.json")
    with pytest.raises(FileError, match=r"a\.png___save\.png is not beside it"):
        read(files)
    (tmp_path / "a.png___save.png").write_bytes(b"nothing")
    with pytest.raises(FileError) as error:
        read(files)
    assert error.value.code == "E_NOT_IMAGE"
    write(tmp_path / "a.png___save.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(FileError, match="not painted in colours"):
        read(files)


def test_an_image_without_objects_needs_no_painted_picture(tmp_path):
    assert read(export(tmp_path, ending="___pixel.json", height=4, width=6)).pictures[0].size == (4, 6)
