"""Instances beside masks, and the border weights that are made of them and kept."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from intarsia.data import FolderConfig, weights
from intarsia.data.layout import find_pairs
from intarsia.errors import FileError
from intarsia.losses.base import Border
from intarsia.losses.border import border_weight_map
from intarsia.ops.objects import objects_of
from intarsia.progress import Silent
from tests.conftest import write

BORDER = Border(10.0, 5.0)


def opened(root, **settings):
    return FolderConfig(path=str(root), **settings).open(Silent())


@pytest.fixture
def nuclei(tmp_path) -> Path:
    """Four images whose masks merge two halves that touch; the instances part them."""
    instances = np.zeros((24, 32), np.uint16)
    instances[4:20, 4:16], instances[4:20, 16:28] = 300, 70
    for index in range(4):
        write(tmp_path / "images" / f"n{index}.png", np.full((24, 32), 40 * index, np.uint8))
        write(tmp_path / "masks" / f"n{index}.png", (instances > 0).astype(np.uint8))
        write(tmp_path / "instances" / f"n{index}.png", instances)
    return tmp_path


@pytest.fixture
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("INTARSIA_CACHE", str(folder))
    return folder


def test_instances_are_found_and_read_as_they_are(nuclei):
    data = opened(nuclei)
    item = data.items("train")[0]
    assert item.instances == nuclei / "instances" / f"{item.name}.png"
    assert sorted(np.unique(data.read_instances(item))) == [0, 70, 300]
    assert not any("instances" in note for note in data.notes)


@pytest.mark.parametrize("form", ["{kind}/{split}", "{split}/{kind}"])
@pytest.mark.parametrize("name", ["instances", "Instance"])
def test_instances_below_or_above_the_split(tmp_path, form, name):
    for split in ("train", "val"):
        for index in range(2):
            for kind in ("images", "masks", name):
                path = tmp_path / form.format(kind=kind, split=split) / "deep" / f"{index}.png"
                write(path, np.eye(8, dtype=np.uint8))
    pairs = find_pairs(tmp_path).pairs
    assert len(pairs) == 4
    assert all(
        pair.instances == tmp_path / form.format(kind=name, split=pair.split) / "deep" / pair.mask.name
        for pair in pairs
    )


def test_a_tiff_serves_and_a_split_file_keeps_it(nuclei):
    png = nuclei / "instances" / "n1.png"
    with Image.open(png) as picture:
        picture.save(png.with_suffix(".tif"))
    png.unlink()
    (nuclei / "splits.json").write_text('{"train": ["n1", "n0"], "val": ["n2"], "test": ["n3"]}')
    data = opened(nuclei)
    assert [item.instances.name for item in data.items("train")] == ["n0.png", "n1.tif"]
    assert data.read_instances(data.items("train")[1]).max() == 300


def test_without_instances_connected_parts_of_the_mask_are_objects(nuclei):
    for path in (nuclei / "instances").iterdir():
        path.unlink()
    data = opened(nuclei)
    item = data.items("train")[0]
    assert item.instances is None
    assert np.array_equal(data.read_instances(item), objects_of(data.read_mask(item)))
    assert data.read_instances(item).max() == 1
    assert not data.border_weights(item, BORDER).any()


def test_missing_and_double_instances_are_notes_and_no_fault(nuclei):
    (nuclei / "instances" / "n2.png").rename(nuclei / "instances" / "n1.tif")
    (nuclei / "instances" / "notes.txt").write_text("x")
    data = opened(nuclei)
    assert f"{nuclei / 'instances'}: has no file for 1 images, first n2" in data.notes
    assert f"{nuclei / 'instances' / 'n1.png'} and n1.tif: two files of one name; the first is taken" in data.notes
    assert sum(len(items) for items in data.splits.values()) == 4


def test_another_size_is_one_clear_line(nuclei):
    write(nuclei / "instances" / "n0.png", np.zeros((20, 32), np.uint16))
    data = opened(nuclei)
    item = next(item for items in data.splits.values() for item in items if item.name == "n0")
    with pytest.raises(FileError, match=r"n0.png: is 20 x 32, its image .*n0.png is 24 x 32; export both .*\[E_SIZE\]"):
        data.border_weights(item, BORDER)


def test_colours_and_damaged_files_are_told(nuclei):
    write(nuclei / "instances" / "n0.png", np.zeros((24, 32, 3), np.uint8))
    (nuclei / "instances" / "n1.png").write_bytes(b"no image")
    data = opened(nuclei)
    items = {item.name: item for items in data.splits.values() for item in items}
    with pytest.raises(FileError, match="holds colours; instances are numbers"):
        data.read_instances(items["n0"])
    with pytest.raises(FileError, match="is no image file"):
        data.border_weights(items["n1"], BORDER)


def test_weights_are_made_once_and_kept(nuclei, cache, monkeypatch):
    data = opened(nuclei)
    item = data.items("train")[0]
    made = data.border_weights(item, BORDER)
    assert np.array_equal(made, border_weight_map(data.read_instances(item)))
    monkeypatch.setattr("intarsia.losses.border.border_weight_map", lambda *_, **__: pytest.fail("made again"))
    kept = opened(nuclei).border_weights(item, BORDER)
    assert np.array_equal(made, kept)
    assert kept.dtype == np.float32
    assert len(list((cache / "weights").iterdir())) == 1  # and no file aside is left


def test_other_content_settings_or_classes_make_other_weights(nuclei, cache):
    data = opened(nuclei)
    item = data.items("train")[0]
    first = data.border_weights(item, BORDER)
    assert not np.array_equal(first, data.border_weights(item, Border(10.0, 2.0)))
    assert not np.array_equal(first, data.border_weights(item, Border(3.0, 5.0)))
    write(item.instances, np.roll(data.read_instances(item), 3, axis=1))
    assert not np.array_equal(first, data.border_weights(item, BORDER))
    assert len(list((cache / "weights").iterdir())) == 4


def test_the_meaning_of_mask_values_is_part_of_the_key(tmp_path, cache):
    mask = np.zeros((8, 12), np.uint8)
    mask[:, 1:4], mask[:, 4:8], mask[:, 9:] = 1, 2, 3
    for index in range(2):
        write(tmp_path / "images" / f"{index}.png", mask)
        write(tmp_path / "masks" / f"{index}.png", mask)
    found = []
    for values in ("{0: a, 1: b, 2: c, 3: d}", "{0: a, 1: b, 2: b, 3: b}"):
        names = "[a, b, c, d]" if "d" in values else "[a, b]"
        (tmp_path / "classes.yaml").write_text(f"names: {names}\nvalues: {values}")
        data = opened(tmp_path)
        found.append(data.border_weights(data.items("train")[0], BORDER))
    assert not np.array_equal(*found)


@pytest.mark.parametrize("content", [b"", b"broken", b"PK\x03\x04 half a zip"])
def test_an_unreadable_cache_is_made_again(nuclei, cache, content):
    data = opened(nuclei)
    item = data.items("train")[0]
    made = data.border_weights(item, BORDER)
    (file,) = (cache / "weights").iterdir()
    whole = file.read_bytes()
    for damaged in (content, whole[: len(whole) // 2], whole[:60] + b"\xff" * 40 + whole[100:]):
        file.write_bytes(damaged)
        assert np.array_equal(data.border_weights(item, BORDER), made)
        assert np.array_equal(weights._read(file, made.shape), made)
    np.savez_compressed(file, weights=np.zeros((2, 2), np.float32))
    assert np.array_equal(data.border_weights(item, BORDER), made)
    np.savez_compressed(file, weights=np.array([{}], object))
    assert np.array_equal(data.border_weights(item, BORDER), made)


def test_a_cache_that_cannot_be_written_does_no_harm(nuclei, cache):
    (cache / "weights").write_text("a file where the folder should be")
    data = opened(nuclei)
    assert data.border_weights(data.items("train")[0], BORDER).any()


def test_threads_may_ask_at_once(nuclei, cache):
    data = opened(nuclei)
    item = data.items("train")[0]
    found = []
    threads = [threading.Thread(target=lambda: found.append(data.border_weights(item, BORDER))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(found[0], other) for other in found)
    assert [path.suffix for path in (cache / "weights").iterdir()] == [".npz"]


def test_real_nuclei_have_instances(shared):
    data = opened(shared("data/dsb2018"))
    items = [item for items in data.splits.values() for item in items]
    assert all(item.instances for item in items)
    assert data.read_instances(items[0]).dtype == np.uint16
