"""labelme JSON: bit for bit what labelme itself painted, each type of shape, what is embedded, refusals, and the way back."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from intarsia.errors import FileError
from intarsia.importers.base import FORMATS, Files
from intarsia.importers.labelme import read
from tests.conftest import write
from tests.importers.written import assert_read_or_refused, assert_returns, drawn, junk_json, picture, put, read_back

SAMPLES = "data/annotation_samples/labelme"


def painted(found, classes) -> np.ndarray:
    """As labelme's own export scripts do: uncovered is class 0."""
    classes_HW = drawn(found, classes, rule="labelme")
    return np.where(classes_HW == 254, 0, classes_HW)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("semantic_segmentation", "data_dataset_voc/SegmentationClass"),
        ("instance_segmentation", "data_dataset_voc/SegmentationClass"),
        ("video_annotation", "SegmentationClassPNG"),
    ],
)
def test_pixels_are_labelmes_own(shared, folder, expected):
    """One pixel of 2011_000006 differs: at the first corner of a sofa's triangle, (103.94, 290.56), Pillow up to 11.0 painted
    (104, 290), with which labelme made its sample; from 11.3 on it does not, and the person below shows."""
    root = shared(f"{SAMPLES}/{folder}")
    found = read_back(root / "data_annotated", "labelme")
    assert found.classes[0] == "_background_"
    assert len(found.pictures) in (2, 3)
    for each in found.pictures:
        truth = np.asarray(Image.open(root / expected / f"{each.name}.png"))
        differing = np.argwhere(painted(each, found.classes) != truth).tolist()
        assert differing in ([], [[290, 104]] if each.name == "2011_000006" else [])
        assert each.image is not None


def test_embedded_image_and_its_own_picture(shared):
    """Eight pixels differ, of the top row of the notes beside their corner (522.32, 711.67): Pillow 9.3 to 13 paint them all,
    the sample, which an older one made, shows the shelf there."""
    folder = shared(f"{SAMPLES}/embedded_image")
    names = (folder / "expected_label_names.txt").read_text().split()
    found = read_back(folder / "apc2016_obj3.json", "labelme").pictures[0]
    assert found.image is None
    assert found.embedded is not None
    with Image.open(io.BytesIO(found.embedded)) as image:
        assert image.size[::-1] == found.size == (907, 1210)
    truth = np.asarray(Image.open(folder / "expected_label.png"))
    assert np.argwhere(painted(found, names) != truth).tolist() == [[711, x] for x in range(523, 531)]


def test_primitives(shared):
    found = read_back(shared(f"{SAMPLES}/primitives"), "labelme")
    assert found.left_out == {"lines": 1, "points": 1, "linestrips": 1}
    assert found.classes == ("rectangle", "circle", "polygon", "octagon")
    (each,) = found.pictures
    assert each.size == (450, 560)
    classes = drawn(each, found.classes)
    assert (classes == 0).sum() == 100 * 100 + 151 * 102
    assert (classes == 1).sum() == pytest.approx(
        np.pi * (30**2 + 41**2), rel=0.002
    )  # the edge is 30 right and 41 below
    corners = np.array([(69, 318), (45, 403), (173, 406), (198, 321)])
    x, y = corners.T
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    assert (classes == 2).sum() == pytest.approx(area, rel=0.002)
    octagon = np.argwhere(classes == 3)
    assert (octagon.min(0).tolist(), octagon.max(0).tolist()) == (
        [305, 417],
        [404, 516],
    )  # 100 by 100, its box cut to whole


def test_missing_image_is_named(shared):
    found = read_back(shared(f"{SAMPLES}/bbox_detection"), "labelme").pictures[0]
    assert (found.image, found.missing, found.embedded) == (None, "2011_000025.jpg", None)
    assert (drawn(found, ("bus", "car")) == 1).sum() == 91 * 99


def shape(kind: str, *points: object, label: str = "a", **more: object) -> dict:
    return {"label": label, "points": list(points), "group_id": None, "shape_type": kind, "flags": {}} | more


def document(*shapes: dict, **more: object) -> str:
    whole = {"version": "5", "shapes": list(shapes), "imagePath": "i.png", "imageData": None}
    return json.dumps(whole | {"imageHeight": 5, "imageWidth": 6} | more)


def inside(tmp_path, one: dict) -> list[list[int]]:
    found = picture(put(tmp_path / "i.json", document(one)), "labelme")
    return np.argwhere(drawn(found, ("a",)) == 0).tolist()


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


FULL = png(np.ones((3, 3), np.uint8))


@pytest.mark.parametrize(
    ("one", "rows", "columns"),
    [
        (shape("polygon", [1, 1], [3, 1], [3, 4], [1, 4]), (1, 4), (1, 3)),
        (shape("", [1, 1], [3, 1], [3, 4], [1, 4]), (1, 4), (1, 3)),
        (shape("oriented_rectangle", [1, 1], [3, 1], [3, 4], [1, 4]), (1, 4), (1, 3)),
        (shape("rectangle", [3, 4], [1, 1]), (1, 4), (1, 3)),
        (shape("rectangle", [-9, -9], [2, 1]), (0, 1), (0, 2)),
        (shape("circle", [3, 2], [3, 3]), (1, 3), (2, 4)),
        (shape("mask", [2, 1], [4, 3], mask=FULL), (1, 4), (2, 5)),
        (shape("mask", [2, 1], [3, 1], mask=FULL), (1, 2), (2, 4)),  # a whole box cuts the mask
        (shape("mask", [1.6, 1.4], [3, 1], mask=FULL), (1, 4), (2, 5)),  # of another the mask's extent is taken
        (shape("mask", [-1, -2], [1, 0], mask=FULL), (0, 1), (0, 2)),  # what sticks out is cut off
        (shape("mask", [5, 4], [7, 6], mask=FULL), (4, 5), (5, 6)),
        (shape("mask", [8, 9], [10, 11], mask=FULL), (0, 0), (0, 0)),
    ],
)
def test_types_of_shape(tmp_path, one, rows, columns):
    assert inside(tmp_path, one) == [[y, x] for y in range(*rows) for x in range(*columns)]


