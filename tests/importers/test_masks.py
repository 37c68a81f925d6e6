from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from intarsia.data.folder import FolderConfig
from intarsia.errors import DataError, FileError
from intarsia.importers.base import Files
from intarsia.importers.masks import read, recognise
from intarsia.importers.rasterize import render
from intarsia.progress import Silent
from tests.conftest import write
from tests.importers.written import CLASS_MAPS, NAMES, class_maps, data_of, read_back, written

CELL = np.array([[1, 1, 0], [0, 0, 0]], np.uint8)
WALL = np.array([[0, 1, 1], [0, 0, 0]], np.uint8)
LAYOUTS = {
    "a folder for each image": "{image}/{label}.png",
    "the same below masks": "masks/{image}/{label}.png",
    "a folder for each class": "{label}/{image}.png",
    "classes below masks": "masks/{label}/{image}.tif",
    "in the name": "{image}_{label}.png",
    "in the name, below masks": "masks/{image}-{label}.bmp",
}


def export(root: Path, layout: str, images: str = "images/{}.png") -> Path:
    for image in ("a", "a_1", "empty"):
        write(root / images.format(image), np.zeros((2, 3, 3), np.uint8))
        if image != "empty":
            write(root / layout.format(image=image, label="cell_dark"), CELL * 255)
            write(root / layout.format(image=image, label="wall"), WALL)
    return root


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_of_a_mask_for_each_class(tmp_path: Path, layout: str) -> None:
    project = read_back(export(tmp_path, layout), "masks_per_class")
    assert (project.format, project.classes) == ("masks_per_class", ("cell_dark", "wall"))
    assert [picture.name for picture in project.pictures] == ["a", "a_1"]
    assert all(picture.image for picture in project.pictures)
    assert project.notes == ("1 images have no mask, first empty; left out",)
    made = render(project.pictures[0].shapes, (2, 3), project.classes)
    assert np.array_equal(made.classes, [[0, 1, 1], [255, 255, 255]])
    assert np.array_equal(made.uncovered, [[False, False, False], [True, True, True]])
    assert made.overlapped == 1


def test_images_may_lie_beside_the_folders(tmp_path: Path) -> None:
    assert len(read_back(export(tmp_path, "{image}/{label}.png", "{}.jpg"), "masks_per_class").pictures) == 2


def test_folders_of_class_maps_and_other_tools_are_not_recognised(tmp_path: Path) -> None:
    for index, layout in enumerate(("masks/{}.png", "labels/{}.png", "masks/{}_mask.png", "annotations/x/{}_gt.png")):
        root = tmp_path / str(index)
        write(root / "images" / "a.png", np.zeros((2, 3, 3), np.uint8))
        write(root / layout.format("a"), CELL)
        assert not recognise(Files(root))
    other = export(tmp_path / "other", "{label}/{image}.png")
    (other / "project.json").write_text("{}")
    assert not recognise(Files(other))
    several = export(tmp_path / "several", "{label}/{image}.png")
    write(several / "wall" / "a.png", WALL * 7)
    assert not recognise(Files(several))
    (several / "wall" / "a.png").write_text("no image")
    assert not recognise(Files(several))
    with pytest.raises(DataError, match="has no masks by class"):
        read(Files(tmp_path / "0"))


def test_bad_masks_are_refused(tmp_path: Path) -> None:
    root = export(tmp_path, "{label}/{image}.png")
    write(root / "wall" / "a.png", WALL * 7)
    with pytest.raises(FileError, match="other values than 0 and 1") as caught:
        read(Files(root))
    assert caught.value.path.name == "a.png"
    write(root / "wall" / "a.png", WALL.T.copy())
    with pytest.raises(FileError, match="is 3 x 2, another mask of its image"):
        read(Files(root))
    write(root / "wall" / "a.png", np.stack((WALL, WALL, CELL), axis=-1) * 255)
    with pytest.raises(FileError, match="other values"):
        read(Files(root))
    write(root / "wall" / "a.png", np.stack((WALL, WALL, WALL), axis=-1) * 255)
    assert (class_maps(read(Files(root)))["a"] == 1).sum() == 2


@settings(max_examples=30, deadline=None)
@given(CLASS_MAPS)
def test_class_maps_come_back_bit_by_bit(maps: list[np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = data_of(Path(folder) / "in", maps)
        out = written(dataset, Path(folder) / "out", "masks").path
        again = FolderConfig(path=str(out)).open(Silent())
        assert (again.table.names, again.table.colors) == (NAMES, dataset.table.colors)
        items = {item.name: item for split in again.splits.values() for item in split}
        for index, classes in enumerate(maps):
            assert np.array_equal(again.read_mask(items[f"b{index}"]), classes)
        assert not recognise(Files(out))


def test_objects_splits_and_names_come_back(tmp_path: Path) -> None:
    classes = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)
    objects = np.array([[0, 1, 2], [3, 0, 9]], np.uint8)
    maps = [classes, classes[::-1].copy(), classes[:, ::-1].copy()]
    dataset = data_of(tmp_path / "in", maps, [objects] * 3, ["x/a.b", "c", "d"])
    again = FolderConfig(path=str(written(dataset, tmp_path / "out", "masks").path)).open(Silent())
    for split in ("train", "val"):
        assert [item.name for item in again.items(split)] == [item.name for item in dataset.items(split)]
    (item,) = again.items("val")
    assert np.array_equal(again.read_instances(item), objects)


@pytest.mark.parametrize("torn", [False, True])
def test_names_that_begin_as_a_split_keep_their_own_split(tmp_path: Path, torn: bool) -> None:
    classes = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)
    maps = [classes, classes[::-1].copy(), classes[:, ::-1].copy()]
    dataset = data_of(tmp_path / "in", maps)
    renamed = {
        split: tuple(replace(item, name=f"{'train' if torn else split}/{item.name}") for item in items)
        for split, items in dataset.splits.items()
    }
    out = written(replace(dataset, splits=renamed), tmp_path / "out", "masks").path
    again = FolderConfig(path=str(out)).open(Silent())
    assert {split: [item.name for item in items] for split, items in again.splits.items()} == {
        "train": ["all/train/b1", "all/train/b2"] if torn else ["train/b1", "train/b2"],
        "val": ["all/train/b0"] if torn else ["val/b0"],
        "test": [],
    }
