"""Folders as users have them: found, read, split, described."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from intarsia.classes import IGNORE
from intarsia.data import FolderConfig
from intarsia.data.describe import describe
from intarsia.errors import ConfigError, DataError
from intarsia.progress import Silent
from tests.conftest import write


def opened(root, **settings):
    return FolderConfig(path=str(root), **settings).open(Silent())


@pytest.mark.parametrize("masks", ["masks", "labels", "annotations", "Masks"])
def test_flat_folder_is_split_and_the_split_is_told(masks, folder):
    root = folder(10)
    (root / "masks").rename(root / masks)
    data = opened(root)
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [6, 2, 2]
    assert "drawn with seed 0" in data.split_source
    assert any("no split given" in note for note in data.notes)
    names = [item.name for items in data.splits.values() for item in items]
    assert sorted(names) == [f"i{i}" for i in range(10)]
    assert opened(root).splits == data.splits
    assert opened(root, split_seed=1).splits != data.splits


@pytest.mark.parametrize("order", ["split first", "kind first"])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("training", "validation", "testing")])
def test_split_folders_in_either_order(order, names, folder, tmp_path):
    source, root = folder(6), tmp_path / "ordered"
    for index in range(6):
        part = names[index // 2]
        for kind in ("images", "masks"):
            place = root / part / kind if order == "split first" else root / kind / part
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / kind / f"i{index}.png", place)
    data = opened(root)
    assert [[item.image.stem for item in data.splits[s]] for s in ("train", "val", "test")] == [
        ["i0", "i1"],
        ["i2", "i3"],
        ["i4", "i5"],
    ]


def test_split_file(folder):
    root = folder(5)
    (root / "splits.json").write_text(json.dumps({"train": ["i0", "i1.png"], "val": ["i2"], "test": ["i3"]}))
    data = opened(root)
    assert [item.name for item in data.splits["train"]] == ["i0", "i1"]
    assert any("leaves out 1 images, first i4" in note for note in data.notes)
    (root / "splits.json").write_text(json.dumps({"train": ["i0", "no"], "val": ["i0"]}))
    with pytest.raises(DataError, match="listed twice"):
        opened(root)
    (root / "splits.json").write_text(json.dumps({"train": ["i0", "no"]}))
    with pytest.raises(DataError, match="1 names without an image, first 'no'"):
        opened(root)


def test_one_and_two_images(folder):
    assert [len(v) for v in opened(folder(1, name="one")).splits.values()] == [1, 1, 0]
    assert [len(v) for v in opened(folder(2, name="two")).splits.values()] == [1, 1, 0]
    assert any("says nothing of new images" in note for note in opened(folder(1, name="uno")).notes)


@pytest.mark.parametrize("ending", [".jpg", ".tif", ".webp", ".bmp", ".PNG"])
@pytest.mark.parametrize("mask_ending", [".png", ".tif", ".bmp", ".gif"])
def test_endings(ending, mask_ending, tmp_path):
    image, mask = np.zeros((8, 9, 3), np.uint8), np.arange(72, dtype=np.uint8).reshape(8, 9) % 3
    for index in range(2):
        write(tmp_path / "images" / f"i{index}{ending}", image)
        write(tmp_path / "masks" / f"i{index}{mask_ending}", mask)
    data = opened(tmp_path)
    assert np.array_equal(data.read_mask(data.items("train")[0]), mask)


def test_masks_named_with_an_ending(folder):
    root = folder(3)
    for path in list((root / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    assert len(opened(root).items("train")) == 1


def test_subfolders_keep_their_names_apart(folder, tmp_path):
    source, root = folder(2), tmp_path / "nested"
    for index, part in enumerate(("a", "b")):
        for kind in ("images", "masks"):
            (root / kind / part).mkdir(parents=True)
            shutil.copy(source / kind / f"i{index}.png", root / kind / part / "same.png")
    data = opened(root)
    assert {item.name for items in data.splits.values() for item in items} == {"a/same", "b/same"}


def test_classes_are_inferred(folder):
    two = opened(folder(values=(0, 1), name="two"))
    assert two.table.names == ("background", "foreground")
    with_void = opened(folder(values=(0, 1, 2, 255), name="void"))
    assert (with_void.table.count, with_void.table.ignore_index) == (3, 255)
    assert IGNORE in with_void.read_mask(with_void.items("train")[0])
    assert not list((two.root).glob("classes*"))


def test_values_of_the_class_table(folder):
    root = folder(values=(0, 100, 255))
    (root / "classes.yaml").write_text("names: [a, b]\nvalues: {0: a, 100: b, 255: ignore}")
    data = opened(root)
    assert set(np.unique(data.read_mask(data.items("train")[0]))) == {0, 1, IGNORE}


def test_sixteen_bit_values_never_wrap(tmp_path):
    mask = np.where(np.arange(64).reshape(8, 8) % 2, 300, 0).astype(np.uint16)
    for index in range(2):
        write(tmp_path / "images" / f"{index}.png", np.zeros((8, 8), np.uint8))
        write(tmp_path / "masks" / f"{index}.png", mask)
    (tmp_path / "classes.yaml").write_text("names: [a, b]\nvalues: {0: a, 300: b}")
    data = opened(tmp_path)
    assert np.array_equal(data.read_mask(data.items("train")[0]), (mask > 0).astype(np.uint8))
    (tmp_path / "classes.yaml").write_text("names: [a, b]\nvalues: {0: a, 44: b}")
    with pytest.raises(DataError, match="not in the class table: 300"):
        opened(tmp_path)


def test_masks_in_colours(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    classes = np.arange(72).reshape(8, 9) % 3
    for index in range(2):
        write(tmp_path / "images" / f"{index}.png", np.zeros((8, 9, 3), np.uint8))
        write(tmp_path / "masks" / f"{index}.png", colours[classes])
    inferred = opened(tmp_path)
    assert inferred.table.names == ("background", "#0000ff", "#ff0000") or inferred.table.names == (
        "background",
        "#ff0000",
        "#0000ff",
    )
    (tmp_path / "classes.yaml").write_text("names: [a, b, c]\ncolors: [[0, 0, 0], [255, 0, 0], [0, 0, 255]]")
    data = opened(tmp_path)
    assert np.array_equal(data.read_mask(data.items("train")[0]), classes.astype(np.uint8))


def test_palette_masks_are_indices_not_colours(tmp_path):
    mask = (np.arange(64).reshape(8, 8) % 2).astype(np.uint8)
    for index in range(2):
        write(tmp_path / "images" / f"{index}.png", np.zeros((8, 8, 3), np.uint8))
        picture = Image.fromarray(mask)
        picture.putpalette([128, 0, 0, 0, 128, 0] + [0] * 762)
        (tmp_path / "masks").mkdir(exist_ok=True)
        picture.save(tmp_path / "masks" / f"{index}.png")
    data = opened(tmp_path)
    assert np.array_equal(data.read_mask(data.items("train")[0]), mask)


def test_grey_and_deep_images(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(3):
        write(tmp_path / "images" / f"{index}.png", rng.integers(1000, 5000, (16, 16)).astype(np.uint16))
        write(tmp_path / "masks" / f"{index}.png", rng.integers(0, 2, (16, 16)).astype(np.uint8))
    data = opened(tmp_path)
    assert data.channels == 1
    assert 1000 <= data.value_range[0] < 1100
    assert 4900 < data.value_range[1] <= 5000
    assert data.mean[0] == pytest.approx(0.5, abs=0.05)


def test_statistics_are_those_of_the_training_pixels(folder):
    data = opened(folder(6))
    pixels = np.concatenate([data.read_image(item).reshape(-1, 3) for item in data.items("train")]) / 255
    assert data.mean == pytest.approx(pixels.mean(0), abs=1e-5)
    assert data.std == pytest.approx(pixels.std(0), abs=1e-5)
    masks = np.concatenate([data.read_mask(item).ravel() for item in data.items("train")])
    assert data.class_pixels["train"].tolist() == np.bincount(masks, minlength=2).tolist()


def test_second_reading_comes_from_the_cache_and_a_change_is_seen(folder, monkeypatch):
    root = folder(4, name="cached")
    opened(root)
    calls = []
    monkeypatch.setattr("intarsia.data.scan.mask_facts", lambda path: calls.append(path) or {})
    opened(root)
    assert not calls
    changed = root / "masks" / "i2.png"
    write(changed, np.full((24, 32), 1, np.uint8))
    with pytest.raises(KeyError):
        opened(root)
    assert calls == [changed]


def test_touched_but_equal_files_are_not_read_again(folder, monkeypatch):
    root = folder(4, name="touched")
    opened(root)
    for path in (root / "masks").iterdir():
        path.touch()
    monkeypatch.setattr("intarsia.data.scan.mask_facts", lambda path: pytest.fail("read again"))
    opened(root)


def test_missing_split_is_named(folder):
    with pytest.raises(ConfigError, match=r"no split 'tset'; there are: train \(2\), val \(1\), test \(1\)"):
        opened(folder(4)).items("tset")


def test_notes_and_description(folder):
    root = folder(5)
    (root / "images" / "notes.txt").write_text("hello")
    (root / "images" / ".DS_Store").write_text("hidden")
    (root / "images" / "extra.png").write_bytes((root / "images" / "i0.png").read_bytes())
    data = opened(root, unlabelled="skip")
    assert "1 images without mask are left out (data.unlabelled=skip)" in data.notes
    assert "1 files that are no images are passed over, first images/notes.txt" in data.notes
    text = describe(data).text()
    assert "usable" in text
    assert "foreground" in text


def test_equal_files_on_both_sides_of_a_split_are_told(folder):
    root = folder(4)
    for kind in ("images", "masks"):
        shutil.copy(root / kind / "i0.png", root / kind / "copy.png")
    (root / "splits.json").write_text(json.dumps({"train": ["i0", "i1"], "val": ["i2"], "test": ["copy", "i3"]}))
    assert "1 images of val and test are also in train, file for file, first copy" in opened(root).notes


@pytest.mark.parametrize("name", ["camvid", "dsb2018"])
def test_real_folders(name, shared):
    data = opened(shared(f"data/{name}"))
    counts = {"camvid": (367, 101, 233), "dsb2018": (83, 20, 17)}[name]
    assert tuple(len(data.splits[split]) for split in ("train", "val", "test")) == counts
    if name == "camvid":
        assert data.class_pixels["train"][:3].tolist() == [10_682_767, 14_750_079, 623_349]
        assert data.class_pixels["test"].tolist()[-2:] == [255_232, 76_220]


def test_a_run_keeps_its_split_and_classes_when_the_folder_grows(folder, tmp_path):
    from intarsia.evaluation.evaluate import evaluate
    from intarsia.evaluation.experiment import train

    root = folder(8)
    settings = {"model": {"name": "unet_same", "width": 2, "depth": 1}, "train": {"steps": 1, "batch": 2}}
    run = train(root, out=tmp_path / "run", progress=Silent(), data={"size": (16, 16)}, **settings)
    before = [image.item.name for image in evaluate(run, "test", progress=Silent(), report=False).images]
    for index in range(20, 40):
        for kind in ("images", "masks"):
            shutil.copy(root / kind / "i0.png", root / kind / f"i{index}.png")
    write(root / "masks" / "i20.png", np.full((24, 32), 2, np.uint8))
    after = [image.item.name for image in evaluate(run, "test", progress=Silent(), report=False).images]
    assert before == after
    train(root, out=tmp_path / "run", resume=True, progress=Silent(), train={"steps": 2})
    elsewhere = folder(4, name="elsewhere")
    other = evaluate(run, "train", data=str(elsewhere), progress=Silent(), report=False)
    assert other.data == "elsewhere"


def test_a_run_on_a_single_image_can_be_scored_again(folder, tmp_path):
    from intarsia.evaluation.evaluate import evaluate
    from intarsia.evaluation.experiment import train

    settings = {"model": {"name": "unet_same", "width": 2, "depth": 1}, "train": {"steps": 1, "batch": 1}}
    run = train(folder(1), out=tmp_path / "run", progress=Silent(), data={"size": (16, 16)}, **settings)
    assert len(evaluate(run, "val", progress=Silent(), report=False).images) == 1
