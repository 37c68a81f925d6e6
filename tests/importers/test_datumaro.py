"""Datumaro JSON: each kind of annotation pixel by pixel, names and subsets, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from intarsia.errors import FileError
from intarsia.importers.base import FORMATS, Files
from intarsia.importers.rle import encode_rle
from tests.conftest import write
from tests.importers.written import assert_read_or_refused, drawn, junk_json, picture, put, read_back, rows

SIZE = [5, 6]


def document(*annotations: dict, labels: tuple[str, ...] = ("a", "b"), **item: object) -> str:
    categories = {
        "label": {"labels": [{"name": name, "parent": "", "attributes": []} for name in labels], "attributes": []},
        "mask": {"colormap": [{"label_id": 1, "r": 1, "g": 2, "b": 3}, {"label_id": 9, "r": 0, "g": 0, "b": 0}]},
    }
    whole = {"id": "i", "annotations": list(annotations), "image": {"path": "i.png", "size": SIZE}} | item
    return json.dumps({"info": {}, "categories": categories, "items": [whole]})


def annotation(kind: str, **more: object) -> dict:
    return {"id": 0, "type": kind, "attributes": {}, "group": 0, "label_id": 0, "z_order": 0} | more


def inside(tmp_path, one: dict) -> np.ndarray:
    return drawn(picture(put(tmp_path / "annotations" / "train.json", document(one)), "datumaro"), ("a", "b")) < 254


SQUARE = rows("""
    ......
    .###..
    .#.#..
    .###..
    ......""")


def test_polygon(tmp_path):
    found = inside(tmp_path, annotation("polygon", points=[1, 1, 5, 1, 5, 3, 1, 3]))
    assert np.argwhere(found).tolist() == [[y, x] for y in (1, 2) for x in (1, 2, 3, 4)]


@pytest.mark.parametrize("counts", [[6, 3, 2, 1, 1, 1, 2, 3, 11], encode_rle(SQUARE)])
def test_mask_is_column_by_column(tmp_path, counts):
    np.testing.assert_array_equal(inside(tmp_path, annotation("mask", rle={"counts": counts, "size": SIZE})), SQUARE)


def test_box(tmp_path):
    found = inside(tmp_path, annotation("bbox", bbox=[4, 3, 5, 1]))
    assert np.argwhere(found).tolist() == [[3, 4], [3, 5]]


def test_ellipse(tmp_path):
    centred = inside(tmp_path, annotation("ellipse", points=[0, 0.4, 6, 3.6]))  # (3, 2), radii 3 and 1.6
    assert (
        centred
        == rows("""
        ..##..
        ######
        ######
        ..##..
        ......""")
    ).all()


def test_order_groups_crowds_and_what_has_no_area(tmp_path):
    shapes = [
        annotation("bbox", bbox=[0, 0, 2, 2], z_order=1, group=4),
        annotation("bbox", bbox=[0, 0, 2, 2], label_id=1),
        annotation("bbox", bbox=[4, 4, 1, 1], attributes={"is_crowd": True}),
        annotation("bbox", bbox=[4, 4, 1, 1], label_id=None),
        annotation("points", points=[1, 1, 2]),
        annotation("caption"),
        annotation("rotated_bbox", points=[1, 1, 1, 1, 1]),
        annotation("polygon", points=[1, 1, 2, 2]),
    ]
    found = read_back(put(tmp_path / "val.json", document(*shapes)), "datumaro")
    assert found.classes == ("a", "b")
    assert found.colors == {"b": (1, 2, 3)}
    assert found.left_out == {
        "shapes without a label": 1,
        "points": 1,
        "captions": 1,
        "annotations of type rotated_bbox": 1,
        "polygons of less than three points": 1,
    }
    assert "z_order" in found.notes[0]
    (each,) = found.pictures
    assert each.split == "val"
    assert [shape.object_id for shape in each.shapes] == ["a/4", None, None]
    assert drawn(each, found.classes)[0, 0] == 1
    assert drawn(each, found.classes, order="z")[0, 0] == 0
    assert drawn(each, found.classes)[4, 4] == 255


def test_subsets_have_images_of_their_own(tmp_path):
    for subset in ("train", "test"):
        put(tmp_path / "annotations" / f"{subset}.json", document())
        write(tmp_path / "images" / subset / "i.png", np.zeros((5, 6, 3), np.uint8))
    found = read_back(tmp_path, "datumaro").pictures
    assert {each.name: each.image for each in found} == {
        f"{subset}/i": tmp_path / "images" / subset / "i.png" for subset in ("train", "test")
    }


def test_image_by_the_items_name(tmp_path):
    put(tmp_path / "annotations" / "default.json", document(id="deep/x", image={"path": "", "size": SIZE}))
    write(tmp_path / "images" / "deep" / "x.jpg", np.zeros((5, 6, 3), np.uint8))
    found = picture(tmp_path, "datumaro")
    assert (found.name, found.split) == ("deep/x", None)
    assert found.image == tmp_path / "images" / "deep" / "x.jpg"


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (annotation("bbox", bbox=[0, 0, 1, 1], label_id=2), "E_LABEL"),
        (annotation("bbox", bbox=[0, 0, 1, 1], label_id=-1), "E_LABEL"),
        (annotation("bbox", bbox=[0, 0, 1, 1], label_id=True), "E_LABEL"),
        (annotation("bbox", bbox=[0, 0, 1]), "E_SHAPE"),
        (annotation("bbox", bbox=[0, 0, 1, "x"]), "E_NUMBER"),
        (annotation("polygon", points=[0, 0, 1]), "E_NUMBER"),
        (annotation("polygon", points=[0, 0, 1e40, 1, 1, 1]), "E_NUMBER"),
        (annotation("mask", rle={"counts": [1, 2], "size": SIZE}), "E_RLE"),
        (annotation("mask", rle={"counts": [1.5], "size": SIZE}), "E_RLE"),
        (annotation("mask", rle={"counts": "\u2603", "size": SIZE}), "E_RLE"),
        (annotation("mask", rle={"counts": [30]}), "E_RLE"),
        (annotation("mask"), "E_RLE"),
        (annotation("mask", rle={"counts": [10**12], "size": [10**6, 10**6]}), "E_TOO_LARGE"),
    ],
)
def test_bad_annotations_are_refused(tmp_path, one, code):
    with pytest.raises(FileError) as caught:
        read_back(put(tmp_path / "x.json", document(one)), "datumaro")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("item", [{"image": {"size": 3}}, {"image": {"size": [0, 1]}}, {"annotations": [1]}])
def test_bad_items_are_refused(tmp_path, item):
    with pytest.raises(FileError):
        read_back(put(tmp_path / "x.json", document(**item)), "datumaro")


def test_coco_is_not_recognised(tmp_path):
    put(tmp_path / "x.json", '{"images": [], "annotations": [], "categories": []}')
    assert not FORMATS["datumaro"].recognise(Files(tmp_path))


def test_junk_anywhere_is_read_or_refused(tmp_path):
    shapes = [
        annotation("polygon", points=[0, 0, 1, 1, 2, 0]),
        annotation("mask", rle={"counts": [30], "size": SIZE}),
        annotation("bbox", bbox=[0, 0, 1, 1]),
    ]
    assert_read_or_refused(tmp_path / "x.json", "datumaro", junk_json(json.loads(document(*shapes))))
