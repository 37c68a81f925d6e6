"""CVAT XML: datumaro's sample exports, each kind of shape pixel by pixel, refusals, and the way back."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from intarsia.errors import FileError
from tests.conftest import write
from tests.importers.written import (
    assert_read_or_refused,
    assert_returns,
    drawn,
    junk_xml,
    picture,
    put,
    read_back,
    rows,
)

LABELS = "<label><name>b</name><color>#ff0080</color></label><label><name>a</name></label>"


def document(shapes: str, size: int = 6, head: str = "") -> str:
    meta = f"<meta><task><labels>{LABELS}</labels>{head}</task></meta>"
    image = f'<image id="0" name="i.png" width="{size}" height="{size}">{shapes}</image>'
    return f"<annotations><version>1.1</version>{meta}{image}</annotations>"


def inside(tmp_path, shapes: str, size: int = 6) -> np.ndarray:
    return drawn(picture(put(tmp_path / "annotations.xml", document(shapes, size)), "cvat"), ("a", "b")) < 254


def test_sample_project_keeps_subsets_apart(shared):
    found = read_back(shared("data/annotation_samples/cvat/datumaro_for_images/export_project"), "cvat")
    assert found.classes == ("label1", "label2")
    assert found.left_out == {"polylines": 3, "points": 3}
    assert [(each.name, each.split) for each in found.pictures] == [
        (f"{subset}/img{i}", split)
        for subset, split in (("Test", "test"), ("Train", "train"), ("Validation", "val"))
        for i in (0, 1)
    ]
    for each in found.pictures:
        assert each.image is not None
        assert each.image.parent.name == each.name.split("/")[0]
        side = 8 if each.name.endswith("0") else 10
        assert each.size == (side, side)
        classes = drawn(each, found.classes)
        if side == 8:  # the box 0..4, 2..4
            assert (classes[2:4, 0:4] == 0).all()
            assert (classes == 0).sum() == 8
        else:  # of the triangle (1, 2) (3, 4) (6, 5) the lines y = 2.5, 3.5, 4.5 hold one centre each
            assert np.argwhere(classes == 0).tolist() == [[2, 1], [3, 2], [4, 4]]


def test_sample_task_has_a_shape_without_label(shared):
    found = read_back(shared("data/annotation_samples/cvat/datumaro_for_images/export_task"), "cvat")
    assert found.left_out == {"polylines": 1, "points": 1, "shapes without a label": 1}
    assert [len(each.shapes) for each in found.pictures] == [1, 0]


def test_sample_video_drops_what_is_outside(shared):
    found = read_back(shared("data/annotation_samples/cvat/datumaro_for_video"), "cvat")
    assert found.classes == ("klhg", "z U k", "II")
    assert found.left_out == {"points": 1, "polylines": 1}
    assert [(each.name, len(each.shapes), each.size) for each in found.pictures] == [
        ("frame_000010", 1, (20, 25)),
        ("frame_000013", 0, (20, 25)),
        ("frame_000016", 0, (20, 25)),
    ]
    assert all(each.image is not None and each.image.stem == each.name for each in found.pictures)
    assert np.argwhere(drawn(found.pictures[0], found.classes) == 2).tolist() == [[4, x] for x in range(3, 10)]
    assert "3 frames" in found.notes[0]


def test_polygon(tmp_path):
    assert (
        inside(tmp_path, '<polygon label="a" points="1,1;5,1;5,3;3,3;3,5;1,5"/>')
        == rows("""
        ......
        .####.
        .####.
        .##...
        .##...
        ......""")
    ).all()


def test_box_turns_about_its_centre(tmp_path):
    box = '<box label="a" xtl="1" ytl="2" xbr="5" ybr="4" rotation="{}"/>'
    level, upright = inside(tmp_path, box.format(0)), inside(tmp_path, box.format(90))
    assert np.argwhere(level).tolist() == [[y, x] for y in (2, 3) for x in range(1, 5)]
    np.testing.assert_array_equal(upright, level.T)


def test_boxes_and_ellipses_turn_clockwise(tmp_path):
    box = inside(tmp_path, '<box label="a" xtl="10" ytl="25" xbr="50" ybr="35" rotation="30"/>', 60)
    oval = inside(tmp_path, '<ellipse label="a" cx="30" cy="30" rx="20" ry="5" rotation="30"/>', 60)
    for one, area in ((box, 400), (oval, 100 * np.pi)):  # 15 along 30 degrees is (13, 7.5)
        assert one[37, 43]
        assert one[22, 17]
        assert not one[22, 43]
        assert one.sum() == pytest.approx(area, rel=0.02)


def test_ellipse(tmp_path):
    assert (
        inside(tmp_path, '<ellipse label="a" cx="3" cy="3" rx="3" ry="1.6"/>')
        == rows("""
        ......
        ..##..
        ######
        ######
        ..##..
        ......""")
    ).all()


def test_mask_is_row_by_row_and_begins_outside(tmp_path):
    mask = '<mask label="a" rle="1, 2, 3,1, 1" left="{}" top="2" width="4" height="2" z_order="0"/>'
    assert (
        inside(tmp_path, mask.format(1))
        == rows("""
        ......
        ......
        ..##..
        ...#..
        ......
        ......""")
    ).all()
    assert np.argwhere(inside(tmp_path, mask.format(-2))).tolist() == [[2, 0], [3, 0]]


def test_z_order_is_kept_and_told(tmp_path):
    boxes = "".join(
        f'<box label="{label}" xtl="0" ytl="0" xbr="2" ybr="2" z_order="{z}"/>' for label, z in (("a", 1), ("b", 0))
    )
    found = read_back(put(tmp_path / "x.xml", document(boxes)), "cvat")
    assert found.classes == ("b", "a")
    assert found.colors == {"b": (255, 0, 128)}
    assert "1 pictures have shapes whose z_order" in found.notes[0]
    (each,) = found.pictures
    assert drawn(each, found.classes)[0, 0] == 0
    assert drawn(each, found.classes, order="z")[0, 0] == 1


def test_groups_make_one_object(tmp_path):
    shapes = "".join(
        f'<box label="{label}" xtl="0" ytl="0" xbr="2" ybr="2" group_id="{group}"/>'
        for label, group in (("a", 3), ("a", 3), ("b", 3), ("a", 0))
    )
    found = picture(put(tmp_path / "x.xml", document(shapes)), "cvat")
    assert [shape.object_id for shape in found.shapes] == ["a/3", "a/3", "b/3", None]


def test_what_has_no_area_is_counted(tmp_path):
    shapes = (
        '<polyline label="a" points="0,0;1,1"/><points label="a" points="0,0"/><cuboid label="a"/><tag label="a"/>'
        '<skeleton label="a"><points label="p"/></skeleton><polygon label="a" points="0,0;1,1"/><brick label="a"/>'
    )
    found = read_back(put(tmp_path / "x.xml", document(shapes)), "cvat")
    assert found.left_out == Counter(
        [
            "polylines",
            "points",
            "cuboids",
            "tags",
            "skeletons",
            "polygons of less than three points",
            "elements <brick>",
        ]
    )


def test_parts_of_a_skeleton_are_no_classes(tmp_path):
    text = document("").replace(LABELS, LABELS + "<label><name>knee</name><parent>person</parent></label>")
    assert read_back(put(tmp_path / "x.xml", text), "cvat").classes == ("b", "a")


@pytest.mark.parametrize(("names", "found_all"), [(("v_7.png", "v_9.png"), True), (("v_7.png", "v_8.png"), False)])
def test_frames_are_found_by_number_if_all_are(tmp_path, names, found_all):
    boxes = "".join(f'<box frame="{n}" outside="0" xtl="0" ytl="0" xbr="1" ybr="1" keyframe="1"/>' for n in (7, 9))
    put(tmp_path / "x.xml", f'<annotations><meta/><track id="0" label="a" group_id="2">{boxes}</track></annotations>')
    for name in names:
        write(tmp_path / "images" / name, np.zeros((4, 4, 3), np.uint8))
    found = read_back(tmp_path, "cvat").pictures
    assert [each.image.name if each.image else None for each in found] == ([*names] if found_all else [None, None])
    assert found[0].missing == "frame_000007.png"
    assert found[0].shapes[0].object_id == "a/2"


def test_names_that_lead_elsewhere_are_cleaned(tmp_path):
    write(tmp_path.parent / "secret.png", np.zeros((6, 6, 3), np.uint8))
    put(tmp_path / "x.xml", document("").replace("i.png", "../secret.png"))
    found = picture(tmp_path, "cvat")
    assert (found.name, found.image) == ("secret", None)


@pytest.mark.parametrize(
    ("shapes", "code"),
    [
        ('<mask label="a" rle="1,2" left="0" top="0" width="2" height="2"/>', "E_RLE"),
        ('<mask label="a" rle="-1,5" left="0" top="0" width="2" height="2"/>', "E_RLE"),
        ('<mask label="a" rle="1,x" left="0" top="0" width="2" height="2"/>', "E_RLE"),
        ('<mask label="a" rle="99999999999999999999" left="0" top="0" width="2" height="2"/>', "E_RLE"),
        ('<mask label="a" left="0" top="0" width="2" height="2"/>', "E_RLE"),
        ('<mask label="a" rle="4" left="0.5" top="0" width="2" height="2"/>', "E_NUMBER"),
        ('<mask label="a" rle="4" left="0" top="0" width="0" height="2"/>', "E_SHAPE"),
        ('<mask label="a" rle="4" left="0" top="0" width="900000" height="900000"/>', "E_TOO_LARGE"),
        ('<polygon label="a" points="0,0;1,nan;2,2"/>', "E_NUMBER"),
        ('<polygon label="a" points="0,0;1,inf;2,2"/>', "E_NUMBER"),
        ('<polygon label="a" points="0,0;1;2,2"/>', "E_NUMBER"),
        ('<box label="a" xtl="0" ytl="0" xbr="1"/>', "E_NUMBER"),
        ('<box label="a" xtl="0" ytl="0" xbr="1e300" ybr="1"/>', "E_NUMBER"),
        ('<ellipse label="a" cx="0" cy="0" rx="1" ry="1" rotation="much"/>', "E_NUMBER"),
    ],
)
def test_bad_shapes_are_refused(tmp_path, shapes, code):
    path = put(tmp_path / "x.xml", document(shapes))
    with pytest.raises(FileError) as caught:
        read_back(path, "cvat")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("side", "code"), [("0", "E_DIM"), ("100000", "E_TOO_LARGE"), ("wide", "E_NUMBER")])
def test_bad_sizes_are_refused(tmp_path, side, code):
    path = put(tmp_path / "x.xml", document("").replace('="6"', f'="{side}"'))
    with pytest.raises(FileError) as caught:
        read_back(path, "cvat")
    assert caught.value.code == code


def test_entities_are_refused(tmp_path):
    from intarsia.importers.base import FORMATS, Files

    laughs = '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">'
    put(tmp_path / "x.xml", f"<!DOCTYPE lolz [{laughs}]><annotations><image name='&c;'/></annotations>")
    assert not FORMATS["cvat"].recognise(Files(tmp_path))
    with pytest.raises(FileError) as caught:
        Files(tmp_path).xml(tmp_path / "x.xml")
    assert caught.value.code == "E_XML"


def test_junk_anywhere_is_read_or_refused(tmp_path):
    shapes = (
        '<polygon label="a" points="0,0;1,1;2,0" z_order="1" group_id="2"/>'
        '<box label="a" xtl="0" ytl="0" xbr="2" ybr="2" rotation="3"/><ellipse label="a" cx="1" cy="1" rx="1" ry="1"/>'
        '<mask label="a" rle="1,3" left="0" top="0" width="2" height="2"/>'
    )
    track = '<track label="a"><box frame="3" outside="0" xtl="0" ytl="0" xbr="1" ybr="1"/></track></annotations>'
    size = "<original_size><width>5</width><height>5</height></original_size>"
    text = document(shapes, head=size).replace("</annotations>", track)
    assert_read_or_refused(tmp_path / "x.xml", "cvat", junk_xml(text))


def test_written_maps_return():
    assert_returns("cvat")
