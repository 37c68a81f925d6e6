"""Decoded images: the same wherever they are kept, never stale."""

import itertools
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from intarsia.data import FolderConfig
from intarsia.images.preprocess import Preprocess
from intarsia.losses.base import Border
from intarsia.progress import Silent
from intarsia.training import store as store_module
from intarsia.training.feed import Feeder
from intarsia.transforms.pipeline import AUGMENTS
from tests.training.stores import Notes, all_of, equal, files, store_of

MODES = ("auto", "memory", "disk", "off")
BORDER = Border(10, 5)


@pytest.fixture
def dataset(own_cells):
    return own_cells


@pytest.mark.parametrize("room", [0, 1 << 40])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_same(dataset, mode, room):
    plain = all_of(store_of(dataset, "off", border=BORDER, rare=(1, 2)))
    for _ in range(2):  # the second finds what the first left
        store = store_of(dataset, mode, border=BORDER, rare=(1, 2))
        store.room = room
        assert equal(all_of(store), plain)
        assert equal(all_of(store), plain)


@pytest.mark.parametrize("cache_mode", ["auto", "disk"])
def test_samples_are_the_same_from_files_with_any_workers(dataset, cache_mode):
    def batches(mode, workers):
        feed = Feeder(
            dataset,
            dataset.items("train"),
            (40, 48),
            AUGMENTS["nnunet_like"].replace(cutmix=0.3, copy_paste=0.3),
            Preprocess(channels=3, scale=0.8),
            batch=4,
            seed=1,
            workers=workers,
            border=BORDER,
            cache=mode,
        )
        feed.store.room = 0
        return list(itertools.islice(feed.batches(0), 4))

    plain = batches("off", 0)
    assert all(equal(batches(cache_mode, workers), plain) for workers in (0, 3))


def test_what_fits_is_kept_in_memory_alone(dataset, cache, decodes):
    store = store_of(dataset, "auto")
    for _ in range(3):
        all_of(store)
    assert len(decodes) == len(store.kept) == 6
    assert not cache.exists()


def test_what_does_not_fit_goes_to_files_and_is_found_by_the_next_run(dataset, cache, decodes):
    notes = Notes()
    store = store_of(dataset, "auto", progress=notes)
    store.room = 3 * 2 * 160 * 160  # three of six
    for _ in range(2):
        all_of(store)
    assert len(decodes) == len(files(cache)) == 6
    assert not store.kept
    assert len(notes.lines) == 1
    assert str(cache) in notes.lines[0]
    all_of(store_of(dataset, "auto"))  # fits, and is read from the files once
    all_of(store_of(dataset, "disk"))
    assert len(decodes) == 6


def test_memory_keeps_what_fits_and_off_nothing(dataset, cache, decodes):
    store = store_of(dataset, "memory")
    store.room = 3 * 2 * 160 * 160
    for _ in range(2):
        all_of(store)
    assert len(store.kept) == 3
    assert len(decodes) == 6 + 3
    decodes.clear()
    store = store_of(dataset, "off")
    for _ in range(2):
        all_of(store)
    assert len(decodes) == 12
    assert not cache.exists()


def test_a_file_is_mapped_not_read(dataset):
    """What is looked at comes from the file's pages, so another mapping's writes would be seen; our own are not written."""
    all_of(store_of(dataset))
    loaded = store_of(dataset).load(dataset.items("train")[0])
    before = loaded.image.clone()
    assert loaded.image.data_ptr() != before.data_ptr()
    with open("/proc/self/maps") if os.path.exists("/proc/self/maps") else pytest.skip("no /proc") as maps:
        ranges = [line.split("-", 1) for line in maps if "decoded" in line]
    starts = [(int(start, 16), int(rest.split()[0], 16)) for start, rest in ranges]
    assert any(start <= loaded.image.data_ptr() < end for start, end in starts)
    loaded.image.fill_(0)
    assert torch.equal(store_of(dataset).load(dataset.items("train")[0]).image, before)


def test_types_stay(dataset, tmp_path):
    images, masks = tmp_path / "deep" / "images", tmp_path / "deep" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for number in range(4):
        draw = np.random.default_rng(number)
        Image.fromarray(draw.integers(0, 60000, (20, 30), dtype=np.uint16)).save(images / f"{number}.png")
        Image.fromarray(draw.integers(0, 2, (20, 30), dtype=np.uint8)).save(masks / f"{number}.png")
    deep = FolderConfig(path=str(tmp_path / "deep")).open(Silent())
    for _ in range(2):
        loaded = store_of(deep).load(deep.items("train")[0])
        assert (loaded.image.dtype, loaded.mask.dtype) == (torch.float32, torch.uint8)
        assert np.array_equal(loaded.image[0].numpy(), deep.read_image(deep.items("train")[0]))
        loaded = store_of(dataset, border=BORDER).load(dataset.items("train")[0])
        assert (loaded.image.dtype, loaded.weights.dtype) == (torch.uint8, torch.float32)


