from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from intarsia.data.published.voc import voc_colour
from intarsia.errors import ConfigError, FileError
from intarsia.images.files import read_mask
from intarsia.importers.base import Files
from intarsia.importers.rasterize import render
from intarsia.importers.voc import read
from tests.conftest import write
from tests.importers.written import assert_returns, class_maps, data_of, read_back, written

SAMPLES = "data/annotation_samples"
CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad: main:50,50,50::\ncar:255,0,0::\n"


def tree(root: Path, mask: np.ndarray, labels: str = "", name: str = "labelmap.txt") -> Path:
    write(root / "SegmentationClass" / "a.png", mask)
    write(root / "JPEGImages" / "a.png", np.zeros((*mask.shape[:2], 3), np.uint8))
    if labels:
        (root / name).write_text(labels)
    return root


def painted(numbers: np.ndarray, colors: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(colors, np.uint8)[numbers]


@pytest.mark.parametrize("kind", ["instance_segmentation", "semantic_segmentation"])
def test_labelmes_export(shared: Callable[[str], Path], kind: str) -> None:
    folder = shared(f"{SAMPLES}/labelme/{kind}/data_dataset_voc")
    project = read_back(folder, "voc")
    assert project.format == "voc"
    assert len(project.classes) == 21
    assert (project.classes[0], project.classes[16]) == ("_background_", "potted plant")
    found = class_maps(project)
    assert set(found) == {"2011_000003", "2011_000006", "2011_000025"}
    for picture in project.pictures:
        image = folder / "JPEGImages" / f"{picture.name}.jpg"
        assert picture.image == (image if kind == "semantic_segmentation" else None)  # the other sample has no images
        truth = read_mask(folder / "SegmentationClass" / f"{picture.name}.png").pixels
        assert np.array_equal(found[picture.name], truth)
        if kind == "instance_segmentation":
            drawn = read_mask(folder / "SegmentationObject" / f"{picture.name}.png").pixels
            assert picture.size is not None
            objects = render(picture.shapes, picture.size, project.classes).objects
            pairs = {(int(a), int(b)) for a, b in zip(drawn.ravel(), objects.ravel(), strict=True) if a not in (0, 255)}
            assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > 1


def test_labelmes_video_export(shared: Callable[[str], Path]) -> None:
    project = read(Files(shared(f"{SAMPLES}/labelme/video_annotation")))
    assert [picture.image and picture.image.name for picture in project.pictures] == ["00000100.jpg", "00000104.jpg"]


def test_datumaros_tree_in_vocs_own_colours(shared: Callable[[str], Path]) -> None:
    project = read_back(shared(f"{SAMPLES}/datumaro_assets/voc_dataset/voc_dataset1"), "voc")
    (picture,) = project.pictures
    assert (picture.name, picture.split) == ("2007_000001", "train")
    assert {shape.label for shape in picture.shapes} == {"bicycle"}
    assert "1 images of the lists have no mask, first 2007_000002" in project.notes[0]


def test_cvats_colours(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2], [3, 1, 0]])
    mask = painted(numbers, [(0, 0, 0), (50, 50, 50), (255, 0, 0), (224, 224, 192)])
    project = read_back(tree(tmp_path, mask, CVAT), "voc")
    assert project.classes == ("background", "road: main", "car")
    assert project.colors["car"] == (255, 0, 0)
    assert np.array_equal(class_maps(project)["a"], [[0, 1, 2], [255, 1, 0]])


def test_black_that_is_no_class_is_unlabelled(tmp_path: Path) -> None:
    mask = painted(np.array([[0, 1], [2, 2]]), [(0, 0, 0), (50, 50, 50), (224, 224, 192)])
    project = read(Files(tree(tmp_path, mask, "road:50,50,50::\nignored:224,224,192::\n")))
    assert project.classes == ("road",)
    (picture,) = project.pictures
    made = render(picture.shapes, (2, 2), project.classes)
    assert np.array_equal(made.uncovered, [[True, False], [False, False]])
    assert np.array_equal(made.classes, [[255, 0], [255, 255]])


