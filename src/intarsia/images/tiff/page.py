"""TIFFs beyond what Pillow keeps whole: any number of bands, 16-bit colour, floating point, signed numbers, overviews.

Pillow reads 16-bit colour as 8-bit, leaves out a fourth band that is no transparency, and the second of two, without a word.
`page_of` says which files these are; tifffile reads them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import FileError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NODATA = 42113
_PART_OF_ANOTHER = 0b101
"""Bits of a page's kind: an overview, or a mask of transparency."""
_WHITE_IS_0, _BLACK_IS_0, _RGB, _CMYK = 0, 1, 2, 5
_ALPHA = (1, 2)
_SEPARATE = 2
"""Bands one after the other, which Pillow refuses for 16 bits."""
_MOST_PAGES = 1000


@dataclass(frozen=True)
class Page:
    """The page of a TIFF that holds its pixels."""

    page: Any
    pages: int
    """Pages of full size in the file."""
    nodata: float | None
    """The number that stands for no value (GDAL)."""

    @property
    def is_plain(self) -> bool:
        """Whether Pillow gives every value of it as it is stored."""
        page = self.page
        bits, bands = int(page.bitspersample), int(page.samplesperpixel)
        if int(page.planarconfig) == _SEPARATE:
            return False
        if page.photometric not in (_WHITE_IS_0, _BLACK_IS_0, _RGB):
            return page.photometric != _CMYK or bands == 4  # palettes, YCbCr, CMYK
        if page.sampleformat != 1 or bands - len(self.alpha) not in (1, 3):
            return False
        return bits <= 8 or (bits == 16 and bands == 1)

    @property
    def orientation(self) -> int:
        """As EXIF counts it; 1 where nothing is said."""
        tag = self.page.tags.get(274)
        return int(tag.value) if tag else 1

    @property
    def alpha(self) -> tuple[int, ...]:
        """Positions of the bands that the file calls transparency."""
        extra = [int(kind) for kind in self.page.extrasamples]
        first = self.page.samplesperpixel - len(extra)
        return tuple(first + place for place, kind in enumerate(extra) if kind in _ALPHA)

    def values(self, path: Path, most: int) -> NDArray[Any]:
        """(H, W, C), as stored.

        Args:
            most: numbers that may be decoded.

        Raises:
            FileError: the file is cut off, or too large.
        """
        page = self.page
        height, width, bands = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
        if 0 in (height, width, bands):
            raise FileError(path, "E_DIM", "has a side of 0 pixels")
        if height * width * bands > most:
            raise FileError(path, "E_TOO_LARGE", "has more values than are read; set INTARSIA_MAX_PIXELS to allow it")
        size = path.stat().st_size
        parts = zip(page.dataoffsets, page.databytecounts, strict=False)
        if any(start + length > size for start, length in parts):
            raise FileError(path, "E_TRUNCATED", "is cut off: the end of the file is missing")
        array = np.asarray(page.asarray())
        if page.axes == "SYX":
            array = np.moveaxis(array, 0, -1)
        return array.reshape(height, width, bands)


@contextmanager
def page_of(path: Path) -> Iterator[Page | None]:
    """The page of pixels; None if the file is no TIFF, or none that can be made sense of."""
    with path.open("rb") as file:
        if file.read(4) not in _MAGIC:
            yield None
            return
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it warns of what is refused here, or does not matter
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(tifffile.TiffFile(path))
            every: list[Any] = list(islice(opened.pages, _MOST_PAGES))
            found = [each for each in every if not int(each.subfiletype) & _PART_OF_ANOTHER]
            page = Page(found[0], len(found), float(found[0].nodata) if _NODATA in found[0].tags else None)
        except Exception:  # Pillow says what is wrong with it
            page = None
        yield page
