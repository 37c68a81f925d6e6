"""Every published data set: its fake opens, masks hold the right classes, it trains and evaluates; faults are one line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from intarsia.data import DATASETS
from intarsia.data.published.download import published_names
from intarsia.errors import ConfigError, DataError, FileError
from intarsia.progress import Silent
from tests.data.published.make import FAKES, SIZE, photo, save

TINY = {"name": "unet_same", "width": 2, "depth": 1}


def opened(name, root, **settings):
    return DATASETS[name].replace({"path": str(root), **settings}).open(Silent())


@pytest.fixture
def made(request, tmp_path):
    return FAKES[request.param](tmp_path / "fake")


def test_each_data_set_has_a_fake():
    assert sorted(FAKES) == published_names()


@pytest.mark.parametrize(("name", "made"), [(n, n) for n in FAKES], indirect=["made"], ids=list(FAKES))
def test_masks_hold_the_right_classes(name, made):
    before = {path: path.read_bytes() for path in made.root.rglob("*") if path.is_file()}
    data = opened(name, made.root)
    assert data.table.count == made.classes
    items = {item.name: (split, item) for split, items in data.splits.items() for item in items}
    expected = {key: (split, mask) for split, masks in made.masks.items() for key, mask in masks.items()}
    assert sorted(items) == sorted(expected)
    drawn = set(made.masks) == {""}
    for key, (split, mask) in expected.items():
        found_split, item = items[key]
        assert drawn or found_split == split or (name == "oxford_pet" and found_split == "val")
        assert np.array_equal(data.read_mask(item), mask), key
        assert data.read_image(item).shape[:2] == SIZE
    counted = np.stack([np.bincount(mask.ravel(), minlength=256)[: made.classes] for _, mask in expected.values()])
    assert sum(counts for counts in data.class_pixels.values()).tolist() == counted.sum(axis=0).tolist()
    assert before == {path: path.read_bytes() for path in made.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "made"), [(n, n) for n in FAKES], indirect=["made"], ids=list(FAKES))
def test_trains_one_step_and_evaluates(name, made, tmp_path):
    from intarsia.evaluation.evaluate import evaluate
    from intarsia.evaluation.experiment import train
    from intarsia.recipes.recipe import Recipe

    recipe = Recipe().replace(data={"name": name, "path": str(made.root), "size": (16, 16)}, model=TINY)
    steps = {"steps": 1, "batch": 2, "validations": 1, "memory_format": "contiguous", "workers": 0}
    run = train(recipe, out=tmp_path / "run", progress=Silent(), train=steps, evaluate={"after_training": False})
    first = evaluate(run, progress=Silent(), report=False)
    assert len(first.images) >= 1
    assert (run.path / "splits.json").is_file()


def test_a_run_keeps_the_split_that_was_drawn(tmp_path):
    from intarsia.recipes.recipe import recipe_of_run
    from intarsia.runs import write_json

    root = FAKES["carvana"](tmp_path / "fake").root
    data = DATASETS["carvana"].replace({"path": str(root), "folds": 2, "fold": 1})
    splits = {split: [item.name for item in items] for split, items in data.open(Silent()).splits.items()}
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "splits.json", {"source": "fold 1 of 2", **splits})
    (run / "recipe.yaml").write_text(f"data: {{name: carvana, path: '{root}', folds: 2, fold: 1}}")
    again = recipe_of_run(run).data.open(Silent())
    assert {split: [item.name for item in items] for split, items in again.splits.items()} == splits


@pytest.mark.parametrize("name", published_names())
def test_another_folder_is_one_clear_line(name, tmp_path):
    (tmp_path / "something").mkdir()
    with pytest.raises(DataError) as error:
        opened(name, tmp_path)
    text = str(error.value)
    assert "\n" not in text
    assert "xpected" in text
    assert "something/" in text
    assert f"`intarsia data download {name}`" in text
    with pytest.raises(DataError, match=rf"does not exist. `intarsia data download {name} --to"):
        opened(name, tmp_path / "nothing")
    with pytest.raises(ConfigError, match=f"data.path: is not set.*intarsia data download {name}"):
        DATASETS[name].open(Silent())


@pytest.mark.parametrize("name", published_names())
def test_the_sheet_is_complete_and_a_docstring(name):
    config = DATASETS[name]
    sheet = config.sheet
    assert all((sheet.title, sheet.source, sheet.licence, sheet.classes, sheet.images, sheet.sizes, sheet.layout))
    assert sheet.archives or sheet.steps
    text = __import__(type(config).__module__, fromlist=["x"]).__doc__
    assert all(
        word in text for word in ("Source:", "Licence:", "Classes:", "Images:", "Sizes:", "Layout:", "Citation:")
    )


def test_voc_with_sbd(tmp_path):
    voc, sbd = FAKES["voc2012"](tmp_path / "voc"), FAKES["sbd"](tmp_path / "sbd")
    data = opened("voc2012", voc.root, sbd=str(sbd.root))
    masks = {item.name: data.read_mask(item) for item in data.items("train")}
    assert sorted(masks) == ["2007_000032", "2007_000039", "2008_000002"]  # 2007_000033 is VOC's val
    assert np.array_equal(masks["2007_000039"], voc.masks["train"]["2007_000039"])
    assert np.array_equal(masks["2008_000002"], sbd.masks["train"]["2008_000002"])
    assert "1 training masks are SBD's" in data.notes
    with pytest.raises(DataError, match="is not SBD"):
        opened("voc2012", voc.root, sbd=str(tmp_path))


def test_cityscapes_train_ids(tmp_path):
    made = FAKES["cityscapes"](tmp_path / "fake")
    for path in list((made.root / "gtFine").rglob("*_labelIds.png")):
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), np.full(SIZE, 18, np.uint8))
        path.unlink()
    data = opened("cityscapes", made.root)
    assert (data.read_mask(data.items("val")[0]) == 18).all()
    assert any("labelTrainIds" in note for note in data.notes)


def test_older_layouts(tmp_path):
    old = tmp_path / "seg"
    for split in ("train", "val"):
        photo(old / "seg" / "images" / split / "a.jpg", 0)
        save(old / "seg" / "labels" / split / "a_train_id.png", np.full(SIZE, 3, np.uint8))
    assert len(opened("bdd100k", old).items("train")) == 1
    made = FAKES["mapillary_vistas"](tmp_path / "vistas")
    for part in ("training", "validation"):
        (made.root / part / "v1.2" / "labels").rename(made.root / part / "labels")
    (made.root / "config_v1.2.json").rename(made.root / "config.json")
    assert opened("mapillary_vistas", made.root).table.names == ("Bird", "Car", "Sky")


def test_mapillary_names_that_are_not_unique(tmp_path):
    data = opened("mapillary_vistas2", FAKES["mapillary_vistas2"](tmp_path / "fake").root)
    assert data.table.names == ("Bird", "a--pole--2", "a--pole--3")
    assert data.table.colors[0] == (1, 2, 3)


def test_pets_border(tmp_path):
    made = FAKES["oxford_pet"](tmp_path / "fake")
    expected = made.masks["test"]["Egyptian_Mau_14"]
    for border, number in (("border", 2), ("pet", 1)):
        data = opened("oxford_pet", made.root, border=border)
        assert np.array_equal(data.read_mask(data.items("test")[0]), np.where(expected == 255, number, expected))


def test_nuclei_are_single_objects_and_a_change_is_noticed(tmp_path):
    made = FAKES["dsb2018"](tmp_path / "fake")
    data = opened("dsb2018", made.root)
    item = next(item for items in data.splits.values() for item in items if item.name.startswith("00"))
    objects = data.read_instances(item)
    assert np.unique(objects).tolist() == [0, 1, 2, 3]
    assert objects[7, 7] == 1  # the first file keeps what two share
    (first, *_) = sorted((made.root / "stage1_train" / item.name / "masks").iterdir())
    save(first, np.full(SIZE, 255, np.uint8))
    os.utime(first, ns=(1, 1))
    again = opened("dsb2018", made.root)
    item = next(other for items in again.splits.values() for other in items if other.name == item.name)
    assert (again.read_mask(item) == 1).all()
    save(first, np.full((5, 5), 255, np.uint8))
    with pytest.raises(FileError, match="24 x 32, the first object of the image is 5 x 5"):
        opened("dsb2018", made.root)


def test_cars_and_records_stay_together(tmp_path):
    for name, part in (("carvana", 0), ("apolloscape", 1)):
        data = opened(name, FAKES[name](tmp_path / name).root)
        sides = [{item.name.replace("_0", "/0").split("/")[part] for item in items} for items in data.splits.values()]
        if name == "carvana":
            sides = [{item.name.split("_")[0] for item in items} for items in data.splits.values()]
        assert all(not sides[a] & sides[b] for a, b in ((0, 1), (0, 2), (1, 2)))
        assert data.splits["train"]
        assert data.splits["val"]


def test_faults_inside_a_data_set(tmp_path):
    made = FAKES["voc2012"](tmp_path / "voc")
    mask = made.root / "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png"
    save(mask, np.full(SIZE, 77, np.uint8))
    with pytest.raises(DataError, match="masks hold values that are not in the class table: 77"):
        opened("voc2012", made.root)
    mask.unlink()
    with pytest.raises(DataError, match=r"1 files are missing, first .*2007_000032\.png"):
        opened("voc2012", made.root)
    sbd = FAKES["sbd"](tmp_path / "sbd")
    (sbd.root / "benchmark_RELEASE/dataset/cls/2008_000002.mat").write_bytes(b"broken")
    with pytest.raises(FileError, match="is no mask of SBD"):
        opened("sbd", sbd.root)
    isbi = FAKES["isbi2012"](tmp_path / "isbi")
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(isbi.root / "train-labels.tif")
    with pytest.raises(DataError, match=r"has 5 pages, train-labels\.tif 1"):
        opened("isbi2012", isbi.root)
    dstl = FAKES["dstl"](tmp_path / "dstl")
    table = dstl.root / "train_wkt_v4.csv"
    table.write_text(table.read_text().replace("MULTIPOLYGON EMPTY", "POINT (1 2)"))
    with pytest.raises(
        DataError, match=r"class type 9 of 6010_1_2 is no POLYGON|class type \d+ of 6\d+_._. is no POLYGON"
    ):
        opened("dstl", dstl.root)


def test_dstl_of_all_bands(tmp_path):
    from intarsia.data.published.dstl import stretched

    made = FAKES["dstl"](tmp_path / "dstl")
    data = opened("dstl", made.root, imagery="all")
    assert data.channels == 20
    item = data.items("train")[0]
    pixels = data.read_image(item)
    assert pixels.dtype == np.uint16
    assert pixels.shape == (*SIZE, 20)
    composite = np.asarray(Image.open(made.root / "three_band" / f"{item.name}.tif"))
    assert np.array_equal(pixels[..., :3], composite)
    coarse = tifffile.imread(made.root / "sixteen_band" / f"{item.name}_A.tif")[7].astype(np.float32)
    expected = Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    assert np.array_equal(pixels[..., 18], np.asarray(expected).round())
    assert len(data.mean) == len(data.value_range[0]) == 20
    assert opened("dstl", made.root, imagery="all", bands=[7, 5, 3, 20]).channels == 4

    deep = stretched(pixels[..., :3])
    assert (deep.min(), deep.max()) == (0, 255)
    (made.root / "sixteen_band" / f"{item.name}_A.tif").unlink()
    with pytest.raises(DataError, match=r"_A\.tif: does not exist; unpack sixteen_band\.zip"):
        opened("dstl", made.root, imagery="all")


@pytest.mark.parametrize(
    ("name", "folder", "counts", "classes"),
    [
        ("camvid", "data/camvid-mini", (40, 10, 15), 11),
        ("isbi2012", "data/isbi2012", (24, 6, 0), 2),
        ("dsb2018", "data/dsb2018", (83, 20, 17), 2),
    ],
)
def test_real_copies_train_and_evaluate(name, folder, counts, classes, shared, tmp_path):
    from intarsia.evaluation.evaluate import evaluate
    from intarsia.evaluation.experiment import train
    from intarsia.recipes.recipe import Recipe

    root: Path = shared(folder)
    data = opened(name, root)
    assert tuple(len(data.splits[split]) for split in ("train", "val", "test")) == counts
    assert data.table.count == classes
    if name == "isbi2012":
        assert sum(data.class_pixels.values()).tolist() == [6_137_070, 1_727_250]
    if name == "dsb2018":
        assert len(np.unique(data.read_instances(data.items("train")[0]))) > 1
    few = {split: [item.name for item in data.splits[split][:2]] for split in ("train", "val")}
    (tmp_path / "few.json").write_text(json.dumps(few))
    recipe = Recipe().replace(
        data={"name": name, "path": str(root), "splits": str(tmp_path / "few.json"), "size": (32, 32)}, model=TINY
    )
    steps = {"steps": 1, "batch": 2, "validations": 1, "memory_format": "contiguous", "workers": 0}
    run = train(recipe, out=tmp_path / "run", progress=Silent(), train=steps, evaluate={"after_training": False})
    assert len(evaluate(run, "val", progress=Silent(), report=False).images) == 2


def test_the_rule_of_segnets_split(shared):
    from intarsia.data.published.camvid import segnet_split

    for split in ("train", "val", "test"):
        names = [path.stem for path in (shared("data/camvid") / split / "images").iterdir()]
        assert {segnet_split(name) for name in names} == {split}
