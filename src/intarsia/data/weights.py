"""Border weights of an item, computed once and kept between runs."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intarsia.data.base import Dataset, Item
from intarsia.downloads import cache_folder
from intarsia.runs import file_sha256

if TYPE_CHECKING:
    from intarsia.losses.base import Border

VERSION = 1
"""Of what is computed; a new one leaves older files unread."""


def border_weights(dataset: Dataset, item: Item, border: Border) -> NDArray[np.float32]:
    """(H, W) `border_weight_map` of the item's objects. An unreadable cache is as none; one that cannot be written is lost
    without harm.

    Raises:
        FileError: the file of the objects cannot be used.
    """
    from intarsia.losses.border import border_weight_map

    file = _cache_file(dataset, item, border)
    weights = _read(file, (item.height, item.width))
    if weights is None:
        weights = border_weight_map(dataset.read_instances(item), w0=border.w0, sigma=border.sigma)
        _write(file, weights)
    return weights


def _cache_file(dataset: Dataset, item: Item, border: Border) -> Path:
    """Named by all that the map depends on: the content of the file, what its values mean, and the settings."""
    source = item.instances or item.mask
    content = file_sha256(source) if source and source.is_file() else ""
    meaning = "instances" if item.instances else dataset.meaning(item)
    key = repr((VERSION, content, meaning, float(border.w0), float(border.sigma)))
    return cache_folder() / "weights" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def _read(file: Path, size: tuple[int, int]) -> NDArray[np.float32] | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            weights: NDArray[np.float32] = stored["weights"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return weights if weights.shape == size and weights.dtype == np.float32 else None


def _write(file: Path, weights: NDArray[np.float32]) -> None:
    aside = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as stream:
            np.savez_compressed(stream, weights=weights)
        aside.replace(file)
    except OSError:
        with suppress(OSError):
            aside.unlink()