def test_a_grey_image_is_kept_once_for_three_channels(dataset, cache):
    item = dataset.items("train")[0]
    for _ in range(2):
        store = store_of(dataset, preprocess=Preprocess())
        image = store.load(item).image
        assert image.shape == (3, 160, 160)
        assert np.array_equal(image.numpy(), np.repeat(dataset.read_image(item)[None], 3, axis=0))
    assert files(cache)[0].stat().st_size < 3 * 160 * 160


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "sizes"])
def test_a_damaged_file_is_made_again(dataset, cache, decodes, damage):
    store = store_of(dataset)
    whole = all_of(store)
    file, other = files(cache)[:2]
    content, parts = file.read_bytes(), load_file(file)
    with_key = {"key": store_module.safe_open(file, framework="pt").__enter__().metadata()["key"]}
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[:-7])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "other":
        shutil.copyfile(other, file)
    else:
        save_file({name: part[..., :-1].contiguous() for name, part in parts.items()}, file, with_key)
    decodes.clear()
    assert equal(all_of(store_of(dataset)), whole)
    assert len(decodes) == 1
    assert equal(all_of(store_of(dataset)), whole)
    assert len(decodes) == 1


def test_a_changed_image_mask_or_object_file_is_read_again(dataset, decodes):
    all_of(store_of(dataset, border=BORDER))
    item = dataset.items("train")[2]
    for path in (item.image, item.mask):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[:9, :9] = 0
        Image.fromarray(pixels).save(path)
        decodes.clear()
        found = store_of(dataset, border=BORDER).load(item)
        assert decodes == [item.name]
        assert (found.image if path == item.image else found.mask)[..., :9, :9].eq(0).all()
    if item.instances:
        os.utime(item.instances, ns=(1, 1))
        store_of(dataset, border=BORDER).load(item)
        assert len(decodes) == 2


def test_another_class_map_is_another_file(dataset, tmp_path, decodes):
    all_of(store_of(dataset))
    name = dataset.table.names[2]
    mapped = FolderConfig(path=str(tmp_path / "cells"), class_map={name: dataset.table.names[1]}).open(Silent())
    decodes.clear()
    ours = all_of(store_of(mapped))
    assert len(decodes) == 6
    assert not any((each.mask == 2).any() for each in ours)
    assert equal(ours, all_of(store_of(mapped, "off")))


@pytest.mark.parametrize(
    "changes",
    [
        {"preprocess": Preprocess(channels=1, mean=(0.5,), std=(0.5,), scale=0.5)},
        {"preprocess": Preprocess()},
        {"border": BORDER},
        {"border": Border(10, 6)},
        {"rare": (1,)},
    ],
)
def test_what_else_decides_the_content_makes_another_file(dataset, cache, decodes, changes):
    all_of(store_of(dataset))
    decodes.clear()
    assert equal(all_of(store_of(dataset, **changes)), all_of(store_of(dataset, "off", **changes)))
    assert len(decodes) == 12
    assert len(files(cache)) == 12


def test_other_normalisation_is_the_same_file(dataset, decodes):
    all_of(store_of(dataset))
    all_of(store_of(dataset, preprocess=Preprocess(channels=1, mean=(0.1,), std=(0.2,))))
    assert len(decodes) == 6


def test_a_run_goes_on_when_the_sources_are_gone(dataset):
    store = store_of(dataset)
    whole = all_of(store)
    shutil.rmtree(dataset.root)
    assert equal(all_of(store), whole)


def test_an_image_that_is_no_file_is_decoded(dataset, cache, monkeypatch):
    item = replace(dataset.items("train")[0], image=dataset.root / "shard.tar" / "one.png")
    real = dataset.items("train")[0]
    monkeypatch.setattr(type(dataset), "read_image", lambda self, _: np.asarray(Image.open(real.image)))
    for mode in MODES:
        store = store_of(dataset, mode)
        store.room = 0
        assert torch.equal(store.load(item).image, store.load(real).image)
    assert len(files(cache)) == 1


def test_threads_decode_an_image_once(dataset, decodes):
    for mode in ("memory", "disk", "auto"):
        decodes.clear()
        store = store_of(dataset, mode, preprocess=Preprocess(scale=2, channels=1, mean=(0.5,), std=(0.5,)))
        barrier = threading.Barrier(8)

        def load(_, store=store, barrier=barrier):
            barrier.wait()
            return all_of(store)

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(load, range(8)))
        assert len(decodes) == (6 if mode != "auto" else 0)  # auto: as files from before
        assert all(equal(each, results[0]) for each in results)


def test_two_stores_share_one_folder(dataset, cache):
    plain, stores = all_of(store_of(dataset, "off")), [store_of(dataset) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(all_of, stores):
            assert equal(found, plain)
    assert len(files(cache)) == len(os.listdir(cache)) == 6
