"""Pages of a TIFF by their strips and tiles: only those that a window meets are decoded.

The last ones decoded are kept in up to `CACHE_BYTES`; uncompressed rows are read from where they lie. The numbers are those of
`images.files.read_image`. H, W: a page; h, w: a window; C: bands.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.errors import FileError
from intarsia.images.files import frame_of, guarded
from intarsia.images.tiff.page import Page
from intarsia.images.values import as_pixels

CACHE_BYTES = 64 << 20
_NODATA, _WHITE_IS_0, _BLACK_IS_0, _RGB, _PALETTE, _CMYK, _YCBCR = 42113, 0, 1, 2, 3, 5, 6
_JPEG = (7, 34892, 33007)
_PART_OF_ANOTHER, _PREMULTIPLIED = 0b101, 1
_LARGEST_SEGMENT = 4 << 30


class OpenTiff:
    """An open TIFF that several sources share; it is closed when the last of them is."""

    def __init__(self, path: Path) -> None:
        import tifffile

        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it warns of what is refused here, or does not matter
        with guarded(path):
            try:
                self.tiff = tifffile.TiffFile(path)
                self.tiff.pages[0]
            except Exception:
                frame_of(path)  # Pillow says what is wrong with it
                raise
        self.path, self.users, self.lock = path, 1, threading.Lock()

    def pages(self) -> Iterator[Any]:
        """Pages of full size, without overviews and masks."""
        every: Any = self.tiff.pages
        with guarded(self.path):
            yield from (page for page in every if not int(page.keyframe.subfiletype) & _PART_OF_ANOTHER)

    def share(self) -> OpenTiff:
        self.users += 1
        return self

    def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.tiff.close()


def checked_tiff(path: Path | str) -> Path:
    path = Path(path)
    with guarded(path), path.open("rb") as file:
        is_tiff = file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    if not is_tiff:
        raise FileError(path, "E_NOT_IMAGE", "is no TIFF; this reader takes nothing else")
    return path


class Plane:
    """A page: windows of (h, w, C) as `read_image` gives them, before bands are chosen.

    Args:
        beyond: bytes from where the page says that its pixels begin to where they do.
        raw: whether all bands are wanted as they are stored, transparency too.
    """

    def __init__(self, path: Path, file: OpenTiff, page: Any, beyond: int, *, raw: bool) -> None:
        self.path, self.file, self.page, self.beyond = path, file, page, beyond
        with guarded(path):
            self.key = key = page.keyframe
            nodata = float(key.nodata) if _NODATA in key.tags else None
            self.tags = Page(key, 1, nodata)
            self.samples, depth, self.height, self.width, self.contiguous = (int(side) for side in key.shaped)
            if 0 in key.shaped:
                raise FileError(path, "E_DIM", "has a side of 0 pixels")
            self.dtype = np.dtype(key.dtype) if key.dtype is not None else None
            self.form = (
                f"photometric {int(key.photometric)}, {key.bitspersample} bits, compression {int(key.compression)}"
            )
            self.alpha = self.tags.alpha
            self.finish: Callable[[NDArray[Any]], NDArray[Any]] = as_pixels
            self.notes: tuple[str, ...] = ()
            self.is_readable = depth == 1 and self.dtype is not None and self._finish(raw=raw)
            self.rows = min(int(key.tilelength if key.is_tiled else key.rowsperstrip), self.height)
            self.columns = int(key.tilewidth) if key.is_tiled else self.width
            self._check_length()
        self.cache: OrderedDict[int, NDArray[Any] | None] = OrderedDict()
        self.cached = 0

    def _finish(self, *, raw: bool) -> bool:
        """Choose what makes pixels of stored numbers, as `read_image` does it; False if windows cannot be read."""
        key, bands, bits = self.key, int(self.key.samplesperpixel), int(self.key.bitspersample)
        if self.dtype is None or self.dtype.kind not in "uifb":
            return False
        drop = () if raw else self.alpha
        self.bands, self.finish = (
            bands - len(drop),
            lambda stored: as_pixels(np.delete(stored, drop, axis=2) if drop else stored),
        )
        if not self.tags.is_plain or (raw and key.photometric <= _RGB):
            return True
        if key.photometric == _PALETTE and bands == 1 and key.colormap is not None:
            colours = (np.asarray(key.colormap).T >> 8).astype(np.uint8)
            self.bands, self.finish = 3, lambda stored: colours[stored[..., 0]]
        elif key.photometric == _CMYK and bits == 8:
            self.notes = ("CMYK turned into RGB without its colour profile",)
            self.bands, self.finish = 3, lambda stored: _by_pillow(stored, "CMYK")
        elif key.photometric == _YCBCR and int(key.compression) in _JPEG and bits == 8 and bands == 3:
            self.bands, self.finish = 3, as_pixels  # the decoder gives RGB
        elif key.photometric == _RGB and bits == 8 and [int(kind) for kind in key.extrasamples] == [_PREMULTIPLIED]:
            self.bands, self.finish = 3, lambda stored: _by_pillow(stored, "RGBa")
        elif key.photometric in (_WHITE_IS_0, _BLACK_IS_0) and bands - len(drop) == 1 and bits in (1, 2, 4, 8):
            inverted, step = key.photometric == _WHITE_IS_0, 255 // (2**bits - 1)
            self.finish = lambda stored: _grey(np.delete(stored, drop, axis=2), step, inverted=inverted)
        elif key.photometric not in (_BLACK_IS_0, _WHITE_IS_0, _RGB) or bits not in (8, 16):
            return False
        return True

    def _check_length(self) -> None:
        offsets, lengths = (np.asarray(part, np.int64) for part in (self.page.dataoffsets, self.page.databytecounts))
        size = self.page.parent.filehandle.size
        self.is_final = bool(self.key.is_final) and len(offsets) > 0 and offsets[0] > 0 and not self.key.is_subsampled
        count = min(len(offsets), len(lengths))
        ends = offsets[:count] + lengths[:count]
        if self.is_final:
            ends = np.asarray([offsets[0] + self.beyond + int(self.key.nbytes)])
        if count == 0 or (ends > size).any():
            raise FileError(self.path, "E_TRUNCATED", "is cut off: the end of the file is missing")
        if self.beyond and not self.is_final:
            raise FileError(self.path, "E_MODE", "is a compressed stack that describes one page only; save each page")

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """(h, w, C) of a window of the page."""
        with guarded(self.path):
            take = self._from_rows if self.is_final else self._from_segments
            return self.finish(take(top, left, height, width))

    def _bytes(self, start: int, length: int) -> bytes:
        handle = self.page.parent.filehandle
        with self.file.lock:
            handle.seek(start)
            data: bytes = handle.read(length)
        if len(data) < length:
            raise FileError(self.path, "E_TRUNCATED", "is cut off: the end of the file is missing")
        return data

    def _from_rows(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """Uncompressed rows lie one after another; each band of its own where samples are separate."""
        assert self.dtype is not None
        stored = self.dtype.newbyteorder(self.key.parent.byteorder)
        pixel, first = stored.itemsize * self.contiguous, int(self.page.dataoffsets[0]) + self.beyond
        out = np.empty((height, width, self.samples, self.contiguous), self.dtype)
        step = 1 if width < self.width else max(1, CACHE_BYTES // (pixel * width))
        for sample, row in product(range(self.samples), range(0, height, step)):
            rows = min(step, height - row)
            at = first + ((sample * self.height + top + row) * self.width + left) * pixel
            values = np.frombuffer(self._bytes(at, rows * width * pixel), stored)
            out[row : row + rows, :, sample] = values.reshape(rows, width, self.contiguous)
        return out.reshape(height, width, -1)

    def _from_segments(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        out = np.empty((height, width, self.samples, self.contiguous), self.dtype)
        down, across = ceil(self.height / self.rows), ceil(self.width / self.columns)
        lines = range(top // self.rows, (top + height - 1) // self.rows + 1)
        places = range(left // self.columns, (left + width - 1) // self.columns + 1)
        for sample, line, place in product(range(self.samples), lines, places):
            y, x = line * self.rows, place * self.columns
            segment = self._segment((sample * down + line) * across + place)
            above, before = max(top, y), max(left, x)
            below, behind = min(top + height, y + self.rows), min(left + width, x + self.columns)
            part = self.key.nodata if segment is None else segment[above - y : below - y, before - x : behind - x]
            out[above - top : below - top, before - left : behind - left, sample] = part
        return out.reshape(height, width, -1)

    def _segment(self, number: int) -> NDArray[Any] | None:
        """(rows, columns, C) of a strip or tile; None for one that the file leaves out."""
        if number in self.cache:
            self.cache.move_to_end(number)
            return self.cache[number]
        assert self.dtype is not None
        if self.rows * self.columns * self.contiguous * self.dtype.itemsize > _LARGEST_SEGMENT:
            raise FileError(self.path, "E_TOO_LARGE", "is compressed in one piece of more than 4 GB; save it in tiles")
        start, length = int(self.page.dataoffsets[number]), int(self.page.databytecounts[number])
        data = self._bytes(start, length) if start and length else None
        more: dict[str, Any] = {"_fullsize": False}
        if int(self.key.compression) in (6, *_JPEG):
            more |= {"jpegtables": self.page.jpegtables, "jpegheader": self.key.jpegheader}
        decode: Any = self.key.decode
        decoded = decode(data, number, **more)[0]
        segment = None if decoded is None else np.asarray(decoded)[0]
        self.cache[number] = segment
        self.cached += 0 if segment is None else segment.nbytes
        while self.cached > CACHE_BYTES and len(self.cache) > 1:
            _, oldest = self.cache.popitem(last=False)
            self.cached -= 0 if oldest is None else oldest.nbytes
        return segment


def _grey(stored: NDArray[Any], step: int, *, inverted: bool) -> NDArray[Any]:
    """Bits as 0..255."""
    grey = stored.astype(np.uint8) * np.uint8(step)
    return 255 - grey if inverted else grey


def _by_pillow(stored: NDArray[Any], mode: str) -> NDArray[Any]:
    height, width = stored.shape[:2]
    image = Image.frombytes(mode, (width, height), np.ascontiguousarray(stored).tobytes())
    return np.asarray(image.convert("RGB"))
