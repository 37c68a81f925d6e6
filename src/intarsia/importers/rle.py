"""COCO's run lengths: column after column, the first run without the region; plain lists, or text of 6 bits a letter.

In the text a run, from the fourth on less the last but one before it, is cut into 5 bits a letter, the lowest first; the sixth
bit says that more follow; the last letter's fifth bit is the sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_LETTERS = 7
"""Of one run: 35 bits."""


def decode_rle(counts: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) the region of run lengths.

    Args:
        counts: a list of them, or COCO's text.

    Raises:
        ValueError: they are no run lengths, or do not add up to the size; the message says what they are.
    """
    runs = _of_text(counts) if isinstance(counts, str) else _of_list(counts)
    height, width = size
    if len(runs) and (runs.min() < 0 or runs.max() > height * width):
        raise ValueError(f"has runs from {runs.min()} to {runs.max()} pixels, in {height * width}")
    if (total := int(runs.sum())) != height * width:
        raise ValueError(f"has runs of {total} pixels together, not of {height} x {width} = {height * width}")
    inside = np.repeat((np.arange(len(runs)) & 1).astype(bool), runs)
    return inside.reshape(size, order="F")


def _of_list(counts: Any) -> NDArray[np.int64]:
    if not isinstance(counts, list):
        raise ValueError("has counts that are neither a list nor a text")
    try:
        array = np.asarray(counts)
    except (ValueError, OverflowError):
        raise ValueError("has counts that are no whole numbers") from None
    if counts and (array.ndim != 1 or array.dtype.kind != "i"):
        raise ValueError("has counts that are no whole numbers")
    return array.astype(np.int64)


def _of_text(text: str) -> NDArray[np.int64]:
    if not text:
        return np.zeros(0, np.int64)
    letters = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if letters.min() < 0 or letters.max() > 63 or letters[-1] & 32:
        raise ValueError("has counts that are no text of COCO's, or one that is cut off")
    last = np.flatnonzero(letters & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if lengths.max() > MOST_LETTERS:
        raise ValueError("has counts with a number that is too large")
    place = np.arange(len(letters)) - np.repeat(first, lengths)
    runs = np.add.reduceat((letters & 31) << (5 * place), first)
    runs -= np.where(letters[last] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs


def runs_of(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Run lengths of a region."""
    flat = inside.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0] * (1 + int(flat[0])), changes, [flat.size]))
    return np.diff(starts).astype(np.int64)


def encode_rle(inside: NDArray[np.bool_]) -> str:
    """The text of a region, letter by letter that of pycocotools."""
    return _text(runs_of(inside))


def encode_part(pixels: NDArray[np.bool_], origin: tuple[int, int], size: tuple[int, int]) -> str:
    """The text of a region cut to a box, in an image of a size.

    Args:
        origin: row and column of the box.
    """
    height, (top, left), columns = size[0], origin, pixels.shape[1]
    strip = np.zeros((height, columns), bool)
    strip[top : top + pixels.shape[0]] = pixels
    runs = runs_of(strip)
    runs[0] += left * height
    after = (size[1] - left - columns) * height
    if len(runs) % 2:
        runs[-1] += after
    elif after:
        runs = np.append(runs, after)
    return _text(runs)


def _text(runs: NDArray[np.int64]) -> str:
    left = runs.copy()
    left[3:] -= runs[1:-2]
    letters = np.full((MOST_LETTERS, len(left)), -1, np.int64)
    going = np.ones(len(left), bool)
    for place in range(MOST_LETTERS):
        bits, left = left & 31, left >> 5
        more = going & (left != np.where(bits & 16, -1, 0))
        letters[place, going] = (bits | (more * 32))[going] + 48
        going = more
    flat = letters.T.ravel()
    return flat[flat >= 0].astype(np.uint8).tobytes().decode("ascii")
