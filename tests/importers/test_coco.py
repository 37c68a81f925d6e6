from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as peer

from intarsia.errors import DataError, FileError
from intarsia.importers.base import FORMATS, Files, find_format
from intarsia.importers.coco import _segmentation, read
from intarsia.importers.rasterize import placed, render
from intarsia.importers.rle import decode_rle, encode_part, encode_rle, runs_of
from tests.conftest import write
from tests.importers.written import assert_returns, class_maps, data_of, read_back, written

SAMPLES = "data/annotation_samples"
BOXES = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def document(**changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": 6, "width": 8}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 9, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}],
        **changes,
    }


def annotation(segmentation: Any, category: int = 9, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "category_id": category, "segmentation": segmentation, **more}


def export(root: Path, name: str = "instances.json", **changes: Any) -> Files:
    write(root / "a.png", np.zeros((6, 8, 3), np.uint8))
    (root / name).parent.mkdir(exist_ok=True, parents=True)
    (root / name).write_text(json.dumps(document(**changes)))
    return Files(root)


# run lengths


@given(BOXES)
def test_run_lengths_are_those_of_pycocotools(inside: np.ndarray) -> None:
    theirs = peer.encode(np.asfortranarray(inside.astype(np.uint8)))
    assert encode_rle(inside) == theirs["counts"].decode()
    assert np.array_equal(decode_rle(theirs["counts"].decode(), inside.shape), inside)
    assert np.array_equal(decode_rle(runs_of(inside).tolist(), inside.shape), inside)


@given(BOXES, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_part_is_encoded_as_the_whole(part: np.ndarray, top: int, left: int, below: int, right: int) -> None:
    whole = np.pad(part, ((top, below), (left, right)))
    assert encode_part(part, (top, left), whole.shape) == encode_rle(whole)


def test_a_large_region_is_encoded_as_by_pycocotools() -> None:
    whole = np.zeros((3000, 4000), bool)
    whole[:, 7:3999] = True
    assert encode_rle(whole) == peer.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"].decode()


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([10, 10], "runs of 20 pixels together, not of 6 x 8 = 48"),
        ([-1, 49], "runs from -1 to 49"),
        ([10**30, 1], "no whole numbers"),
        ([10.5, 37.5], "no whole numbers"),
        ([[48]], "no whole numbers"),
        ("~~~", "no text of COCO's"),
        ("P", "cut off"),
        ("o" * 40 + "0", "too large"),
        ("\u20ac", "no text of COCO's"),
        ("", "runs of 0 pixels"),
        (None, "neither a list nor a text"),
    ],
)
def test_wrong_run_lengths_are_refused(tmp_path: Path, counts: Any, says: str) -> None:
    files = export(tmp_path, annotations=[annotation({"size": [6, 8], "counts": counts})])
    with pytest.raises(FileError, match=says) as caught:
        read(files)
    assert caught.value.code == "E_RLE"


# reading


def test_classes_are_in_the_order_of_ids_and_rings_unite(tmp_path: Path) -> None:
    rings = [[0, 0, 8, 0, 8, 6, 0, 6], [2, 2, 4, 2, 4, 4, 2, 4]]
    project = read(export(tmp_path, annotations=[annotation(rings)]))
    assert project.classes == ("cat", "dog")
    (picture,) = project.pictures
    assert (picture.name, picture.size, picture.split) == ("a", (6, 8), None)
    assert len({shape.object_id for shape in picture.shapes}) == 1
    made = render(picture.shapes, (6, 8), project.classes)
    assert (made.classes == 1).all()
    assert made.objects.max() == 1


def test_crowds_are_ignored_and_lie_below(tmp_path: Path) -> None:
    crowd = annotation([[0, 0, 8, 0, 8, 6, 0, 6]], iscrowd=1)
    project = read(export(tmp_path, annotations=[annotation([[0, 0, 2, 0, 2, 2, 0, 2]]), crowd]))
    made = class_maps(project)["a"]
    assert (made == 1).sum() == 4
    assert (made == 255).sum() == 44
    assert "1 regions are crowds" in project.notes[0]


def test_what_has_no_area_is_counted(tmp_path: Path) -> None:
    listed = [annotation([], bbox=[1, 1, 2, 2]), annotation(None), annotation([[1, 1, 2, 2]]), annotation([[]])]
    listed.append(annotation({"size": [6, 8], "counts": [48]}))
    project = read(export(tmp_path, annotations=listed))
    assert dict(project.left_out) == {
        "boxes": 1,
        "annotations without a region": 1,
        "polygons of less than three points": 2,
        "regions without a pixel": 1,
    }


