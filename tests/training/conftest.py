"""Fixtures of the tests of decoded images: a cache of their own, data that may be changed, and what was decoded."""

import shutil

import pytest

from intarsia.data import FolderConfig
from intarsia.data.decode import decode_item
from intarsia.progress import Silent
from intarsia.training import store


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Folder of decoded images, not there yet."""
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INTARSIA_CACHE_GB", raising=False)
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def own_cells(cells, tmp_path, cache):
    """The drawn cells in a folder that a test may change."""
    shutil.copytree(cells, tmp_path / "cells")
    return FolderConfig(path=str(tmp_path / "cells")).open(Silent())


@pytest.fixture
def decodes(monkeypatch):
    """Names of the items that were decoded, in order."""
    names = []

    def counting(dataset, item, *rest, **more):
        names.append(item.name)
        return decode_item(dataset, item, *rest, **more)

    monkeypatch.setattr(store, "decode_item", counting)
    return names
