"""What all importers share: the files of an export, parsers with bounds, numbers, rings, and the choice of the format."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

import intarsia.importers  # noqa: F401
from intarsia.errors import ConfigError, DataError, FileError
from intarsia.importers import base
from intarsia.importers.base import FORMATS, Files, Format, ellipse, find_format, number, rectangle, ring
from intarsia.importers.parse import MOST_DEPTH, read_json, read_xml
from tests.conftest import write

PIXEL = np.zeros((2, 3, 3), np.uint8)


def saved(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_hidden_files_and_those_of_macos_archives_are_passed_over(tmp_path):
    for name in ("a.json", "sub/b.JSON", ".hidden/c.json", "sub/.d.json", "__MACOSX/e.json", "sub/__MACOSX/._f.json"):
        saved(tmp_path / name, "{}")
    assert [path.name for path in Files(tmp_path).every] == ["a.json", "b.JSON"]
    assert [path.name for path in Files(tmp_path).ending(".json")] == ["a.json", "b.JSON"]


def test_a_single_file_is_an_export_whose_images_lie_around_it(tmp_path):
    write(tmp_path / "images" / "a.png", PIXEL)
    write(tmp_path / ".thumbs" / "a.png", PIXEL)
    saved(tmp_path / "other.json", "{}")
    files = Files(saved(tmp_path / "this.json", "{}"))
    assert files.every == (tmp_path / "this.json",)
    assert files.image("a.png") == tmp_path / "images" / "a.png"


def test_what_does_not_exist_is_said(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Files(tmp_path / "nothing")


@pytest.mark.parametrize(
    "said",
    [
        "images/A.PNG",
        "images\\A.PNG",
        "A.PNG",
        "a.png",
        " a.png ",
        "./images/A.PNG",
        "C:\\work\\a.png",
        "../../etc/a.png",
    ],
)
def test_an_image_is_found_by_its_path_or_its_name(tmp_path, said):
    image = write(tmp_path / "images" / "A.PNG", PIXEL)
    assert Files(tmp_path).image(said) == image


def test_nothing_outside_the_folder_is_reached(tmp_path):
    write(tmp_path / "secret.png", PIXEL)
    document = saved(tmp_path / "export" / "ann" / "a.json", "{}")
    files = Files(tmp_path / "export")
    for said in ("../secret.png", "..\\..\\secret.png", str(tmp_path / "secret.png"), "ann/../../secret.png"):
        assert files.image(said) is None
        assert files.image(said, beside=document) is None


@pytest.mark.parametrize("said", ["", "  ", "x\0.png", "y" * 5000 + ".png", "/", ".."])
def test_names_that_are_none_find_nothing(tmp_path, said):
    document = saved(tmp_path / "a.json", "{}")
    assert Files(tmp_path).image(said, beside=document) is None


def test_an_image_beside_the_document_goes_first(tmp_path):
    write(tmp_path / "a.png", PIXEL)
    near = write(tmp_path / "sub" / "a.png", PIXEL)
    document = saved(tmp_path / "sub" / "a.json", "{}")
    assert Files(tmp_path).image("a.png", beside=document) == near


def test_a_name_that_several_images_have_is_none_of_them(tmp_path):
    train = write(tmp_path / "data" / "train" / "1.png", PIXEL)
    write(tmp_path / "data" / "val" / "1.png", PIXEL)
    files = Files(tmp_path)
    assert files.image("1.png") is None
    assert files.image("somewhere/else/1.png") is None
    assert files.image("D:\\TRAIN\\1.png") == train
    assert files.image("data/train/1.png") == train


def test_json_with_a_byte_order_mark_is_read_and_other_codings_are_refused(tmp_path):
    assert read_json(saved(tmp_path / "a.json", b'\xef\xbb\xbf{"a": "\xc3\xa4"}')) == {"a": "ä"}
    for name, content in (("latin", '{"a": "ä"}'.encode("cp1252")), ("wide", '{"a": 1}'.encode("utf-16"))):
        with pytest.raises(FileError, match="not UTF-8") as error:
            read_json(saved(tmp_path / f"{name}.json", content))
        assert error.value.code == "E_JSON"


@pytest.mark.parametrize("bad", ["", "{", "[NaN]", "[Infinity]", "[-Infinity]", '{"a": 1} x', "[" + "9" * 5000 + "]"])
def test_what_is_no_json_is_refused(tmp_path, bad):
    with pytest.raises(FileError) as error:
        read_json(saved(tmp_path / "a.json", bad))
    assert error.value.code == "E_JSON"


@pytest.mark.parametrize("depth", [MOST_DEPTH + 1, 30_000, 5_000_000])
def test_deep_nesting_is_refused(tmp_path, depth):
    with pytest.raises(FileError) as error:
        read_json(saved(tmp_path / "a.json", "[" * depth + "]" * depth))
    assert error.value.code == "E_JSON"


def test_brackets_in_text_are_no_nesting(tmp_path):
    said = {"a": '\\"[[' + "[{" * 200, "b": "\\"}
    assert read_json(saved(tmp_path / "a.json", json.dumps(said))) == said


def test_a_key_that_stands_twice_is_refused_unless_nothing_is_lost(tmp_path):
    assert read_json(saved(tmp_path / "a.json", '{"a": [1], "a": [1]}')) == {"a": [1]}
    with pytest.raises(FileError, match="'a' stands twice"):
        read_json(saved(tmp_path / "b.json", '{"c": {"a": 1, "a": 2}}'))


def test_size_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("intarsia.importers.parse.MOST_BYTES", 100)
    for read in (read_json, read_xml):
        with pytest.raises(FileError) as error:
            read(saved(tmp_path / "a", b" " * 101))
        assert error.value.code == "E_TOO_LARGE"


BOMB = '<!DOCTYPE a [<!ENTITY a "{}">{}]><a>&i;</a>'.format(
    "x" * 100, "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "<a>",
        "text",
        BOMB,
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        "<a>&undeclared;</a>",
    ],
)
def test_xml_with_entities_is_refused(tmp_path, bad):
    with pytest.raises(FileError) as error:
        read_xml(saved(tmp_path / "a.xml", bad))
    assert error.value.code == "E_XML"


def test_files_are_parsed_once_and_failures_are_remembered(tmp_path):
    good, bad = saved(tmp_path / "a.json", "[1]"), saved(tmp_path / "b.json", "[")
    xml = saved(tmp_path / "c.xml", "<a b='1'/>")
    files = Files(tmp_path)
    assert files.json(good) is files.json(good)
    assert files.try_json(bad) is None
    assert files.try_xml(bad) is None
    assert files.xml(xml).get("b") == "1"
    saved(bad, "[2]")
    with pytest.raises(FileError):
        files.json(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf, "nan", "", "x", None, True, [1], 10**400, 2e9, "-1e10"])
def test_no_number(bad):
    with pytest.raises(FileError) as error:
        number(bad, Path("a.json"), "x")
    assert error.value.code == "E_NUMBER"


def test_numbers_may_be_text():
    assert [number(each, Path("a"), "x") for each in (1, "2.5", " 3 ", -1e9)] == [1, 2.5, 3, -1e9]


def test_rings_are_lists_of_points_or_flat_and_never_closed():
    corners = [[0, 0], [4, 0], [4, 3]]
    for given in (corners, [0, 0, 4, 0, 4, 3], [*corners, [0, 0]], [["0", "0"], ["4", "0"], ["4", "3"]]):
        assert np.array_equal(ring(given, Path("a"), "x"), corners)
    for none in ([], [[1, 1]], [1, 1, 2, 2], [[0, 0], [1, 1], [0, 0]], [[]]):
        assert ring(none, Path("a"), "x") is None


@pytest.mark.parametrize(
    "bad",
    [
        *(
            [1, 2, 3],
            [[1, 2, 3]],
            [[1, 2], [3]],
            [[1, 2], [3, None], [4, 5]],
            [[1, math.nan], [1, 2], [3, 4]],
            {"x": 1},
        ),
        *(
            5,
            None,
            "abc",
            [["a", "b"]],
            [[1e308, 1], [2, 2], [3, 3]],
            [[10**400, 0], [1, 1], [2, 0]],
            [[[1, 2], [3, 4]]],
        ),
    ],
)
def test_no_ring(bad):
    with pytest.raises(FileError) as error:
        ring(bad, Path("a.json"), "x")
    assert error.value.code == "E_NUMBER"


def area(corners: np.ndarray) -> float:
    x, y = corners.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


@pytest.mark.parametrize("radii", [(0.5, 0.5), (3, 3), (8, 8), (40, 3), (900, 1200)])
@pytest.mark.parametrize("turn", [0.0, 0.7, -2.0])
def test_an_ellipse_has_its_area(radii, turn):
    corners = ellipse(10, 20, *radii, turn)
    assert area(corners) == pytest.approx(math.pi * radii[0] * radii[1], rel=1e-3)
    assert np.allclose(corners.mean(axis=0), (10, 20))


def test_an_ellipse_turns_from_x_towards_y():
    x, y = ellipse(0, 0, 10, 1, math.pi / 6).T
    far = np.argmax(x)
    assert (x[far], y[far]) == pytest.approx((10 * math.cos(math.pi / 6), 10 * math.sin(math.pi / 6)), abs=0.2)


def test_a_rectangle_may_be_given_by_any_two_opposite_corners():
    assert area(rectangle(1, 2, 4, 7)) == area(rectangle(4, 7, 1, 2)) == area(rectangle(4, 2, 1, 7)) == 15


def test_an_export_of_no_known_format_says_what_was_tried_and_met(tmp_path):
    saved(tmp_path / "a.json", '{"what": 1}')
    saved(tmp_path / "README", "x")
    with pytest.raises(DataError, match=r"Met: 1 no ending, 1 \.json") as error:
        find_format(Files(tmp_path))
    assert all(each.name in str(error.value) for each in FORMATS.values() if each.read)


@pytest.mark.parametrize("tool", ["labelbox/labelbox_v1", "labelbox/ndjson", "dataloop"])
def test_exports_of_tools_that_are_not_read_are_refused(shared, tool):
    with pytest.raises(DataError, match="no annotation export that is known") as error:
        find_format(Files(shared(f"data/annotation_samples/{tool}")))
    assert "via (VGG Image Annotator" in str(error.value)


def test_two_formats_in_one_folder_are_asked_about(tmp_path, monkeypatch):
    for name in ("one", "two"):
        monkeypatch.setitem(FORMATS, name, Format(name, name, lambda files: True, lambda files: None))
    with pytest.raises(DataError, match=r"could be one or two\. Say which with data\.format=one"):
        find_format(Files(tmp_path))
    assert find_format(Files(tmp_path), "two").name == "two"


def test_a_wrong_name_offers_the_right_one(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'labelme'"):
        find_format(Files(tmp_path), "labelmee")


def test_a_format_is_registered_once():
    with pytest.raises(ValueError, match="registered twice"):
        base.register(FORMATS["via"])


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_recognise_never_raises(name, tmp_path):
    odd = [
        "",
        "[]",
        "{}",
        "null",
        "3",
        '"x"',
        "[[]]",
        "[{}]",
        "[null]",
        '{"a": {}}',
        '{"a": {"filename": 1, "regions": 2}}',
    ]
    odd += ['{"shapes": 3, "imagePath": 4}', '{"objects": [3], "size": {"height": null, "width": null}}']
    odd += ['{"instances": [null], "metadata": {"name": "x"}}', '{"type": "FeatureCollection", "features": [null]}']
    odd += ['{"annotations": 3, "categories": 4, "images": 5}', '[{"annotations": [3], "data": 1}]', "<a/>", "\xff"]
    for index, text in enumerate(odd):
        for ending in ("json", "xml", "geojson", "txt", "yaml", "png"):
            saved(tmp_path / f"{index}.{ending}", text.encode("latin1"))
    recognise = FORMATS[name].recognise
    if recognise is not None:
        start = time.monotonic()
        assert recognise(Files(tmp_path)) in (True, False)
        assert time.monotonic() - start < 20
