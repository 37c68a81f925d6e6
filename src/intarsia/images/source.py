"""An image that is read window by window, so that one larger than memory is an image like any other."""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from intarsia.images.files import Array


@dataclass(frozen=True)
class Window:
    """Pixels of a part of an image."""

    pixels: Array
    """(h, w) or (h, w, C): uint8, uint16, or float32 for all other kinds of number."""
    nodata: NDArray[np.bool_] | None = None
    """(h, w) where a pixel has no value; filled with something that is finite. None where all have one."""


class Source(ABC):
    """One image, open for reading. Use it as a context manager, or close it.

    `read` may be called by one thread at a time.
    """

    path: Path | None = None
    """The file; None for an array."""
    height: int
    width: int
    bands: int
    orientation: int = 1
    """As EXIF counts it; what is read is upright."""
    notes: tuple[str, ...] = ()
    """What was noticed in opening it, a sentence each."""
    metres: tuple[float, float] | None = None
    """Height and width of a pixel in metres, where the file tells it."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.height, self.width

    @property
    def is_in_memory(self) -> bool:
        """Whether the pixels are decoded already, so that reading costs nothing."""
        return False

    @abstractmethod
    def read(self, top: int, left: int, height: int, width: int) -> Window:
        """The pixels of a window that lies within the image.

        Raises:
            FileError: the file is damaged there.
        """

    def close(self) -> None:  # noqa: B027
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class ArraySource(Source):
    """An image in memory (also a memory-mapped one).

    Args:
        pixels: (H, W) or (H, W, C).
        nodata: (H, W) where there is no value.
    """

    def __init__(
        self,
        pixels: Array,
        nodata: NDArray[np.bool_] | None = None,
        *,
        path: Path | None = None,
        orientation: int = 1,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.pixels, self.nodata = pixels, nodata
        self.path, self.orientation, self.notes = path, orientation, notes
        self.height, self.width = pixels.shape[:2]
        self.bands = pixels.shape[2] if pixels.ndim == 3 else 1

    @property
    def is_in_memory(self) -> bool:
        return True

    def read(self, top: int, left: int, height: int, width: int) -> Window:
        where = np.s_[top : top + height, left : left + width]
        return Window(self.pixels[where], None if self.nodata is None else self.nodata[where])


def release(array: NDArray[Any]) -> None:
    """Let the pages of a mapped file go from memory; they are read again when they are needed."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
