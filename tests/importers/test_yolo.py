from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from intarsia.errors import FileError
from intarsia.importers.base import Files
from intarsia.importers.yolo import read, recognise, without_holes
from intarsia.ops.polygons import fill_polygon
from tests.conftest import write
from tests.importers.written import assert_returns, class_maps, data_of, read_back, written

SQUARE = "0 0 0 0.5 0 0.5 0.5 0 0.5"


def export(root: Path, lines: str = SQUARE, sheet: str | None = "names: [cat, dog]\ntrain: images\n") -> Path:
    write(root / "images" / "a.png", np.zeros((6, 8, 3), np.uint8))
    (root / "labels").mkdir(parents=True, exist_ok=True)
    (root / "labels" / "a.txt").write_text(lines)
    if sheet:
        (root / "data.yaml").write_text(sheet)
    return root


def test_shares_become_pixels_and_boxes_are_counted(tmp_path: Path) -> None:
    project = read_back(export(tmp_path, f"{SQUARE}\n\n1 0.5 0.5 0.2 0.2\n1 0.5 0 1 0 1 1 .5 1\n"), "yolo")
    assert (project.format, project.classes, dict(project.left_out)) == ("yolo", ("cat", "dog"), {"boxes": 1})
    assert project.pictures[0].split == "train"
    classes = class_maps(project, uncovered=255)["a"]
    assert (classes[:3, :4] == 0).all()
    assert (classes[:, 4:] == 1).all()
    assert (classes[3:, :4] == 255).all()


def test_names_by_number_and_without_any(tmp_path: Path) -> None:
    numbered = read_back(export(tmp_path / "a", sheet="names: {1: dog, 0: cat}\nval: images\nnc: 2\n"), "yolo")
    assert numbered.classes == ("cat", "dog")
    bare = read_back(export(tmp_path / "b", f"7{SQUARE[1:]}\n3 0 0 1 0 1 1", sheet=None), "yolo")
    assert bare.classes == ("class 3", "class 7")
    (tmp_path / "b" / "classes.txt").write_text("a\nb c\nd\ne\nf\ng\nh\ni\n")
    assert read_back(tmp_path / "b", "yolo").classes[:2] == ("a", "b c")


def test_sizes_are_of_the_upright_image(tmp_path: Path) -> None:
    root = export(tmp_path)
    (root / "images" / "a.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(root / "images" / "a.jpg", exif=exif)
    assert read_back(root, "yolo").pictures[0].size == (8, 6)


@pytest.mark.parametrize("layout", ["images/{}/a.png", "{}/images/a.png"])
@pytest.mark.parametrize(
    "sheet", ["names: [cat]\ntrain: {}\nval: {}\n", "names: [cat]\ntrain: ../{}\nval: ../{}\n", None]
)
def test_splits_of_folders(tmp_path: Path, layout: str, sheet: str | None) -> None:
    for split in ("train", "valid"):
        path = tmp_path / layout.format(split)
        write(path, np.zeros((6, 8, 3), np.uint8))
        label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
        label.parent.mkdir(parents=True)
        label.write_text(SQUARE)
    if sheet:
        folders = [str(Path(layout.format(split)).parent) for split in ("train", "valid")]
        (tmp_path / "data.yaml").write_text(sheet.format(*folders))
    found = {picture.name: picture.split for picture in read_back(tmp_path, "yolo").pictures}
    assert found == {"train/a": "train", "valid/a": "val"}


def test_what_no_list_names_is_left_out_and_said(tmp_path: Path) -> None:
    root = export(tmp_path, sheet="names: [cat]\ntrain: train.txt\nval: nowhere\n")
    write(root / "images" / "b.png", np.zeros((6, 8, 3), np.uint8))
    write(root / "images" / "c.png", np.zeros((6, 8, 3), np.uint8))
    (root / "train.txt").write_text("./images/a.png\n/elsewhere/on/another/images/c.png\n")
    project = read_back(root, "yolo")
    assert [(picture.name, picture.split) for picture in project.pictures] == [("a", "train"), ("c", "train")]
    assert project.notes[0].endswith("data.yaml: val says nowhere, where no image is")
    assert "1 images are in no list of data.yaml" in project.notes[1]
    assert project.notes[2] == "1 images have no text file and so hold no object"


def test_a_label_without_image_is_not_lost(tmp_path: Path) -> None:
    root = export(tmp_path)
    (root / "labels" / "gone.txt").write_text(SQUARE)
    found = {picture.name: picture for picture in read_back(root, "yolo").pictures}
    assert found["gone"].image is None
    assert len(found["gone"].shapes) == 1


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("cat 0 0 1 0 1 1", "E_LINE"),
        ("-1 0 0 1 0 1 1", "E_LINE"),
        ("0.5 0 0 1 0 1 1", "E_LINE"),
        ("99999999999999999999 0 0 1 0 1 1", "E_LINE"),
        ("0 0 0 1", "E_LINE"),
        ("0 0 0 1 0 1 1 1", "E_LINE"),
        ("0 0 0 1 0 1 nan", "E_NUMBER"),
        ("0 0 0 1 0 1 inf", "E_NUMBER"),
        ("0 0 0 1 0 1 x", "E_NUMBER"),
        ("0 0 0 100 0 100 100", "E_NUMBER"),
        ("2 0 0 1 0 1 1", "E_CATEGORY"),
    ],
)
def test_bad_lines_are_refused(tmp_path: Path, lines: str, code: str) -> None:
    with pytest.raises(FileError, match="line 2") as caught:
        read(Files(export(tmp_path, f"{SQUARE}\n{lines}\n")))
    assert caught.value.code == code