def test_annotations_with_one_id_are_all_kept(tmp_path: Path) -> None:
    both = [annotation([[0, 0, 2, 0, 2, 2, 0, 2]]), annotation([[4, 4, 6, 4, 6, 6, 4, 6]])]
    (picture,) = read(export(tmp_path, annotations=both)).pictures
    assert render(picture.shapes, (6, 8), ("cat", "dog")).objects.max() == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"annotations": [annotation([[0, 0, 1, "nan", 2, 2]])]}, "E_NUMBER"),
        ({"annotations": [annotation([[0, 0, 1, 1e300, 2, 2]])]}, "E_NUMBER"),
        ({"annotations": [annotation([[0, 0, 1, 1, 2]])]}, "E_NUMBER"),
        ({"annotations": [annotation([{"x": 1}])]}, "E_NUMBER"),
        ({"annotations": [annotation("AAAA")]}, "E_SHAPE"),
        ({"annotations": [annotation({"size": [8, 6], "counts": [48]})]}, "E_RLE"),
        ({"annotations": [annotation({"counts": [48]})]}, "E_RLE"),
        ({"annotations": [annotation({"size": [10**6, 10**6], "counts": [48]})]}, "E_TOO_LARGE"),
        ({"annotations": [annotation([], category=4)]}, "E_CATEGORY"),
        ({"annotations": [{"image_id": 8, "category_id": 9}]}, "E_ID"),
        ({"annotations": [{"image_id": None, "category_id": 9}]}, "E_ID"),
        ({"annotations": [annotation([]), 5]}, "E_ID"),
        ({"images": [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}]}, "E_ID"),
        ({"images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "a.png"}]}, "E_TWICE"),
        ({"images": [{"id": 7}]}, "E_ID"),
        ({"images": [{"id": 7, "file_name": "a.png", "height": 1e9, "width": 1e9}]}, "E_TOO_LARGE"),
        ({"images": [{"id": 7, "file_name": "a.png", "height": "high", "width": 1}]}, "E_NUMBER"),
        ({"categories": [{"id": 9, "name": "dog"}, {"id": 9, "name": "cat"}]}, "E_CATEGORY"),
        ({"categories": [{"id": 9}]}, "E_CATEGORY"),
        ({"categories": ["dog"]}, "E_ID"),
    ],
)
def test_bad_documents_are_refused(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    files = export(tmp_path, **changes)
    assert FORMATS["coco"].recognise
    assert FORMATS["coco"].recognise(files)
    with pytest.raises(FileError) as caught:
        read(files)
    assert caught.value.code == code


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(document(annotations=[annotation([[float("nan")] * 6])])))
    with pytest.raises(DataError):
        find_format(Files(tmp_path))


def test_names_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "secret.png", np.zeros((6, 8, 3), np.uint8))
    files = export(tmp_path / "in", images=[{"id": 7, "file_name": "../secret.png", "height": 6, "width": 8}])
    (picture,) = read(files).pictures
    assert picture.image is None
    assert (picture.name, picture.missing) == ("secret", "../secret.png")


