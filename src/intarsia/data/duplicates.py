"""Images that look alike: a difference hash of each (Krawetz, "Kind of like that", 2013), and pairs that differ in few bits.

A hash has 64 bits that say where the picture, shrunk to 8 x 9, gets lighter from left to right, and 64 more from top to
bottom. Two images look alike if at most `NEAR` bits differ in either half. Pictures with hardly any contrast have no hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 4
"""Bits of 64 that may differ."""
_FLAT = 3.0
"""Standard deviation of the shrunk picture, on a scale of 256, below which its hash would be of noise."""
_ROWS = 1024


def look_of(pixels: NDArray[Any]) -> str:
    """32 hexadecimal digits of an image, (H, W) or (H, W, C) of any depth; "" where there is no contrast."""
    grey = pixels.astype(np.float32) if pixels.ndim == 2 else pixels.mean(axis=2, dtype=np.float32)
    shrunk = np.asarray(Image.fromarray(grey).resize((9, 9), Image.Resampling.BOX))
    low, high = (0.0, 255.0) if pixels.dtype == np.uint8 else (float(grey.min()), float(grey.max()))
    if shrunk.std() * 256 <= _FLAT * (high - low):
        return ""
    across, down = shrunk[:8, 1:] > shrunk[:8, :-1], shrunk[1:, :8] > shrunk[:-1, :8]
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).tobytes().hex()


def alike(first: Sequence[str], second: Sequence[str], most: int = NEAR) -> list[tuple[int, int]]:
    """Positions (in `first`, in `second`) of hashes that differ in at most `most` bits of each half; "" is like nothing."""
    places = [[index for index, look in enumerate(looks) if look] for looks in (first, second)]
    if not all(places):
        return []
    ours, theirs = (
        np.frombuffer(bytes.fromhex("".join(looks[index] for index in kept)), np.uint8).view(np.uint64).reshape(-1, 2)
        for looks, kept in zip((first, second), places, strict=True)
    )
    found = []
    for start in range(0, len(ours), _ROWS):
        block = ours[start : start + _ROWS]
        near = _bits(block[:, None, 0] ^ theirs[None, :, 0]) <= most
        rows, columns = np.nonzero(near)
        same = _bits(block[rows, 1] ^ theirs[columns, 1]) <= most
        found += [
            (places[0][start + int(row)], places[1][int(column)])
            for row, column in zip(rows[same], columns[same], strict=True)
        ]
    return found


def _bits(numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """How many bits are set in each number."""
    if hasattr(np, "bitwise_count"):
        counted: NDArray[np.uint8] = np.bitwise_count(numbers)
        return counted
    table = np.unpackbits(np.arange(65536, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(
        1, dtype=np.uint8
    )
    summed: NDArray[np.uint8] = table[np.ascontiguousarray(numbers)[..., None].view(np.uint16)].sum(-1, dtype=np.uint8)
    return summed
