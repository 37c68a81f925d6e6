"""Label Studio: its SDK's sample exports, each region pixel by pixel, which answer is taken, refusals, and the way back."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from intarsia.errors import FileError
from intarsia.importers.base import FORMATS, Files
from tests.conftest import write
from tests.importers.test_label_studio_brush import HEADER, TWO_PIXELS, bits
from tests.importers.written import (
    assert_read_or_refused,
    assert_returns,
    drawn,
    junk_json,
    picture,
    put,
    read_back,
    rows,
)

SAMPLES = "data/annotation_samples/label_studio"


def region(kind: str, value: dict, label: str = "a", size: tuple[int, int] = (6, 10), **more: object) -> dict:
    height, width = size
    value = value | {f"{kind}labels": [label]}
    return {
        "id": "r",
        "type": f"{kind}labels",
        "original_width": width,
        "original_height": height,
        "value": value,
    } | more


def task(*results: dict, image: str = "i.png", **more: object) -> dict:
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": list(results)}]} | more


def tasks(tmp_path, *every: dict):
    return put(tmp_path / "tasks.json", json.dumps(list(every)))


def inside(tmp_path, one: dict) -> np.ndarray:
    return drawn(picture(tasks(tmp_path, task(one)), "label_studio"), ("a",)) < 254


def test_sample_polygon_and_rectangle(shared):
    found = read_back(shared(f"{SAMPLES}/test_export_coco"), "label_studio")
    assert found.classes == ("rectangle_label", "polygon_label")
    assert found.left_out == {"keypoints": 2}
    (each,) = found.pictures
    assert (each.name, each.image, each.missing, each.size) == ("test_image1", None, "test_image1.jpg", (320, 500))
    classes = drawn(each, found.classes)
    box = np.argwhere(classes == 0)  # 159.71 to 191.47 across, 13.16 to 44.94 down
    assert (box.min(0).tolist(), box.max(0).tolist(), len(box)) == ([13, 160], [44, 190], 31 * 32)
    points = np.array([[208.711, 11.348], [207.804, 39.035], [226.860, 39.943]])
    (ax, ay), (bx, by) = points[1] - points[0], points[2] - points[0]
    assert (classes == 1).sum() == pytest.approx(abs(ax * by - ay * bx) / 2, rel=0.03)


def test_sample_of_two_annotators_takes_the_newer(shared):
    found = read_back(shared(f"{SAMPLES}/test_export_yolo/data.json"), "label_studio")
    assert found.notes == ("1 further annotations of a task are not read, but its ground truth or the newest",)
    assert found.colors["parasites"] == (218, 1, 238)
    assert [len(each.shapes) for each in found.pictures] == [2, 2]
    first = found.pictures[0].shapes[0].rings[0][0]  # of annotation 2, updated 21:05:03
    assert first.tolist() == pytest.approx([0.3788706739526412 * 2800, 0.7176684881602914 * 2800])


def test_sample_boxes_turn_about_their_corner(shared):
    path = shared(f"{SAMPLES}/test_export_yolo/data_obb.json")
    document = json.loads(path.read_text())
    found = read_back(path, "label_studio")
    count = 0
    for each, one in zip(found.pictures, document, strict=True):
        height, width = each.size
        for shape, result in zip(each.shapes, one["annotations"][0]["result"], strict=True):
            value, (corners,) = result["value"], shape.rings
            sides = np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1)
            across, down = value["width"] * width / 100, value["height"] * height / 100
            assert sides.tolist() == pytest.approx([across, down, across, down])
            assert corners[0].tolist() == pytest.approx([value["x"] * width / 100, value["y"] * height / 100])
            turn = np.degrees(np.arctan2(*(corners[1] - corners[0])[::-1])) % 360
            assert turn == pytest.approx(value["rotation"] % 360)
            count += 1
    assert count == 25


def test_sample_image_is_named_by_the_upload(shared):
    (each,) = read_back(shared(f"{SAMPLES}/test_export_yolo/data_polygons.json"), "label_studio").pictures
    assert (each.name, each.size) == ("e97d4735-000000000025", (426, 640))
    (corners,) = each.shapes[0].rings
    assert len(corners) == 37
    assert corners[0].tolist() == pytest.approx([0.6 * 640, 0.1955922865 * 426])


def test_polygon_beyond_the_edge_is_cut(tmp_path):
    found = inside(tmp_path, region("polygon", {"points": [[50, 50], [150, 50], [150, 120], [50, 120]]}))
    assert np.argwhere(found).tolist() == [[y, x] for y in (3, 4, 5) for x in range(5, 10)]


@pytest.mark.parametrize(("turn", "expected"), [(0, (2, 4, 5, 9)), (90, (2, 6, 3, 5))])
def test_rectangle(tmp_path, turn, expected):
    """4 by 2 pixels from (5, 2); turned by 90 degrees 2 by 4 to the left of it."""
    value = {"x": 50, "y": 100 * 2 / 6, "width": 40, "height": 100 * 2 / 6, "rotation": turn}
    top, bottom, left, right = expected
    found = np.argwhere(inside(tmp_path, region("rectangle", value))).tolist()
    assert found == [[y, x] for y in range(top, bottom) for x in range(left, right)]


def test_ellipse(tmp_path):
    value = {"x": 30, "y": 50, "radiusX": 30, "radiusY": 100 * 1.6 / 6, "rotation": 0}
    assert (
        inside(tmp_path, region("ellipse", value))
        == rows("""
        ..........
        ..##......
        ######....
        ######....
        ..##......
        ..........""")
    ).all()


def test_brush(tmp_path):
    found = inside(tmp_path, region("brush", {"format": "rle", "rle": list(TWO_PIXELS)}, size=(1, 2)))
    assert found.tolist() == [[False, True]]


def data_url(pixels: np.ndarray, mode: str | None = None) -> str:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_bitmask_is_black_on_transparent(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 1, 3], pixels[1, 2, 3] = 255, 1
    value = {"imageDataURL": data_url(pixels)}
    assert np.argwhere(inside(tmp_path, region("bitmask", value, size=(2, 3)))).tolist() == [[0, 1], [1, 2]]


def test_bitmask_without_opacity_is_dark_on_light(tmp_path):
    pixels = np.array([[0, 255, 127], [255, 128, 255]], np.uint8)
    value = {"imageDataURL": data_url(pixels)}
    assert np.argwhere(inside(tmp_path, region("bitmask", value, size=(2, 3)))).tolist() == [[0, 0], [0, 2]]


BOX = {"x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0}


def answer(label: str, **more: object) -> dict:
    return {"result": [region("rectangle", BOX, label)]} | more


@pytest.mark.parametrize(
    ("answers", "label", "note"),
    [
        ([answer("a", updated_at="2024-02"), answer("b", updated_at="2024-01")], "a", "1 further"),
        ([answer("a", created_at="2024-02"), answer("b", ground_truth=True, created_at="2024-01")], "b", "1 further"),
        ([answer("a", was_cancelled=True, updated_at="2025"), answer("b", updated_at="2024")], "b", "1 cancelled"),
    ],
)
def test_one_annotation_is_taken(tmp_path, answers, label, note):
    found = read_back(tasks(tmp_path, task(annotations=answers)), "label_studio")
    assert [shape.label for shape in found.pictures[0].shapes] == [label]
    assert found.notes[0].startswith(note)


def test_predictions_only_where_nobody_annotated(tmp_path):
    guessed = task(annotations=[], predictions=[answer("old", created_at="1"), answer("new", created_at="2")])
    both = task(region("rectangle", BOX), predictions=[answer("new")], image="j.png")
    found = read_back(tasks(tmp_path, guessed, both), "label_studio")
    assert [each.shapes[0].label for each in found.pictures] == ["new", "a"]
    assert found.notes == ("1 tasks that nobody annotated: their newest prediction is read",)


def test_tasks_without_an_answer_are_not_empty_pictures(tmp_path):
    skipped = task(annotations=[answer("a", was_cancelled=True)])
    found = read_back(tasks(tmp_path, skipped, task(annotations=[]), task(image="empty.png")), "label_studio")
    assert [(each.name, each.shapes) for each in found.pictures] == [("empty", ())]
    assert set(found.notes) == {"1 cancelled annotations are not read", "2 tasks without an answer are left out"}


def test_a_task_a_file(tmp_path):
    put(tmp_path / "1", "") and put(tmp_path / "1.json", json.dumps(task(region("rectangle", BOX), image="1.png")))
    put(tmp_path / "2.json", json.dumps(task(region("rectangle", BOX, "b"), image="2.png")))
    assert [each.name for each in read_back(tmp_path, "label_studio").pictures] == ["1", "2"]


def test_json_min(tmp_path):
    value = BOX | {"rectanglelabels": ["a"], "original_width": 10, "original_height": 6}
    minimal = {"id": 4, "image": "/data/upload/2/0123abcd-i.png", "label": [value], "annotator": 1}
    found = picture(tasks(tmp_path, minimal), "label_studio")
    assert drawn(found, ("a",)).tolist() == [[0] * 10] * 6


def test_what_has_no_area_is_counted(tmp_path):
    bare = {"original_width": 10, "original_height": 6}
    results = [
        region("keypoint", {"x": 1, "y": 1, "width": 1}),
        {"id": "c", "type": "choices", "value": {"choices": ["good"]}},
        {"type": "relation", "from_id": "x", "to_id": "y"},
        {"id": "p", "type": "rectangle", "value": BOX, **bare},
        {"id": "q", "type": "rectangle", "value": BOX, **bare},
        {"id": "q", "type": "labels", "value": BOX | {"labels": ["a"]}, **bare},
        region("polygon", {"points": [[0, 0], [1, 1]]}),
    ]
    found = read_back(tasks(tmp_path, task(*results)), "label_studio")
    assert found.left_out == {
        "keypoints": 1,
        "answers of type choices": 1,
        "answers of type relation": 1,
        "regions without a label": 1,
        "polygons of less than three points": 1,
    }
    assert [shape.label for shape in found.pictures[0].shapes] == ["a"]


def test_several_labels_and_turned_views_are_told(tmp_path):
    one = region("rectangle", BOX, image_rotation=90)
    one["value"]["rectanglelabels"] = ["a", "b"]
    found = read_back(tasks(tmp_path, task(one)), "label_studio")
    assert len(found.notes) == 2


def test_several_images_of_a_task(tmp_path):
    results = [region("rectangle", BOX, label, item_index=index) for index, label in enumerate("ab")]
    several = task(*results) | {"data": {"images": ["x/p.png", "x/q.png"]}}
    found = read_back(tasks(tmp_path, several), "label_studio").pictures
    assert [(each.name, each.shapes[0].label) for each in found] == [("x/p", "a"), ("x/q", "b")]


@pytest.mark.parametrize(
    ("url", "stored", "name"),
    [
        ("/data/upload/3/0a1b2c3d-my%20cell.png", "my cell.png", "0a1b2c3d-my cell"),
        ("/data/upload/3/0a1b2c3d-my%20cell.png", "images/0a1b2c3d-my cell.png", "0a1b2c3d-my cell"),
        ("/data/local-files/?d=deep%2Fcell%2B1.png", "deep/cell+1.png", "deep/cell+1"),
        ("s3://bucket/many/folders/cell.png", "images/cell.png", "cell"),
        ("https://host/x/cell.png?token=1#f", "cell.png", "cell"),
        ("a#b%.png", "a#b%.png", "a#b%"),
        ("../../cell.png", "cell.png", "cell"),
    ],
)
def test_images_are_found(tmp_path, url, stored, name):
    write(tmp_path / stored, np.zeros((6, 10, 3), np.uint8))
    tasks(tmp_path, task(region("rectangle", BOX), image=url))
    found = picture(tmp_path, "label_studio")
    assert found.image == tmp_path / stored
    assert found.name == name


def test_image_within_the_task(tmp_path):
    url = data_url(np.zeros((6, 10), np.uint8))
    found = picture(tasks(tmp_path, task(region("rectangle", BOX), image=url)), "label_studio")
    assert found.embedded == base64.b64decode(url.split(",")[1])
    assert found.name == "task_1"


def test_same_image_twice_has_two_names(tmp_path):
    twice = [task(region("rectangle", BOX), id=number) for number in (5, 6)]
    assert [each.name for each in read_back(tasks(tmp_path, *twice), "label_studio").pictures] == [
        "task_5/i",
        "task_6/i",
    ]


def brush(stream: bytes) -> dict:
    return region("brush", {"format": "rle", "rle": list(stream)}, size=(1, 2))


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (brush(TWO_PIXELS[:-1]), "E_RLE"),
        (brush(bits((12, 32), *HEADER)), "E_RLE"),
        (brush(bits((8, 32), (15, 5))), "E_RLE"),
        (brush(bits((8, 32), *HEADER, (1, 1), (2, 2), (255, 8), (1, 8))), "E_RLE"),
        (region("brush", {"format": "rle", "rle": [300]}, size=(1, 2)), "E_RLE"),
        (region("brush", {"format": "rle", "rle": "eJw="}, size=(1, 2)), "E_RLE"),
        (region("brush", {"format": "zip", "rle": [0]}, size=(1, 2)), "E_RLE"),
        (region("bitmask", {"imageDataURL": "data:image/png;base64,@@@@"}), "E_SHAPE"),
        (region("bitmask", {"imageDataURL": "data:image/png;base64,aGFoYQ=="}), "E_SHAPE"),
        (region("bitmask", {"imageDataURL": "http://host/mask.png"}), "E_SHAPE"),
        (region("bitmask", {"imageDataURL": data_url(np.zeros((2, 2), np.uint8))}), "E_SHAPE"),
        (region("polygon", {"points": [[0, 0], ["x", 1], [2, 2]]}), "E_NUMBER"),
        (region("polygon", {"points": [[0, 0], [1e99, 1], [2, 2]]}), "E_NUMBER"),
        (region("rectangle", BOX | {"width": None, "height": 1}), "E_NUMBER"),
        (region("rectangle", BOX | {"rotation": "much"}), "E_NUMBER"),
        (region("rectangle", BOX, size=(0, 1)), "E_DIM"),
        (region("rectangle", BOX, size=(10**6, 10**6)), "E_TOO_LARGE"),
        ({"id": "r", "type": "rectanglelabels", "value": BOX | {"rectanglelabels": ["a"]}}, "E_SHAPE"),
    ],
)
def test_bad_regions_are_refused(tmp_path, one, code):
    with pytest.raises(FileError) as caught:
        read_back(tasks(tmp_path, task(one)), "label_studio")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_regions_of_two_sizes_are_refused(tmp_path):
    path = tasks(tmp_path, task(region("rectangle", BOX), region("rectangle", BOX, size=(7, 10))))
    with pytest.raises(FileError, match="several image sizes"):
        read_back(path, "label_studio")


@pytest.mark.parametrize("text", ["[NaN]", "[[]]", "{}", "[]", "[1]", '{"data": 1, "annotations": 3}', "[" * 100])
def test_others_are_not_recognised(tmp_path, text):
    put(tmp_path / "x.json", text)
    assert not FORMATS["label_studio"].recognise(Files(tmp_path))


def test_junk_anywhere_is_read_or_refused(tmp_path):
    triangle = region("polygon", {"points": [[0, 0], [5, 5], [9, 0]]})
    mask = region("bitmask", {"imageDataURL": data_url(np.zeros((6, 10), np.uint8))})
    documents = [[task(region("rectangle", BOX), triangle)], [task(brush(TWO_PIXELS))], [task(mask)]]
    for document in documents:
        assert_read_or_refused(tmp_path / "x.json", "label_studio", junk_json(document))


def test_written_maps_return():
    assert_returns("label_studio")