def test_splits_are_those_of_the_files_and_equal_names_are_kept_apart(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        export(tmp_path / split, "_annotations.coco.json")
    project = read(Files(tmp_path))
    found = {picture.name: (picture.split, picture.image) for picture in project.pictures}
    assert found == {
        "train/a": ("train", tmp_path / "train" / "a.png"),
        "val/a": ("val", tmp_path / "valid" / "a.png"),
    }


def test_each_subset_takes_the_images_of_its_own_folder(tmp_path: Path) -> None:
    for subset in ("train2017", "val2017"):
        write(tmp_path / "images" / subset / "a.png", np.zeros((6, 8, 3), np.uint8))
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{subset}.json").write_text(json.dumps(document()))
    project = read(Files(tmp_path))
    assert [picture.image for picture in project.pictures] == [
        tmp_path / "images" / subset / "a.png" for subset in ("train2017", "val2017")
    ]
    (alone,) = read(Files(tmp_path / "annotations" / "instances_val2017.json")).pictures
    assert (alone.image, alone.split) == (tmp_path / "images" / "val2017" / "a.png", "val")


def test_an_image_of_two_files_is_refused_but_key_points_are_passed_over(tmp_path: Path) -> None:
    export(tmp_path, "instances.json")
    export(tmp_path, "keypoints.json", annotations=[annotation([], keypoints=[1, 2, 2])])
    project = read(Files(tmp_path))
    assert len(project.pictures) == 1
    assert "key points" in project.notes[0]
    export(tmp_path, "stuff.json")
    with pytest.raises(FileError, match="give one of the files alone"):
        read(Files(tmp_path))


def test_a_broken_file_beside_is_told(tmp_path: Path) -> None:
    (tmp_path / "instances_val.json").write_text("{")
    assert "passed over" in read(export(tmp_path)).notes[0]


def test_a_results_file_is_refused(shared: Callable[[str], Path]) -> None:
    files = Files(shared(f"{SAMPLES}/coco/results"))
    with pytest.raises(FileError, match="without `images`: a COCO results file"):
        find_format(files).read(files)  # type: ignore[misc]


# writing


@pytest.mark.parametrize("name", ["coco", "coco_panoptic"])
def test_class_maps_come_back_bit_by_bit(name: str) -> None:
    assert_returns(name)


@pytest.mark.parametrize("name", ["coco", "coco_panoptic"])
def test_objects_and_splits_come_back(tmp_path: Path, name: str) -> None:
    classes = np.array([[1, 1, 1, 0], [2, 2, 255, 0]], np.uint8)
    objects = np.array([[1, 2, 2, 0], [2, 2, 0, 0]], np.uint8)
    names = ["x/a.b", "y/a.b"]
    dataset = data_of(tmp_path / "in", [classes, classes.T.copy()], [objects, objects.T.copy()], names)
    project = read_back(written(dataset, tmp_path / "out", name).path, name)
    assert {picture.name: picture.split for picture in project.pictures} == {"x/a.b": "val", "y/a.b": "train"}
    assert [picture.image for picture in project.pictures] == [
        tmp_path / "out" / "images" / f"{picture.name}.png" for picture in project.pictures
    ]
    for picture in project.pictures:
        made = render(picture.shapes, picture.size, project.classes)  # type: ignore[arg-type]
        truth = classes if picture.name == "x/a.b" else classes.T
        assert np.array_equal(made.classes, truth)
        assert made.objects.max() == 4  # background, object 1, object 2 of cell, object 2 of wall


def test_pycocotools_reads_what_is_written(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    classes = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (9, 7))
    written(data_of(tmp_path / "in", [classes]), tmp_path / "out", "coco")
    theirs = COCO(tmp_path / "out" / "annotations" / "instances_train.json")
    for each in theirs.anns.values():
        value = 255 if each["iscrowd"] else each["category_id"] - 1
        assert np.array_equal(theirs.annToMask(each).astype(bool), classes == value)
        assert each["area"] == (classes == value).sum()


# other people's files


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("coco/coco2017_20", "instances.json"),
        ("coco/coco2017_20", "rle.json"),
        ("coco/coco2017_4", "instances_test.json"),
        ("labelme/instance_segmentation/data_dataset_coco", "annotations.json"),
        ("label_studio/test_import_coco", "coco_import_input.json"),
    ],
)
def test_regions_are_those_of_pycocotools(shared: Callable[[str], Path], folder: str, name: str) -> None:
    path = shared(f"{SAMPLES}/{folder}/{name}")
    data = json.loads(path.read_text())
    project = read(Files(path))
    names = {each["id"]: each["name"] for each in data["categories"]}
    assert project.classes == tuple(names[key] for key in sorted(names))
    images = list(data["images"])
    assert len(project.pictures) == len(images)
    missing = "label_studio" in folder
    theirs, ours = 0, 0
    for image, picture in zip(images, project.pictures, strict=True):
        assert (picture.image is None) == missing
        assert picture.size is not None
        of_position = [(i, each) for i, each in enumerate(data["annotations"]) if each["image_id"] == image["id"]]
        for position, each in of_position:
            region = each["segmentation"]
            runs = peer.frPyObjects(region, *picture.size)
            wanted = peer.decode(peer.merge(runs) if isinstance(runs, list) else runs).astype(bool)
            mine = [shape for shape in picture.shapes if shape.object_id == f"{path.stem}/{position}"]
            assert {(shape.label, shape.ignored) for shape in mine} == {
                (names[each["category_id"]], each["iscrowd"] == 1)
            }
            assert np.array_equal(np.any([placed(shape, picture.size, "coco") for shape in mine], axis=0), wanted)
            theirs += int(wanted.sum())
            ours += int((np.any([placed(shape, picture.size) for shape in mine], axis=0) != wanted).sum())
    assert (
        ours < 0.01 * theirs
    )  # the edge alone: our rule is by pixel centres, COCO's by an outline drawn at 5 times the size


def test_roboflow_boxes_are_counted(shared: Callable[[str], Path]) -> None:
    project = read(Files(shared(f"{SAMPLES}/datumaro_assets/roboflow_dataset/coco")))
    assert {picture.name: picture.split for picture in project.pictures} == {
        "train_001": "train",
        "train_002": "train",
        "val_001": "val",
    }
    assert all(picture.image for picture in project.pictures)
    assert project.left_out["boxes"] == 4


@given(BOXES)
def test_polygons_that_are_written_are_the_same_pixels_to_pycocotools(inside):
    found = _segmentation(inside, (0, 0), inside.shape, crowd=False)
    if isinstance(found, list):
        united = np.zeros(inside.shape, bool)
        for one in found:
            united |= peer.decode(peer.frPyObjects([one], *inside.shape))[..., 0].astype(bool)
        assert np.array_equal(united, inside)
    else:
        assert np.array_equal(decode_rle(found["counts"], inside.shape), inside)