def test_indices_follow_the_list(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 255]], np.uint8)
    project = read(Files(tree(tmp_path, mask, "__ignore__\n_background_\npotted plant\n", "labels.txt")))
    assert project.classes == ("_background_", "potted plant")
    assert np.array_equal(class_maps(project)["a"], mask)
    assert project.colors["potted plant"] == voc_colour(1)


def test_lists_say_the_split(tmp_path: Path) -> None:
    root = tree(tmp_path, np.zeros((2, 2), np.uint8), "thing\n", "class_names.txt")
    for name in ("b", "c d", "e"):
        write(root / "SegmentationClass" / f"{name}.png", np.zeros((2, 2), np.uint8))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text('a\n"c d" 1\n')
    (lists / "val.txt").write_text("b\na\n")
    (lists / "trainval.txt").write_text("a\nb\ne\n")
    project = read(Files(root))
    assert {picture.name: picture.split for picture in project.pictures} == {"a": "train", "b": "val", "c d": "train"}
    assert any("1 masks are in no list, first e" in note for note in project.notes)
    assert any("has 1 names in several lists" in note for note in project.notes)


def test_two_trees_are_told_apart(tmp_path: Path) -> None:
    for part in ("one", "two"):
        tree(tmp_path / part, np.zeros((2, 2), np.uint8), "thing\n", "class_names.txt")
    assert [picture.name for picture in read(Files(tmp_path)).pictures] == ["one/a", "two/a"]


@pytest.mark.parametrize(
    ("mask", "labels", "code"),
    [
        (np.full((2, 2), 3, np.uint8), CVAT, "E_CLASS"),
        (np.full((2, 2, 3), 9, np.uint8), CVAT, "E_CLASS"),
        (np.zeros((2, 2), np.uint8), "road:50,50\n", "E_LABELS"),
        (np.zeros((2, 2), np.uint8), "road:50,50,256::\n", "E_LABELS"),
        (np.zeros((2, 2), np.uint8), "road:1,1,1::\ncar:1,1,1::\n", "E_LABELS"),
        (np.zeros((2, 2), np.uint8), "road:1,1,1::\nroad:1,1,2::\n", "E_LABELS"),
        (np.zeros((2, 2), np.uint8), "#\n", "E_LABELS"),
    ],
)
def test_bad_trees_are_refused(tmp_path: Path, mask: np.ndarray, labels: str, code: str) -> None:
    with pytest.raises(FileError) as caught:
        read(Files(tree(tmp_path, mask, labels)))
    assert caught.value.code == code


def test_objects_of_another_size_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, np.zeros((2, 2), np.uint8), "thing\n", "class_names.txt")
    write(root / "SegmentationObject" / "a.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(FileError, match="its mask is 2 x 2"):
        read(Files(root))


def test_class_maps_come_back_bit_by_bit() -> None:
    assert_returns("voc")


def test_splits_come_back_and_colours_are_those_of_the_table(tmp_path: Path) -> None:
    classes = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)
    dataset = data_of(tmp_path / "in", [classes, classes[::-1].copy()], names=["x/a.b", "c"])
    out = written(dataset, tmp_path / "out", "voc").path
    assert {picture.name: picture.split for picture in read_back(out, "voc").pictures} == {"x/a.b": "val", "c": "train"}
    shown = np.asarray(Image.open(out / "SegmentationClass" / "x" / "a.b.png").convert("RGB"))
    assert np.array_equal(shown, painted(np.minimum(classes, 4), [*dataset.table.colors, (224, 224, 192)]))


def test_names_that_are_no_line_are_refused(tmp_path: Path) -> None:
    from intarsia.classes import ClassTable
    from intarsia.importers.voc import write as write_voc
    from intarsia.progress import Silent

    dataset = data_of(tmp_path / "in", [np.array([[0, 1]], np.uint8)])
    object.__setattr__(dataset, "table", ClassTable(names=("a\nb", "c")))
    with pytest.raises(ConfigError, match="cannot stand in a list"):
        write_voc(dataset, tmp_path / "out", Silent())
