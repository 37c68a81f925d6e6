"""Read every image and mask once, in parallel, and note what training and checks need to know of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.data.base import Bands, pack
from intarsia.data.cache import ScanCache
from intarsia.data.duplicates import look_of
from intarsia.data.layout import Pair
from intarsia.devices import cores
from intarsia.errors import FileError
from intarsia.images.files import read_image, read_mask
from intarsia.progress import Progress

MAX_VALUES = 1024
"""Distinct values of one mask that are kept; more is no class map."""


LOW = 0.005
"""The range of values that are shown and learned from leaves out so much of an image on either side."""


@dataclass(frozen=True)
class ScannedPair:
    """A pair and what its files hold; an entry is None where the file is missing."""

    pair: Pair
    image: dict[str, Any] | None
    mask: dict[str, Any] | None


def scan(
    root: Path, pairs: Sequence[Pair], progress: Progress, bands: Bands | Sequence[Bands] = None
) -> list[ScannedPair]:
    """Facts on each file, from the cache where the file has not changed.

    Args:
        bands: of the images that are taken; for all, or a list of those of each.
    """
    cache = ScanCache(root)

    def look(pair: Pair, taken: Bands) -> ScannedPair:
        kind = f"image {taken}" if taken else "image"
        return ScannedPair(
            pair,
            _facts(cache, pair.image, kind, partial(image_facts, bands=taken)) if pair.image else None,
            _facts(cache, pair.mask, "mask", mask_facts) if pair.mask else None,
        )

    each = bands if isinstance(bands, list) else [bands] * len(pairs)

    found = []
    pool = ThreadPoolExecutor(cores())
    try:
        with progress.task("read", len(pairs)) as task:
            for number, scanned in enumerate(pool.map(look, pairs, each), 1):
                found.append(scanned)
                task.update(number, f"{number} of {len(pairs)} images and masks")
                cache.save_now_and_then()
    finally:  # a scan that is stopped goes on where it was
        pool.shutdown(cancel_futures=True)
        cache.save()
    return found


def _facts(cache: ScanCache, path: Path, kind: str, look: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    try:
        return cache.get(path, kind) or cache.put(path, kind, look(path))
    except FileError as error:
        return {"error": {"code": error.code, "reason": error.reason}}
    except OSError as error:
        return {"error": {"code": "E_CORRUPT", "reason": f"cannot be read ({error.strerror})"}}


def image_facts(path: Path, bands: Bands = None) -> dict[str, Any]:
    """Size, format, depth and channel statistics of an image; pixels without value do not count."""
    decoded = read_image(path, bands)
    pixels, without = decoded.pixels, decoded.nodata
    wide = pixels.reshape(-1, 1 if pixels.ndim == 2 else pixels.shape[2])
    counted = wide if without is None or without.all() else wide[~without.ravel()]
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
        "pixels": len(counted),
        "nodata": 0 if without is None else int(without.sum()),
        **(_of_numbers(counted) if counted.dtype == np.float32 else _of_levels(counted)),
        "look": look_of(pixels),
    }


def _of_levels(wide_PC: NDArray[Any]) -> dict[str, Any]:
    """Sums, percentiles and constancy of each channel of whole numbers, by their counts."""
    counts = [np.bincount(wide_PC[:, channel], minlength=256) for channel in range(wide_PC.shape[1])]
    levels = [np.arange(len(count), dtype=np.float64) for count in counts]
    shares = [count.cumsum() / count.sum() for count in counts]
    return {
        "sum": [float((level * count).sum()) for level, count in zip(levels, counts, strict=True)],
        "sum_of_squares": [float((level**2 * count).sum()) for level, count in zip(levels, counts, strict=True)],
        "low": [int(np.searchsorted(share, LOW)) for share in shares],
        "high": [int(np.searchsorted(share, 1 - LOW)) for share in shares],
        "constant": all(np.count_nonzero(count) == 1 for count in counts),
    }


def _of_numbers(wide_PC: NDArray[Any]) -> dict[str, Any]:
    """The same of numbers of any kind."""
    low, high = np.quantile(wide_PC, (LOW, 1 - LOW), axis=0)
    return {
        "sum": wide_PC.sum(axis=0, dtype=np.float64).tolist(),
        "sum_of_squares": np.square(wide_PC, dtype=np.float64).sum(axis=0).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "constant": bool((wide_PC.min(axis=0) == wide_PC.max(axis=0)).all()),
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