def test_later_shapes_lie_on_top_and_ignored_ones_count_for_nothing(tmp_path):
    shapes = [shape("rectangle", [0, 0], [3, 1], label=label) for label in ("a", "b")]
    shapes.append(shape("rectangle", [2, 0], [3, 1], label="__ignore__"))
    found = read_back(put(tmp_path / "i.json", document(*shapes)), "labelme")
    assert found.classes == ("a", "b")
    assert drawn(found.pictures[0], found.classes)[0].tolist() == [1, 1, 255, 254, 254, 254]


@pytest.mark.parametrize(
    ("group", "expected"), [(0, "a/0"), (3, "a/3"), (None, None), (True, None), (False, None), ("3", None)]
)
def test_group_ids(tmp_path, group, expected):
    one = shape("rectangle", [0, 0], [1, 1], group_id=group)
    assert picture(put(tmp_path / "i.json", document(one)), "labelme").shapes[0].object_id == expected


def test_what_has_no_area_is_counted(tmp_path):
    kinds = ("line", "linestrip", "point", "points", "spline")
    shapes = [shape(kind, [0, 0], [1, 1], [2, 0]) for kind in kinds] + [shape("polygon", [0, 0], [1, 1])]
    assert read_back(put(tmp_path / "i.json", document(*shapes)), "labelme").left_out == {
        "lines": 1,
        "linestrips": 1,
        "points": 2,
        "shapes of type spline": 1,
        "polygons of less than three points": 1,
    }


@pytest.mark.parametrize("above", [False, True])
def test_list_of_classes_is_by_line(tmp_path, above):
    put(tmp_path / "data" / "i.json", document(shape("rectangle", [0, 0], [1, 1], label="extra")))
    put((tmp_path if above else tmp_path / "data") / "labels.txt", "__ignore__\n_background_\npotted plant\n\n")
    assert read_back(tmp_path / "data", "labelme").classes == ("_background_", "potted plant", "extra")


def test_windows_paths(tmp_path):
    write(tmp_path / "pictures" / "i.png", np.zeros((5, 6, 3), np.uint8))
    put(tmp_path / "json" / "x.json", document(imagePath="..\\pictures\\i.png"))
    found = picture(tmp_path, "labelme")
    assert (found.image, found.name) == (tmp_path / "pictures" / "i.png", "json/x")


def test_without_a_size_it_is_the_images(tmp_path):
    assert picture(put(tmp_path / "i.json", document(imageHeight=None, imageWidth=None)), "labelme").size is None


@pytest.mark.parametrize(
    ("one", "code"),
    [
        ({"points": [], "shape_type": "polygon"}, "E_SHAPE"),
        (shape("rectangle", [0, 0]), "E_SHAPE"),
        (shape("polygon", [0, 0], [1, 1], [2]), "E_NUMBER"),
        (shape("polygon", [0, 0], [1, 1], ["x", 2]), "E_NUMBER"),
        (shape("circle", [0, 0], [1e300, 1]), "E_NUMBER"),
        (shape("mask", [0, 0], [1, 1], mask=None), "E_SHAPE"),
        (shape("mask", [0, 0], [1, 1], mask="@@@"), "E_SHAPE"),
        (shape("mask", [0, 0], [1, 1], mask="aGFoYQ=="), "E_SHAPE"),
        (shape("mask", [0, 0], [1, 1], mask=FULL[: len(FULL) // 2]), "E_SHAPE"),
    ],
)
def test_bad_shapes_are_refused(tmp_path, one, code):
    with pytest.raises(FileError) as caught:
        read_back(put(tmp_path / "i.json", document(one)), "labelme")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_junk_anywhere_is_refused_or_does_not_matter(tmp_path):
    whole = json.loads(document(shape("polygon", [0, 0], [3, 0], [0, 3]), shape("rectangle", [0, 0], [2, 2])))
    assert_read_or_refused(tmp_path / "i.json", "labelme", junk_json(whole))


def test_mask_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_MAX_PIXELS", "8")
    path = put(tmp_path / "i.json", document(shape("mask", [0, 0], [2, 2], mask=FULL)))
    with pytest.raises(FileError, match="too many pixels"):
        read_back(path, "labelme")


def test_numbers_that_are_none_are_refused(tmp_path):
    path = put(tmp_path / "i.json", document(shape("polygon", [0, 0], [1, 1], [2, 0])).replace("[2, 0]", "[NaN, 0]"))
    with pytest.raises(FileError, match="NaN is no number"):
        Files(path).json(path)
    assert not FORMATS["labelme"].recognise(Files(path))  # type: ignore[misc]
    assert read(Files(path)).pictures == ()


def test_written_maps_return():
    assert_returns("labelme", colors=False, splits=False)
