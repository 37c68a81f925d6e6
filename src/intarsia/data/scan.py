"""Read every image and mask once, in parallel, and note what training and checks need to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.data.base import pack
from intarsia.data.cache import ScanCache
from intarsia.data.duplicates import look_of
from intarsia.data.layout import Pair
from intarsia.devices import cores
from intarsia.errors import FileError
from intarsia.images.files import read_image, read_mask
from intarsia.progress import Progress

MAX_VALUES = 1024
"""Distinct values of one mask that are kept; more is no class map."""


@dataclass(frozen=True)
class ScannedPair:
    """A pair and what its files hold; an entry is None where the file is missing."""

    pair: Pair
    image: dict[str, Any] | None
    mask: dict[str, Any] | None


def scan(root: Path, pairs: Sequence[Pair], progress: Progress) -> list[ScannedPair]:
    """Facts on each file, from the cache where the file has not changed."""
    cache = ScanCache(root)

    def look(pair: Pair) -> ScannedPair:
        return ScannedPair(
            pair,
            _facts(cache, pair.image, "image") if pair.image else None,
            _facts(cache, pair.mask, "mask") if pair.mask else None,
        )

    found = []
    pool = ThreadPoolExecutor(cores())
    try:
        with progress.task("read", len(pairs)) as task:
            for number, scanned in enumerate(pool.map(look, pairs), 1):
                found.append(scanned)
                task.update(number, f"{number} of {len(pairs)} images and masks")
                cache.save_now_and_then()
    finally:  # a scan that is stopped goes on where it was
        pool.shutdown(cancel_futures=True)
        cache.save()
    return found


def _facts(cache: ScanCache, path: Path, kind: str) -> dict[str, Any]:
    try:
        if record := cache.get(path, kind):
            return record
        return cache.put(path, kind, image_facts(path) if kind == "image" else mask_facts(path))
    except FileError as error:
        return {"error": {"code": error.code, "reason": error.reason}}
    except OSError as error:
        return {"error": {"code": "E_CORRUPT", "reason": f"cannot be read ({error.strerror})"}}


def image_facts(path: Path) -> dict[str, Any]:
    """Size, format, depth and channel statistics of an image."""
    decoded = read_image(path)
    pixels = decoded.pixels
    wide = pixels.reshape(-1, 1 if pixels.ndim == 2 else 3)
    counts = [np.bincount(wide[:, channel], minlength=256) for channel in range(wide.shape[1])]
    sums = [float((np.arange(len(count)) * count).sum()) for count in counts]
    squares = [float((np.arange(len(count), dtype=np.float64) ** 2 * count).sum()) for count in counts]
    total = np.zeros(max(map(len, counts)), np.int64)
    for count in counts:
        total[: len(count)] += count
    cumulated = total.cumsum() / total.sum()
    return {
        "height": int(pixels.shape[0]),
        "width": int(pixels.shape[1]),
        "format": decoded.format,
        "mode": decoded.mode,
        "depth": pixels.dtype.itemsize * 8,
        "channels": wide.shape[1],
        "turned": decoded.turned,
        "swapped": decoded.swapped,
        "notes": list(decoded.notes),
        "sum": sums,
        "sum_of_squares": squares,
        "low": int(np.searchsorted(cumulated, 0.005)),
        "high": int(np.searchsorted(cumulated, 0.995)),
        "constant": all(np.count_nonzero(count) == 1 for count in counts),
        "look": look_of(pixels),
    }


def mask_facts(path: Path) -> dict[str, Any]:
    """Size, format and the values (or packed colours) of a mask, each with its number of pixels."""
    decoded = read_mask(path)
    pixels = decoded.pixels
    if coloured := pixels.ndim == 3:
        red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
        grey = np.array_equal(red, green) and np.array_equal(red, blue)
        numbers, counts = np.unique(pack(pixels), return_counts=True)
    else:
        grey = True
        every = np.bincount(pixels.ravel())
        numbers = np.flatnonzero(every).astype(np.int32)
        counts = every[numbers]
    kept = np.argsort(-counts, kind="stable")[:MAX_VALUES]
    return {
        "height": int(pixels.shape[0]),
        "width": int(pixels.shape[1]),
        "format": decoded.format,
        "mode": decoded.mode,
        "notes": list(decoded.notes),
        "coloured": coloured,
        "grey": grey,
        "values": [[int(numbers[index]), int(counts[index])] for index in sorted(kept)],
    }