def test_other_bad_files_are_refused(tmp_path: Path) -> None:
    gaps = export(tmp_path / "gaps", sheet="names: {0: cat, 2: dog}\ntrain: images\n")
    with pytest.raises(FileError, match="not 0, 1"):
        read(Files(gaps))
    binary = export(tmp_path / "binary")
    (binary / "labels" / "a.txt").write_bytes(b"\xff\xfe0 0 0")
    with pytest.raises(FileError, match="not UTF-8"):
        read(Files(binary))
    two = export(tmp_path / "two")
    Image.new("RGB", (8, 6)).save(two / "images" / "a.jpg")
    with pytest.raises(FileError, match="second image called a"):
        read(Files(two))
    (two / "images" / "a.jpg").write_text("no image")
    (two / "images" / "a.png").unlink()
    with pytest.raises(FileError, match="no image"):
        read(Files(two))


def test_data_yaml_alone_is_refused(tmp_path: Path) -> None:
    files = Files(export(tmp_path) / "data.yaml")
    assert recognise(files)
    with pytest.raises(FileError, match="give the folder"):
        read(files)


def test_recognise_does_not_raise_over_others(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_bytes(b"\xff 1 2 3 4")
    (tmp_path / "data.yaml").write_text("names: [")
    (tmp_path / "other.yml").write_bytes(b"\xff")
    assert not recognise(Files(tmp_path))


@settings(max_examples=200, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_pieces_without_holes_are_the_region(region: np.ndarray) -> None:
    claims = np.zeros(region.shape, int)
    for one in without_holes(region):
        claims += fill_polygon([one], region.shape)
    assert np.array_equal(claims, region)


def test_class_maps_come_back_bit_by_bit() -> None:
    assert_returns("yolo", colors=False, bare=True)


def test_splits_and_large_sizes_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = [np.repeat(np.repeat(rng.integers(0, 4, size, dtype=np.uint8), 3, 0), 7, 1) for size in ((31, 43), (7, 303))]
    objects = [
        np.repeat(np.repeat(rng.integers(0, 3, size, dtype=np.uint8), 3, 0), 7, 1) for size in ((31, 43), (7, 303))
    ]
    dataset = data_of(tmp_path / "in", maps, objects, ["x/a.b", "x/images/c"])
    project = read_back(written(dataset, tmp_path / "out", "yolo").path, "yolo")
    found = class_maps(project)
    assert {picture.name: picture.split for picture in project.pictures} == {"x/a.b": "val", "x/c": "train"}
    assert np.array_equal(found["x/a.b"], maps[0])
    assert np.array_equal(found["x/c"], maps[1])
