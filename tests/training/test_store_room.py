"""Decoded images on a disk: never more than there is room for, never half of one, never a reason to stop."""

import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple

import pytest
import torch

from intarsia.data import FolderConfig
from intarsia.errors import ConfigError
from intarsia.progress import Silent
from intarsia.training import store as store_module
from intarsia.training.store import bytes_of
from tests.training.stores import Notes, all_of, equal, files, store_of

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def dataset(own_cells):
    return own_cells


@pytest.mark.parametrize("mode", ["auto", "disk"])
def test_a_full_disk_is_said_once_and_harms_nothing(dataset, cache, monkeypatch, mode):
    plain, written, notes = all_of(store_of(dataset, "off")), [], Notes()

    def full(fd):
        written.append(fd)
        if len(written) > 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    store = store_of(dataset, mode, progress=notes)
    store.room = 0
    for _ in range(2):
        assert equal(all_of(store), plain)
    assert len(files(cache)) == len(os.listdir(cache)) == 2  # nothing half-written is left
    assert len(notes.lines) == 2
    assert "No space left on device" in notes.lines[1]


def test_without_room_on_disk_auto_keeps_what_fits_in_memory(dataset, monkeypatch, decodes):
    monkeypatch.setattr(store_module.os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "full")))
    store = store_of(dataset, "auto")
    store.room = 2 * 2 * 160 * 160
    for _ in range(2):
        all_of(store)
    assert len(store.kept) == 2
    assert len(decodes) == 6 + 4


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(dataset, cache):
    cache.write_text("a file where the folder should be")
    notes = Notes()
    assert equal(all_of(store_of(dataset, progress=notes)), all_of(store_of(dataset, "off")))
    assert len(notes.lines) == 1
    assert "cannot be written" in notes.lines[0]


def test_half_of_the_free_space_is_left(dataset, cache, monkeypatch):
    size = bytes_of(store_of(dataset, "off").load(dataset.items("train")[0]))
    first, notes = 5 * size, Notes()
    monkeypatch.setattr(
        store_module.shutil, "disk_usage", lambda _: Usage(0, 0, first - sum(f.stat().st_size for f in files(cache)))
    )
    assert equal(all_of(store_of(dataset, progress=notes)), all_of(store_of(dataset, "off")))
    assert len(files(cache)) == 2
    assert len(notes.lines) == 2
    assert "half of the free space" in notes.lines[1]


def test_the_longest_unused_files_go_first_and_never_those_of_the_run(
    dataset, cells, cache, tmp_path, monkeypatch, decodes
):
    shutil.copytree(cells, tmp_path / "other")
    other = FolderConfig(path=str(tmp_path / "other")).open(Silent())
    size = bytes_of(store_of(dataset, "off").load(dataset.items("train")[0])) + 500
    all_of(store_of(other))
    theirs = files(cache)
    for age, file in enumerate(theirs):
        os.utime(file, (time.time() - 1000 + age,) * 2)
    used = store_of(other).load(other.items("train")[0])  # is the latest used now
    monkeypatch.setenv("INTARSIA_CACHE_GB", str(8 * size / 1e9))
    all_of(store_of(dataset))
    left = files(cache)
    assert len(left) == 8
    assert len(set(left) & set(theirs)) == 2
    assert theirs[-1] in left or theirs[-2] in left
    decodes.clear()
    assert torch.equal(store_of(other).load(other.items("train")[0]).image, used.image)
    assert not decodes
    monkeypatch.setenv("INTARSIA_CACHE_GB", str(3 * size / 1e9))  # its own are more than may be
    notes = Notes()
    shutil.rmtree(cache)
    store = store_of(dataset, progress=notes)
    for _ in range(2):
        all_of(store)
    assert len(files(cache)) == 3
    assert "INTARSIA_CACHE_GB" in notes.lines[-1]
    assert len(notes.lines) == 2


def test_files_that_nobody_writes_any_more_are_removed(dataset, cache):
    cache.mkdir(parents=True)
    for name, age in (("old.1-1.tmp", 7200), ("new.2-2.tmp", 10)):
        (cache / name).write_bytes(b"half")
        os.utime(cache / name, (time.time() - age,) * 2)
    all_of(store_of(dataset))
    assert [path.name for path in cache.glob("*.tmp")] == ["new.2-2.tmp"]


def test_a_wrong_limit_is_told(dataset, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE_GB", "lots")
    with pytest.raises(ConfigError, match="INTARSIA_CACHE_GB: must be a number of gigabytes"):
        store_of(dataset)


KILLED = """
import os, sys
from intarsia.data import FolderConfig
from intarsia.progress import Silent
from intarsia.training import store
from intarsia.images.preprocess import Preprocess
data = FolderConfig(path=sys.argv[1]).open(Silent())
ours = store.Store(data, data.items("train"), Preprocess(channels=1, mean=(.5,), std=(.5,)), mode="disk")
calls = []
def fsync(fd):
    calls.append(fd)
    if len(calls) == 3:
        os.ftruncate(fd, 1000)
        os.kill(os.getpid(), 9)
store.os.fsync = fsync
[ours.load(item) for item in ours.items]
"""


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_read(dataset, cache, decodes):
    done = subprocess.run([sys.executable, "-c", KILLED, str(dataset.root)], check=False)
    assert done.returncode == -9
    assert len(files(cache)) == 2
    assert len(list(cache.glob("*.tmp"))) == 1
    assert equal(all_of(store_of(dataset)), all_of(store_of(dataset, "off")))
    assert len(decodes) == 4 + 6
