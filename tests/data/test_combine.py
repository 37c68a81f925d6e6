"""Classes renamed, merged and left out, and several data sets as one."""

import numpy as np
import pytest

from intarsia.classes import IGNORE
from intarsia.data import DATASETS, FolderConfig
from intarsia.errors import ConfigError, DataError, UnknownName
from intarsia.progress import Silent
from tests.conftest import write
from tests.data.published.make import FAKES


def opened(root, **settings):
    return FolderConfig(path=str(root), **settings).open(Silent())


def streets(folder, name="streets", values=(0, 1, 2, 3)):
    root = folder(6, values=values, name=name)
    (root / "classes.yaml").write_text("names: [road, car, truck, sky]\nignore_index: null")
    return root


def test_classes_are_renamed_merged_and_left_out(folder):
    root = streets(folder)
    plain, mapped = opened(root), opened(root, class_map={"car": "vehicle", "truck": "vehicle", "sky": "ignore"})
    assert mapped.table.names == ("road", "vehicle")
    assert "by data.class_map" in mapped.table_source
    to = np.array([0, 1, 1, IGNORE])
    for item in plain.items("train"):
        assert np.array_equal(mapped.read_mask(item), to[plain.read_mask(item)])
    counts = plain.class_pixels["train"]
    assert mapped.class_pixels["train"].tolist() == [counts[0], counts[1] + counts[2]]
    assert mapped.meaning(item) != plain.meaning(item)


def test_all_others(folder):
    data = opened(streets(folder), class_map={"car": "car", "*": "rest"})
    assert data.table.names == ("rest", "car")
    data = opened(streets(folder, "again"), class_map={"car": "car", "road": "road", "*": "ignore"})
    assert data.table.names == ("road", "car")


def test_coloured_masks_are_merged(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255], [0, 255, 0]], np.uint8)
    classes = np.arange(72).reshape(8, 9) % 4
    for index in range(3):
        write(tmp_path / "images" / f"{index}.png", np.zeros((8, 9, 3), np.uint8))
        write(tmp_path / "masks" / f"{index}.png", colours[classes])
    (tmp_path / "classes.yaml").write_text(f"names: [a, b, c, d]\ncolors: {colours.tolist()}")
    data = opened(tmp_path, class_map={"b": "x", "c": "x", "d": "ignore"})
    assert np.array_equal(data.read_mask(data.items("train")[0]), np.array([0, 1, 1, IGNORE])[classes])
    assert int(sum(data.class_pixels.values())[1]) == 3 * 36


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ({"cra": "car"}, r"data.class_map: 'cra' is no class of the data set. Did you mean 'car'"),
        ({"*": "ignore"}, "leaves out every class"),
    ],
)
def test_wrong_maps(class_map, message, folder):
    with pytest.raises(ConfigError, match=message):
        opened(streets(folder), class_map=class_map)


def combined(parts, **settings):
    return DATASETS["combined"].replace({"parts": parts, **settings})


def test_two_data_sets_as_one(folder, tmp_path):
    root, camvid = streets(folder), FAKES["camvid"](tmp_path / "camvid")
    parts = [
        {
            "name": "camvid",
            "path": str(camvid.root),
            "class_map": {"Road": "road", "Bicyclist": "person", "*": "ignore"},
        },
        {"path": str(root), "class_map": {"truck": "car", "sky": "ignore"}},
    ]
    data = combined(parts).open(Silent())
    assert data.table.names == ("road", "person", "car")
    items = {item.name: item for part in data.splits.values() for item in part}
    assert len(items) == 6 + 4
    expected = camvid.masks["train"]["train/0001TP_006690"]
    to = np.full(256, IGNORE)
    to[3], to[10] = 0, 1
    assert np.array_equal(data.read_mask(items["camvid/train/0001TP_006690"]), to[expected])
    own = opened(root)
    item = own.items("train")[0]
    assert np.array_equal(
        data.read_mask(items[f"streets/{item.name}"]), np.array([0, 2, 2, IGNORE])[own.read_mask(item)]
    )
    assert {item.name for item in data.items("test") if item.name.startswith("camvid/")} == {
        "camvid/test/Seq05VD_f00000"
    }
    total = sum(data.class_pixels.values())
    masks = [data.read_mask(item) for item in items.values()]
    assert total.tolist() == sum(np.bincount(mask.ravel(), minlength=256)[:3] for mask in masks).tolist()
    assert combined(parts, names=["car", "road", "person"]).open(Silent()).table.names == ("car", "road", "person")


def test_a_combined_run_trains_evaluates_and_keeps_its_split(folder, tmp_path):
    from intarsia.config import parse_yaml
    from intarsia.evaluation.evaluate import evaluate
    from intarsia.evaluation.experiment import train
    from intarsia.recipes.recipe import recipe_of_run

    first, second = streets(folder), streets(folder, "other")
    text = f"{{name: combined, size: 16, parts: [{{path: '{first}'}}, {{path: '{second}'}}]}}"
    settings = {"model": {"name": "unet_same", "width": 2, "depth": 1}, "train": {"steps": 1, "batch": 2}}
    (tmp_path / "recipe.yaml").write_text(f"data: {text}\n")
    assert parse_yaml(text, source="text")["name"] == "combined"
    run = train(tmp_path / "recipe.yaml", out=tmp_path / "run", progress=Silent(), **settings)
    assert len(evaluate(run, "test", progress=Silent(), report=False).images) == 2
    data = recipe_of_run(run.path).data
    assert data.open(Silent()).split_source == "splits.json"
    folded = combined([{"path": str(first)}, {"path": str(second)}], folds=2, fold=0).open(Silent())
    assert len(folded.splits["val"]) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": []}, "data.parts: is empty"),
        ({"parts": "a"}, "must be a list of data sets"),
        ({"parts": [{"name": "foldre"}]}, "Did you mean 'folder'"),
        ({"names": ["road", "sun"]}, "no data set has a class 'sun'"),
        ({"names": ["road"]}, "data.names: lacks 'car'"),
    ],
)
def test_faults(settings, message, folder):
    parts = {"parts": [{"path": str(streets(folder))}], **settings}
    with pytest.raises((ConfigError, DataError, UnknownName), match=message) as error:
        combined(**parts).open(Silent())
    assert "\n" not in str(error.value)


def test_depths_are_not_mixed(folder, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(3):
        write(tmp_path / "deep" / "images" / f"{index}.png", rng.integers(0, 5000, (16, 16)).astype(np.uint16))
        write(tmp_path / "deep" / "masks" / f"{index}.png", rng.integers(0, 2, (16, 16)).astype(np.uint8))
    with pytest.raises(DataError, match="8-bit, 16-bit or floating-point images are mixed"):
        combined([{"path": str(streets(folder))}, {"path": str(tmp_path / "deep")}]).open(Silent())
