"""LabelMe's web XML: datumaro's sample, masks, parts, what is deleted, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from intarsia.errors import FileError
from intarsia.importers.base import FORMATS, Files
from tests.conftest import write
from tests.importers.written import assert_read_or_refused, drawn, junk_xml, picture, put, read_back


def polygon(*points: tuple[object, object]) -> str:
    return "<polygon>" + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points) + "</polygon>"


def item(name: str, number: int, body: str, *, deleted: int = 0, above: str = "") -> str:
    parts = f"<parts><hasparts/><ispartof>{above}</ispartof></parts>"
    return f"<object><name>{name}</name><deleted>{deleted}</deleted><id>{number}</id>{parts}{body}</object>"


def document(*objects: str, folder: str = "f", rows: object = 4, columns: object = 5) -> str:
    size = f"<imagesize><nrows>{rows}</nrows><ncols>{columns}</ncols></imagesize>"
    source = "<source><sourceAnnotation>LabelMe Webtool</sourceAnnotation></source>"
    head = f"<filename>i.png</filename><folder>{folder}</folder>"
    return f"<annotation>{head}{source}{''.join(objects)}{size}</annotation>"


BOX = polygon((1, 1), (3, 1), (3, 3), (1, 3))
MASK = "<segm><mask>m.png</mask></segm>"


def shoelace(*points: tuple[float, float]) -> float:
    x, y = np.array(points).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def test_sample(shared):
    found = read_back(shared("data/annotation_samples/datumaro_assets/labelme_dataset"), "labelme_xml")
    assert found.classes == ("window", "license plate", "o1", "q1", "b1", "m1", "hg")
    assert not found.left_out
    (each,) = found.pictures
    assert (each.name, each.size, each.split) == ("subset1/img1", (77, 102), None)
    assert each.image is not None
    areas = [
        int((drawn(type(each)("x", None, each.size, (shape,)), found.classes) < 254).sum()) for shape in each.shapes
    ]
    assert areas[0] == 2 * 3  # 43..45, 34..37
    assert areas[4] == 10 * 11  # 13..23, 19..30
    o1 = shoelace((30, 12), (42, 21), (24, 26), (15, 22), (18, 14), (22, 12), (27, 12))
    hg = shoelace((64, 21), (74, 24), (72, 32), (62, 34), (60, 27), (62, 22))
    assert (areas[2], areas[6]) == (pytest.approx(o1, rel=0.03), pytest.approx(hg, rel=0.03))
    plate, m1 = (np.asarray(each.shapes[index].pixels) for index in (1, 5))
    for mask, (left, top, right, bottom) in ((plate, (58, 66, 62, 68)), (m1, (56, 14, 70, 23))):
        ys, xs = np.nonzero(mask)  # within the box that the file says
        assert left <= xs.min() <= xs.max() <= right
        assert top <= ys.min() <= ys.max() <= bottom
    assert (plate.sum(), m1.sum()) == (4, 97)  # of 10 and 130 that are not clear: above half of 147 and of 153


def test_polygon(tmp_path):
    found = picture(put(tmp_path / "i.xml", document(item("a", 0, BOX))), "labelme_xml")
    assert np.argwhere(drawn(found, ("a",)) == 0).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_mask(tmp_path, bands):
    inside = np.zeros((4, 5), bool)
    inside[1, 2] = inside[3, 4] = True
    pixels = np.repeat(inside[..., None] * np.uint8(255), bands, axis=2)
    if bands == 4:
        pixels[..., :3], pixels[0, 0, 3] = 9, 127  # colour says nothing where there is opacity
    write(tmp_path / "Masks" / "f" / "m.png", pixels[..., 0] if bands == 1 else pixels)
    put(tmp_path / "Annotations" / "f" / "i.xml", document(item("a", 0, MASK)))
    write(tmp_path / "Images" / "f" / "i.png", np.zeros((4, 5, 3), np.uint8))
    found = picture(tmp_path, "labelme_xml")
    assert found.image == tmp_path / "Images" / "f" / "i.png"
    np.testing.assert_array_equal(drawn(found, ("a",)) == 0, inside)


def test_parts_are_one_object_of_a_class(tmp_path):
    objects = [
        item("car", 0, BOX),
        item("car", 1, BOX, above="0"),
        item("wheel", 2, BOX, above="1"),
        item("car", 3, BOX),
        item("loop", 4, BOX, above="5"),
        item("loop", 5, BOX, above="4"),
    ]
    found = picture(put(tmp_path / "i.xml", document(*objects)), "labelme_xml")
    assert [shape.object_id for shape in found.shapes][:4] == ["car/0", "car/0", "wheel/0", None]


def test_what_is_left_out_is_counted(tmp_path):
    objects = [
        item("a", 0, BOX, deleted=1),
        item("", 1, BOX),
        item("a", 2, ""),
        item("a", 3, polygon((0, 0), (1, 1))),
        item("__ignore__", 4, BOX),
    ]
    found = read_back(put(tmp_path / "i.xml", document(*objects)), "labelme_xml")
    assert found.left_out == {
        "objects deleted in the tool": 1,
        "shapes without a label": 1,
        "objects without a polygon or a mask": 1,
        "polygons of less than three points": 1,
    }
    assert found.classes == ()
    assert [shape.ignored for shape in found.pictures[0].shapes] == [True]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (document(item("a", 0, polygon((0, 0), ("nan", 1), (1, 1)))), "E_NUMBER"),
        (document(item("a", 0, polygon((0, 0), ("", 1), (1, 1)))), "E_NUMBER"),
        (document(item("a", 0, MASK)), "E_MISSING"),
        (document(item("a", 0, MASK.replace("m.png", "../m.png"))), "E_MISSING"),
        (document(item("a", 0, MASK), folder="/etc"), "E_MISSING"),
        (document(rows=0), "E_DIM"),
        (document(rows=10**6, columns=10**6), "E_TOO_LARGE"),
    ],
)
def test_bad_documents_are_refused(tmp_path, text, code):
    write(tmp_path / "m.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(FileError) as caught:
        read_back(put(tmp_path / "deep" / "i.xml", text), "labelme_xml")
    assert caught.value.code == code


def test_a_mask_that_is_no_png_is_refused(tmp_path):
    put(tmp_path / "m.png", "no picture")
    with pytest.raises(FileError, match="no PNG"):
        read_back(put(tmp_path / "i.xml", document(item("a", 0, MASK))), "labelme_xml")


def test_boxes_of_voc_are_not_recognised(tmp_path):
    put(tmp_path / "i.xml", "<annotation><object><name>a</name><bndbox><xmin>1</xmin></bndbox></object></annotation>")
    assert not FORMATS["labelme_xml"].recognise(Files(tmp_path))


def test_junk_anywhere_is_read_or_refused(tmp_path):
    write(tmp_path / "m.png", np.zeros((4, 5), np.uint8))
    text = document(item("a", 0, BOX), item("a", 1, MASK, above="0"))
    assert_read_or_refused(tmp_path / "i.xml", "labelme_xml", junk_xml(text))
