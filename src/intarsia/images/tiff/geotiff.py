"""TIFFs with coordinates, read window by window through rasterio: as many pixels as a disk holds, one window in memory.

Values are those that `read_image` gives of the same file, so that a network sees the numbers it was trained on: 8 and 16 bits
stay, all others become float32; palettes and CMYK become RGB; alpha is dropped. A scale and offset that the file names are
therefore not applied, a note says so. An orientation tag is passed over: coordinates belong to the pixels as they are stored.

A pixel has no value where a mask or alpha says so, where each of its bands equals its nodata number, or where one is NaN or
infinite. An alpha band that is asked for among `bands` is a band like others and hides nothing.

| code | what was met, beside those of `images.files` |
|---|---|
| E_CHANGED | the file was written to, or replaced, since it was opened |
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import FileError
from intarsia.images.sniff import kind_of
from intarsia.images.source import Source, Window
from intarsia.images.tiff.ground import Ground, ground_of, stretch_of
from intarsia.images.tiff.page import page_of
from intarsia.optional import need

CACHE = 64
"""Megabytes of decoded blocks that GDAL keeps, all files together; its own default is 5 % of the memory."""
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GEO_TAGS = (33550, 33922, 34264, 34735, 42113, 50844)
"""Pixel scale, tie points (also ground control points), transformation, keys, GDAL's nodata, rational polynomials."""
_WORLD_FILES = (".tfw", ".tifw", ".tiffw", ".wld")
_MOST_STRETCH = 1.01
_SAMPLE = 256
"""Side of a window of which the mean is taken."""


def is_geotiff(path: Path | str) -> bool:
    """Whether a file is a TIFF with coordinates, or with what only GDAL knows of (nodata); a world file beside it counts."""
    path = Path(path)
    try:
        if not _is_tiff(path):
            return False
        import tifffile

        with tifffile.TiffFile(path) as opened:
            tags = opened.pages.first.tags
            if any(code in tags for code in _GEO_TAGS):
                return True
    except Exception:  # a damaged file: whoever reads it says so
        return False
    return any(path.with_suffix(suffix).is_file() for suffix in _WORLD_FILES)


def environment() -> Any:
    """GDAL's settings within a `with`: a bound on its cache."""
    return need("rasterio", extra="geo").Env(GDAL_CACHEMAX=CACHE)


