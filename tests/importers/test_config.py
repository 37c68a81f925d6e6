"""Exports as data sets, and from one form to another by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from intarsia.cli.data_convert_command import KINDS, SHARDS
from intarsia.data.folder import FolderConfig
from intarsia.errors import ConfigError, DataError
from intarsia.evaluation.evaluate import evaluate
from intarsia.evaluation.experiment import train
from intarsia.importers import base
from intarsia.importers.base import FORMATS, Files, find_format, formats_of
from intarsia.importers.config import AnnotationsConfig
from intarsia.importers.labelme import read as read_labelme
from intarsia.progress import Silent
from intarsia.recipes.recipe import load_recipe
from tests.conftest import TINY, write

SQUARE, INNER = [[2, 3], [12, 3], [12, 13], [2, 13]], [[4, 5], [8, 5], [8, 9], [4, 9]]


def shape(label, points, **more):
    return {"label": label, "points": points, "shape_type": "polygon", "group_id": None, **more}


def labelled(folder, count=4, shapes=None, size=(20, 30)):
    """labelme files with a square of a cell, and a nucleus in it."""
    for index in range(count):
        write(folder / f"i{index}.png", np.full((*size, 3), 20 * index, np.uint8))
        document = {
            "version": "5.0.0",
            "imagePath": f"i{index}.png",
            "imageData": None,
            "imageHeight": size[0],
            "imageWidth": size[1],
            "shapes": shapes or [shape("cell", SQUARE), shape("nucleus", INNER)],
        }
        (folder / f"i{index}.json").write_text(json.dumps(document))
    return folder


def opened(folder, **settings):
    return AnnotationsConfig(path=str(folder), **settings).open(Silent())


def first(data):
    return next(item for items in data.splits.values() for item in items)


def test_what_no_shape_covers_must_be_said(tmp_path):
    root = labelled(tmp_path)
    with pytest.raises(
        DataError, match=r"in 4 of 4 images there are pixels that no shape covers.*data.uncovered=background or"
    ):
        opened(root)
    data = opened(root, uncovered="background")
    assert data.table.names == ("background", "cell", "nucleus")
    mask = data.read_mask(first(data))
    expected = np.zeros((20, 30), np.uint8)
    expected[3:13, 2:12] = 1
    expected[5:9, 4:8] = 2
    assert np.array_equal(mask, expected)
    ignored = opened(root, uncovered="ignore")
    assert ignored.table.names == ("cell", "nucleus")
    assert np.array_equal(ignored.read_mask(first(ignored)), np.where(expected == 0, 255, expected - 1))


def test_a_class_called_background_is_what_no_shape_covers(tmp_path):
    data = opened(
        labelled(tmp_path, shapes=[shape("cell", SQUARE), shape("_background_", INNER)]), uncovered="background"
    )
    assert data.table.names == ("cell", "_background_")
    assert set(np.unique(data.read_mask(first(data)))) == {0, 1}


def test_orders_of_overlap_and_what_they_cost(tmp_path):
    root = labelled(tmp_path, shapes=[shape("nucleus", INNER), shape("cell", SQUARE)])
    data = opened(root, uncovered="background")
    assert not (data.read_mask(first(data)) == data.table.names.index("nucleus")).any()
    assert f"{4 * 16} pixels lie under shapes of different classes; data.order says which is on top" in data.notes
    assert "4 objects are wholly under others and vanish; look at data.order" in data.notes
    smaller = opened(root, uncovered="background", order="area")
    assert (smaller.read_mask(first(smaller)) == smaller.table.names.index("nucleus")).sum() == 16


def test_images_of_no_split_beside_others_are_for_training(tmp_path):
    def export(name, ids):
        for k in ids:
            write(tmp_path / f"{k}.png", np.full((4, 5, 3), k, np.uint8))
        document = {
            "images": [{"id": k, "file_name": f"{k}.png", "height": 4, "width": 5} for k in ids],
            "categories": [{"id": 7, "name": "herd"}],
            "annotations": [
                {"id": k, "image_id": k, "category_id": 7, "segmentation": [[0, 0, 5, 0, 5, 4, 0, 4]], "iscrowd": 0}
                for k in ids
            ],
        }
        (tmp_path / name).write_text(json.dumps(document))

    export("instances_val.json", [1, 2])
    data = opened(tmp_path)
    assert "all images are of its split 'val', which is passed over" in data.notes
    assert data.splits["train"]
    export("extra.json", [3, 4, 5])
    data = opened(tmp_path)
    assert "3 images are of no split of the export; they are taken for training" in data.notes
    assert {split: sorted(item.name for item in items) for split, items in data.splits.items() if items} == {
        "train": ["3", "4", "5"],
        "val": ["1", "2"],
    }


def test_objects_are_kept(tmp_path):
    parts = [shape("cell", SQUARE, group_id=1), shape("cell", [[20, 2], [24, 2], [24, 6], [20, 6]], group_id=1)]
    data = opened(labelled(tmp_path, shapes=[*parts, shape("nucleus", INNER)]), uncovered="background")
    assert len(np.unique(data.read_instances(first(data)))) == 3  # nothing, a cell of two parts, a nucleus


def test_fill_rules_of_the_tools(tmp_path):
    root = labelled(tmp_path, shapes=[shape("cell", SQUARE)])
    areas = {}
    for rule in ("centre", "labelme"):
        data = opened(root, uncovered="background", fill=rule)
        areas[rule] = int((data.read_mask(first(data)) == 1).sum())
        assert any("the rule of labelme" in note for note in data.notes) == (rule == "labelme")
    assert areas == {"centre": 100, "labelme": 121}


def test_images_elsewhere_missing_or_within(tmp_path):
    root = labelled(tmp_path / "set")
    (tmp_path / "pictures").mkdir()
    (root / "i1.png").rename(tmp_path / "pictures" / "i1.png")
    with pytest.raises(DataError, match=r"(?s)annotated images that are not there.*i1.png.*data.missing=skip"):
        opened(root, uncovered="background")
    assert (
        "1 annotated images are not there and left out, first i1.png"
        in opened(root, uncovered="ignore", missing="skip").notes
    )
    data = opened(root, uncovered="background", images=str(tmp_path / "pictures"))
    assert sum(map(len, data.splits.values())) == 4


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_annotation_of_the_stored_pixels_is_turned_with_its_image(tmp_path, orientation):
    root = labelled(tmp_path, count=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / "i0.png", exif=exif)
    data = opened(root, uncovered="background")
    items = {item.name: item for items in data.splits.values() for item in items}
    stored = Image.fromarray(data.read_mask(items["i1"]))
    stored.getexif()[0x0112] = orientation
    from PIL import ImageOps

    assert np.array_equal(data.read_mask(items["i0"]), np.asarray(ImageOps.exif_transpose(stored)))


def test_an_annotation_of_another_image_is_refused(tmp_path):
    root = labelled(tmp_path, count=2)
    write(root / "i0.png", np.zeros((21, 30, 3), np.uint8))
    with pytest.raises(DataError, match="is 21 x 30, but its annotation is of an image of 20 x 30"):
        opened(root, uncovered="background")


def test_a_changed_annotation_makes_new_class_maps(tmp_path):
    root = labelled(tmp_path, count=2)
    before = opened(root, uncovered="background")
    labelled(root, count=2, shapes=[shape("cell", SQUARE)])
    after = opened(root, uncovered="background")
    assert before.table.count == 3
    assert after.table.count == 2


def test_commands_take_an_export_by_its_folder_alone(tmp_path):
    root = labelled(tmp_path)
    assert isinstance(load_recipe(str(root)).data, AnnotationsConfig)
    with pytest.raises(ConfigError, match=r"data.uncoverd.*Did you mean 'data.uncovered'"):
        load_recipe(str(root), ["data.uncoverd=ignore"])
    steps = {"steps": 1, "batch": 2, "validations": 1, "memory_format": "contiguous", "workers": 0}
    run = train(
        str(root), out=tmp_path / "run", progress=Silent(), model=TINY, train=steps,
        data={"uncovered": "background", "size": (16, 16)}, evaluate={"after_training": False},
    )  # fmt: skip
    assert len(evaluate(run, "val", progress=Silent(), report=False).images) == 1


def test_of_many_files_a_few_tell_the_format(tmp_path, monkeypatch):
    root = labelled(tmp_path / "set", count=6)
    parsed = []
    whole = base.read_json
    monkeypatch.setattr(base, "LOOKED_AT", 3)
    monkeypatch.setattr(base, "read_json", lambda path: parsed.append(path) or whole(path))
    assert [each.name for each in formats_of(Files(root))] == ["labelme"]
    assert len(set(parsed)) == 3
    assert len(read_labelme(Files(root)).pictures) == 6
    parsed.clear()
    assert load_recipe(str(root), ["data=annotations"]).data.path == str(root)
    assert parsed == []  # where the kind is said, nothing is looked into


def test_a_folder_that_nobody_knows_is_refused_with_what_was_tried(tmp_path):
    (tmp_path / "x.json").write_text('{"what": "is this"}')
    for settings in ([], ["data.uncovered=ignore"]):
        with pytest.raises(DataError) as error:
            load_recipe(str(tmp_path), settings)
        assert "has no folders images/ and masks/" in str(error.value)
        for name, each in FORMATS.items():
            assert each.read is None or name in str(error.value)


def test_every_format_that_is_written_can_be_named():
    assert {*KINDS} == {name for name, each in FORMATS.items() if each.write} | {*SHARDS}


def test_convert_says_whether_something_is_lost(tmp_path, intarsia):
    root = labelled(tmp_path / "set")
    code, text, _ = intarsia("data", "convert", root, tmp_path / "coco", "--to", "coco", "data.uncovered=background")
    assert code == 0
    assert "4 images as COCO instances JSON\n" in text
    assert "polygons filled by pixel centres, even-odd" in text
    assert text.splitlines()[-1].startswith("lossless polygons along pixel edges")
    kept = json.loads((tmp_path / "coco" / "conversion.json").read_text())
    assert kept["lossless"]
    assert any("filled by pixel centres" in note for note in kept["notes"])
    assert load_recipe(str(tmp_path / "coco")).data.open(Silent()).table.names == ("background", "cell", "nucleus")
    assert intarsia("data", "convert", root, tmp_path / "coco", "--to", "coco", "data.uncovered=background")[0] == 2
    code, text, _ = intarsia("data", "convert", root, tmp_path / "yolo", "--to", "yolo", "data.uncovered=ignore")
    assert "LOSSY    2000 ignored pixels stay unlabelled" in text


@pytest.mark.parametrize(
    ("sample", "count"), [("label_studio/test_export_coco", 1), ("label_studio/test_import_coco", 2)]
)
def test_real_exports_without_their_images_take_them_from_elsewhere(shared, sample, count, tmp_path):
    """Stand-ins of the size that the export names."""
    root = shared("data/annotation_samples") / sample
    files = Files(root)
    format_ = find_format(files)
    sizes = {picture.missing: picture.size for picture in format_.read(files).pictures}
    for name, size in sizes.items():
        write(tmp_path / "images" / Path(name).name, np.zeros((*size, 3), np.uint8))
    data = opened(root, images=str(tmp_path / "images"), uncovered="background", missing="skip")
    items = {item.name: item for items in data.splits.values() for item in items}
    assert len(items) == count
    assert sum(int((data.read_mask(item) > 0).sum()) for item in items.values()) > 0


def test_crowds_are_ignored_or_of_their_class(tmp_path):
    write(tmp_path / "a.png", np.zeros((4, 5, 3), np.uint8))
    whole = {"size": [4, 5], "counts": [0, 20]}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 5}],
        "categories": [{"id": 7, "name": "herd"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 1, "segmentation": whole}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    ignored, labelled_ = opened(tmp_path), opened(tmp_path, crowds="label")
    assert (ignored.read_mask(first(ignored)) == 255).all()
    assert (labelled_.read_mask(first(labelled_)) == 0).all()
    assert any("data.crowds=label" in note for note in ignored.notes)


SAMPLES = {
    "labelme/semantic_segmentation/data_annotated": 3,
    "labelme/instance_segmentation/data_annotated": 3,
    "labelme/video_annotation/data_annotated": 2,
    "labelme/primitives": 1,
    "labelme/embedded_image": 1,
    "labelme/semantic_segmentation/data_dataset_voc": 3,
    "labelme/instance_segmentation/data_dataset_coco": 3,
    "coco/coco2017_20/instances.json": 10,
    "coco/coco2017_20/rle.json": 10,
    "coco/coco2017_20/panoptic.json": 20,
    "coco/coco2017_4": 4,
    "cvat/datumaro_for_images/export_project": 6,
    "cvat/datumaro_for_images/export_task": 2,
    "cvat/datumaro_for_video": 3,
    "via/kudzu_val": 16,
    "superannotate/pixel_project": 3,
    "superannotate/pixel_with_holes": 2,
    "datumaro_assets/voc_dataset/voc_dataset1": 1,
    "datumaro_assets/labelme_dataset": 1,
}
"""Exports of ../shared/data/annotation_samples and their images."""


@pytest.mark.parametrize("sample", SAMPLES)
def test_real_exports_train_evaluate_and_convert(shared, sample, tmp_path, intarsia):
    root: Path = shared("data/annotation_samples") / sample
    steps = {"steps": 1, "batch": 2, "validations": 1, "memory_format": "contiguous", "workers": 0}
    run = train(
        str(root), out=tmp_path / "run", progress=Silent(), model=TINY, train=steps,
        data={"uncovered": "background", "size": (32, 32), "scale": 0.1}, evaluate={"after_training": False},
    )  # fmt: skip
    data = (
        run.recipe.data.open(Silent())
        if hasattr(run, "recipe")
        else load_recipe(str(root), ["data.uncovered=background"]).data.open(Silent())
    )
    names = {item.name for items in data.splits.values() for item in items}
    assert len(names) == SAMPLES[sample]
    assert data.class_pixels["train"].sum() > 0
    code, text, errors = intarsia(
        "data", "convert", root, tmp_path / "masks", "--to", "masks", "data.uncovered=background"
    )
    assert code == 0, errors
    assert "lossless" in text


@pytest.mark.parametrize("orientation", [1, 6])
def test_images_of_many_bands_go_with_their_class_maps(tmp_path, orientation):
    rng = np.random.default_rng(0)
    pixels = rng.random((6, 9, 5), dtype=np.float32)
    upright = (9, 6) if orientation == 6 else (6, 9)
    for index in range(2):
        write(tmp_path / "set" / "masks" / f"{index}.png", np.full(upright, index, np.uint8))
        (tmp_path / "set" / "images").mkdir(exist_ok=True)
        tifffile.imwrite(
            tmp_path / "set" / "images" / f"{index}.tif",
            pixels,
            photometric="minisblack",
            planarconfig="contig",
            extratags=[(274, "H", 1, orientation, True)],
        )
    data = FolderConfig(path=str(tmp_path / "set")).open(Silent())
    for kind in sorted({*KINDS} - {*SHARDS}):
        writer = FORMATS[kind].write
        assert writer is not None
        writer(data, tmp_path / kind, Silent())
        back = load_recipe(str(tmp_path / kind)).data.open(Silent())
        assert back.channels == 5
        assert np.array_equal(back.read_image(first(back)), data.read_image(first(data)))
