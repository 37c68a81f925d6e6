from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intarsia.errors import FileError
from intarsia.images.files import read_mask
from intarsia.importers.base import Files, Project
from intarsia.importers.coco_panoptic import read as read_panoptic
from intarsia.importers.rasterize import render
from tests.conftest import write
from tests.importers.test_coco import SAMPLES, document
from tests.importers.written import class_maps, read_back


def test_panoptic_segments_are_those_of_the_pngs(shared: Callable[[str], Path]) -> None:
    folder = shared(f"{SAMPLES}/coco/coco2017_20")
    data = json.loads((folder / "panoptic.json").read_text())
    project = read_panoptic(Files(folder))
    assert len(project.pictures) == 20
    names = {each["id"]: each["name"] for each in data["categories"]}
    assert len(project.classes) == 133
    found = class_maps(project, uncovered=255)
    for each in data["annotations"]:
        numbers = read_mask(folder / "panoptic_masks" / each["file_name"]).pixels.astype(np.uint32) @ (1, 256, 65536)
        wanted = np.full(numbers.shape, 255, np.uint8)
        for segment in each["segments_info"]:
            assert (numbers == segment["id"]).sum() == segment["area"]
            if not segment["iscrowd"]:
                wanted[numbers == segment["id"]] = project.classes.index(names[segment["category_id"]])
        assert np.array_equal(found[Path(each["file_name"]).stem], wanted)


def test_datumaros_panoptic_files(shared: Callable[[str], Path]) -> None:
    folder = shared(f"{SAMPLES}/datumaro_assets/coco_dataset/coco_panoptic")
    (picture,) = read_panoptic(Files(folder / "annotations" / "panoptic_val.json")).pictures
    assert picture.image == folder / "images" / "val" / "b.jpg"
    assert picture.split == "val"
    made = render(picture.shapes, (10, 5), ("a", "b")).classes
    assert set(np.unique(made)) == {0, 255}
    with pytest.raises(FileError, match=r"is 5 x 5, image 5 of panoptic_train.json is 5 x 10"):
        read_panoptic(Files(folder))


def panoptic(root: Path, numbers: np.ndarray, segments: list[dict[str, Any]]) -> Project:
    colours = np.stack((numbers & 255, numbers >> 8 & 255, numbers >> 16), axis=-1).astype(np.uint8)
    write(root / "panoptic" / "a.png", colours)
    listed = [{"image_id": 7, "file_name": "a.png", "segments_info": segments}]
    (root / "panoptic.json").write_text(json.dumps(document(annotations=listed)))
    write(root / "images" / "a.png", np.zeros((6, 8, 3), np.uint8))
    return read_back(root, "coco_panoptic")


def test_panoptic_numbers_void_and_crowds(tmp_path: Path) -> None:
    numbers = np.zeros((6, 8), np.int64)
    numbers[1:3, 1:3], numbers[4], numbers[5] = 70_000, 65_536 * 200 + 7, 300
    listed = [
        {"id": int(key), "category_id": 9, "iscrowd": int(key == 300)} for key in (70_000, 65_536 * 200 + 7, 300, 5)
    ]
    project = panoptic(tmp_path, numbers, listed)
    assert project.format == "coco_panoptic"
    assert project.left_out == {"segments without a pixel": 1}
    (picture,) = project.pictures
    assert picture.image == tmp_path / "images" / "a.png"
    wanted = np.where((numbers == 0) | (numbers == 300), 255, 1)
    assert np.array_equal(class_maps(project, uncovered=255)["a"], wanted)


def test_bad_panoptic_files_are_refused(tmp_path: Path) -> None:
    numbers = np.full((6, 8), 5)
    one = {"id": 5, "category_id": 9}
    for number, (segments, code) in enumerate(
        [([], "E_SEGMENT"), ([one, one], "E_ID"), ([{**one, "category_id": 1}], "E_CATEGORY"), ([7], "E_ID")]
    ):
        with pytest.raises(FileError) as caught:
            panoptic(tmp_path / str(number), numbers, segments)
        assert caught.value.code == code
    panoptic(tmp_path / "b", numbers, [one])
    write(tmp_path / "b" / "panoptic" / "a.png", np.full((6, 8), 5, np.uint8))
    with pytest.raises(FileError, match="is no RGB image"):
        read_panoptic(Files(tmp_path / "b"))
    (tmp_path / "b" / "panoptic" / "a.png").unlink()
    (tmp_path / "b" / "images" / "a.png").unlink()
    with pytest.raises(FileError, match="which is not there"):
        read_panoptic(Files(tmp_path / "b"))