class GeoSource(Source):
    """A TIFF, or a GDAL virtual raster (VRT) of several, open for reading. Reads of several threads wait for each other.

    Args:
        path: the file.
        bands: the file's bands to take, from 1, in this order; transparency is one of them. None: all but transparency.

    Raises:
        MissingExtra: rasterio is not installed.
        FileError: the file is missing, damaged, no TIFF, or has not these bands.
    """

    path: Path
    crs: Any
    """rasterio's CRS as the file says it, also one without an EPSG code; None where it says none."""
    transform: Any
    """Affine of (x, y) in pixels, (0, 0) the corner of the first, to the coordinate system; None where there is none."""
    gcps: tuple[Any, ...]
    """Ground control points, in `gcps_crs`."""
    rpcs: Any
    """Rational polynomial coefficients, or None."""
    ground: Ground | None
    """Metres and areas, where the coordinate system tells them."""

    def __init__(self, path: Path | str, bands: Sequence[int] | None = None) -> None:
        rasterio = need("rasterio", extra="geo")
        self.path = Path(path)
        self._lock = Lock()
        self._mean: NDArray[np.float64] | None = None
        self._state = _state_of(self.path)
        _check_pages(self.path)
        try:
            with environment(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # rasterio warns of files without coordinates
                self._file = rasterio.open(self.path, driver="GTiff" if _is_tiff(self.path) else "VRT")
                points, self.gcps_crs = self._file.gcps
        except rasterio.errors.RasterioError as error:
            raise _damaged(self.path, error) from None
        file = self._file
        try:
            self.height, self.width = file.height, file.width
            self.crs, self.gcps, self.rpcs = file.crs, tuple(points), file.rpcs
            self.transform = None if file.transform.is_identity else file.transform
            self.ground = ground_of(self.crs, self.transform) if self.transform else None
            self.metres = self.ground.metres(*self.size) if self.ground else None
            self._choose(bands)
            self.notes = tuple(self._noticed(bands))
        except BaseException:
            file.close()
            raise

    def _choose(self, bands: Sequence[int] | None) -> None:
        """What is read of the file, and what becomes of it."""
        interpretation = _enums().ColorInterp
        file, kinds = self._file, list(self._file.colorinterp)
        if any(np.dtype(dtype).kind not in "uif" for dtype in file.dtypes if dtype not in ("int8",)):
            raise FileError(self.path, "E_MODE", f"holds {file.dtypes[0]} numbers, which are no pixels")
        self.alpha = next((at for at, kind in enumerate(kinds, 1) if kind == interpretation.alpha), None)
        self._palette: NDArray[np.uint8] | None = None
        self._is_cmyk = file.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CMYK"  # GDAL makes RGB of it
        every = [at for at in range(1, file.count + 1) if at != self.alpha or bands is not None]
        there = len(every)
        levels = _levels(file)
        if kinds[0] == interpretation.palette and file.dtypes[0] == "uint8" and not _is_bilevel(file):
            self._palette = np.zeros((256, 3), np.uint8)
            for index, colour in file.colormap(1).items():
                if index < 256:
                    self._palette[index] = colour[:3]
            every, there = [1], 3
            levels = None
        elif self._is_cmyk:
            every, there = [1, 2, 3], 3
        if bands is not None and max(bands) > there:
            has = f"{there} band{'s' * (there != 1)}"
            raise FileError(self.path, "E_BANDS", f"has {has}, but band {max(bands)} is asked for (data.bands)")
        is_colour = self._palette is not None
        self._taken = None if bands is None or not is_colour else [band - 1 for band in bands]
        self._indexes = every if bands is None or is_colour else list(bands)
        self.bands = there if bands is None else len(bands)
        self._levels = levels
        flags = _enums().MaskFlags
        self._has_mask = any(flags.per_dataset in one and flags.alpha not in one for one in file.mask_flag_enums)
        if self.alpha in self._indexes:
            self.alpha = None

    def _noticed(self, bands: Sequence[int] | None) -> list[str]:
        file, notes = self._file, []
        if bands is None and self.alpha and not self._is_cmyk:
            notes.append("alpha channel dropped")
        if self._is_cmyk:
            notes.append("CMYK turned into RGB without its colour profile")
        if any(scale != 1 for scale in file.scales) or any(file.offsets):
            notes.append("scale and offset of the file are not applied: values are taken as stored, as in training")
        orientation = file.tags().get("TIFFTAG_ORIENTATION") or _orientation(self.path)
        if str(orientation) not in ("0", "1"):
            notes.append(f"orientation tag {orientation} passed over: coordinates belong to the stored pixels")
        if self.transform is None and self.gcps:
            notes.append("has ground control points but no transform: they are kept, no coordinates are made of them")
        elif self.transform is not None and self.crs is None:
            notes.append("has a transform but no coordinate system: none is guessed")
        if self.ground and self.ground.ellipsoid is None:
            stretch = stretch_of(self.crs, self.ground, *self.size)
            if stretch and max(stretch, 1 / stretch) > _MOST_STRETCH:
                notes.append(
                    f"the map projection makes areas {stretch:.3g} times those on the ground here; metres and m² are the map's"
                )
        return notes

    def check_unchanged(self) -> None:
        """
        Raises:
            FileError: the file was written to, or replaced, since it was opened (E_CHANGED).
        """
        if _state_of(self.path) != self._state:
            raise FileError(self.path, "E_CHANGED", "was changed while it was read; start again once it is complete")

    def pixel_area_m2(self, begin: int, end: int) -> NDArray[np.float64] | None:
        """m² of the pixels of rows begin..end-1: (rows, 1), or (rows, width) of a turned image in degrees; None if unknown."""
        return self.ground.pixel_areas(begin, end, self.width) if self.ground else None

    def read(self, top: int, left: int, height: int, width: int) -> Window:
        pixels, hidden = self._read(top, left, height, width)
        if hidden.any():
            if self._mean is None:
                self._mean = self._found_mean()
            pixels[hidden] = self._mean.astype(pixels.dtype)
        pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return Window(pixels, hidden if hidden.any() else None)

    def _read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(h, w, C) values, and (h, w) where there is none."""
        rasterio = need("rasterio", extra="geo")
        window = rasterio.windows.Window(left, top, width, height)
        self.check_unchanged()
        hidden: NDArray[np.bool_] = np.zeros((height, width), bool)
        try:
            with self._lock, environment():
                stored_CHW = self._file.read(self._indexes, window=window)
                if self.alpha:
                    hidden |= self._file.read(self.alpha, window=window) == 0
                if self._has_mask:
                    hidden |= self._file.read_masks(1, window=window) == 0
        except rasterio.errors.RasterioError as error:
            self.check_unchanged()
            raise _damaged(self.path, error) from None
        numbers = [self._file.nodatavals[index - 1] for index in self._indexes]
        hidden |= _without_value(stored_CHW, numbers)
        return self._converted(np.moveaxis(stored_CHW, 0, -1)), hidden

    def _found_mean(self) -> NDArray[np.float64]:
        """(C,) of the pixels with a value, 0 if there is none: of the image, or if it is large, of 8 x 8 windows all over it.

        It stands where there is no value, the same in every window, so that results do not depend on how an image is cut.
        """
        total, count = np.zeros(self.bands), 0
        for top in _spread(self.height):
            for left in _spread(self.width):
                pixels, hidden = self._read(top, left, min(_SAMPLE, self.height - top), min(_SAMPLE, self.width - left))
                total += pixels[~hidden].sum(axis=0, dtype=np.float64)
                count += int((~hidden).sum())
        return total / max(count, 1)

    def _converted(self, stored: NDArray[Any]) -> NDArray[Any]:
        """(H, W, C) values as `read_image` gives them."""
        if self._palette is not None:
            colours: NDArray[Any] = self._palette[stored[..., 0]]
            return colours if self._taken is None else colours[..., self._taken]
        if self._levels is not None:
            levels: NDArray[Any] = self._levels[stored]
            return levels
        return np.array(stored, stored.dtype if stored.dtype in (np.uint8, np.uint16) else np.float32, order="C")

    def close(self) -> None:
        with self._lock:
            self._file.close()


def _enums() -> Any:
    """What rasterio calls colours and masks."""
    return need("rasterio.enums", extra="geo")


def _state_of(path: Path) -> tuple[int, int]:
    """Time of last change and size of a file that can be read."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileError(path, "E_MISSING", "does not exist") from None
    except OSError as error:
        raise FileError(path, "E_CORRUPT", f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise FileError(path, "E_NOT_FILE", "is no regular file, but a folder, a pipe or a device; put a file there")
    if status.st_size == 0:
        raise FileError(path, "E_EMPTY", "is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise FileError(path, "E_CORRUPT", "cannot be read (Permission denied)")
    return status.st_mtime_ns, status.st_size


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def _check_pages(path: Path) -> None:
    """That a TIFF has one page, all of which is there."""
    with page_of(path) as page:
        if page is None:
            return
        if page.pages > 1:
            raise FileError(path, "E_PAGES", f"holds {page.pages} pages; save each as a file of its own")
        if _is_cut_off(path, page.page):
            raise FileError(path, "E_TRUNCATED", "is cut off: the end of the file is missing")


def _is_cut_off(path: Path, page: Any) -> bool:
    size = path.stat().st_size
    starts, lengths = np.asarray(page.dataoffsets, np.uint64), np.asarray(page.databytecounts, np.uint64)
    count = min(len(starts), len(lengths))
    return bool((starts[:count] + lengths[:count] > size).any())


def _orientation(path: Path) -> int:
    with page_of(path) as page:
        return page.orientation if page else 1


def _damaged(path: Path, error: Exception) -> FileError:
    text = " ".join(str(error).split())[:200]
    if not _is_tiff(path) and "not recognized as being in a supported file format" in text:
        return FileError(path, "E_NOT_IMAGE", f"is no TIFF ({kind_of(path)})")
    return FileError(path, "E_CORRUPT", f"is damaged ({text})")


def _spread(side: int) -> list[int]:
    """Where up to 8 windows begin, evenly."""
    if side <= 8 * _SAMPLE:
        return list(range(0, side, _SAMPLE))
    return [int(place) for place in np.linspace(0, side - _SAMPLE, 8)]


def _is_bilevel(file: Any) -> bool:
    """Whether it stores one bit of black or white, of which GDAL makes a palette."""
    bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
    return bits == 1 and {colour[:3] for colour in file.colormap(1).values()} == {(0, 0, 0), (255, 255, 255)}


def _levels(file: Any) -> NDArray[np.uint8] | None:
    """What 8-bit values become where few bits are stored, or white is 0; None: they stay."""
    if file.dtypes[0] != "uint8":
        return None
    bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
    values = np.arange(256)
    if bits in (1, 2, 4):
        values = np.minimum(values, 2**bits - 1) * (255 // (2**bits - 1))
    if file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES" and file.count == 1:
        values = 255 - values
    return None if np.array_equal(values, np.arange(256)) else values.astype(np.uint8)


def _without_value(stored_CHW: NDArray[Any], numbers: Sequence[float | None]) -> NDArray[np.bool_]:
    """(H, W) where every band equals its nodata number, or one is not finite."""
    shape = stored_CHW.shape[1:]
    bad = ~np.isfinite(stored_CHW).all(axis=0) if stored_CHW.dtype.kind == "f" else np.zeros(shape, bool)
    equal = np.full(shape, True)
    for plane, number in zip(stored_CHW, numbers, strict=True):
        if number is None or not np.isfinite(number) or not _holds(plane.dtype, number):
            return bad
        equal &= plane == plane.dtype.type(number)
    found: NDArray[np.bool_] = bad | equal
    return found


def _holds(dtype: np.dtype[Any], number: float) -> bool:
    """Whether a type can hold a number as a file says it."""
    return dtype.kind == "f" or (number == int(number) and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max)
