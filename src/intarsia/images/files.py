"""Safe decoding of image and mask files, and writing of class maps.

Formats are told by content, never by extension; sizes are checked before pixels are decoded; a damaged file raises
`FileError` with a stable code and is never half read.

| code | what was met |
|---|---|
| E_EMPTY | a file of 0 bytes |
| E_NOT_FILE | a pipe, a device or a folder |
| E_NOT_IMAGE | another kind of file |
| E_DIM | a side of 0 pixels |
| E_METADATA_BOMB | text beside the pixels that unpacks to many megabytes |
| E_TRUNCATED, E_CORRUPT | the end is missing; the content is damaged |
| E_TOO_LARGE | more pixels than `max_pixels()` |
| E_PAGES | several pages or frames in one file |
| E_MODE | a pixel format that is not read, such as complex numbers |
| E_BANDS | fewer bands than were asked for |
"""

from __future__ import annotations

import os
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from intarsia.classes import ClassTable
from intarsia.errors import FileError
from intarsia.images.png import Png, png_of
from intarsia.images.sniff import is_without_area, kind_of, notes_on
from intarsia.images.tiff.page import Page, page_of

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif"})
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
Array = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
TURNS: Mapping[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""EXIF orientation to what turns (H, W, ...) as stored upright."""
_BACK = {6: 8, 8: 6}
"""What undoes a turn, where it is another."""


def max_pixels() -> int:
    """Largest image that is decoded: 178 million pixels, as Pillow allows, or INTARSIA_MAX_PIXELS."""
    return int(os.environ.get("INTARSIA_MAX_PIXELS", 178_956_970))


@dataclass(frozen=True)
class Decoded:
    """One decoded file: pixels, how they were stored, and what was noticed."""

    pixels: Array
    """(H, W) or (H, W, C): uint8, uint16, or float32 for all other kinds of number."""
    format: str
    mode: str
    orientation: int = 1
    """As EXIF counts it; the pixels are upright."""
    notes: tuple[str, ...] = ()
    nodata: NDArray[np.bool_] | None = None
    """(H, W) where a pixel has no value (NaN, infinite, or what the file calls so); filled with the mean of the others."""

    @property
    def turned(self) -> bool:
        """Whether an orientation was applied."""
        return self.orientation in TURNS

    @property
    def swapped(self) -> bool:
        """Whether it swapped height and width."""
        return self.orientation in range(5, 9)


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file as a `FileError`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileError(
                path, "E_NOT_FILE", "is no regular file, but a folder, a pipe or a device; put a file there"
            )
        if status.st_size == 0:
            raise FileError(path, "E_EMPTY", "is empty (0 bytes)")
        yield
    except FileError:
        raise
    except UnidentifiedImageError:
        if is_without_area(path):
            raise FileError(path, "E_DIM", "has a side of 0 pixels") from None
        raise FileError(path, "E_NOT_IMAGE", f"is no image file ({kind_of(path)})") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except FileNotFoundError:
        raise FileError(path, "E_MISSING", "does not exist") from None
    except OSError as error:
        if "truncated" in str(error).lower():
            raise FileError(path, "E_TRUNCATED", "is cut off: the end of the file is missing") from None
        raise FileError(path, "E_CORRUPT", f"cannot be read ({error})") from None
    except Exception as error:  # decoders raise all sorts over damage: SyntaxError, TypeError, struct.error, ...
        if "MAX_TEXT" in str(error):
            raise FileError(path, "E_METADATA_BOMB", "holds text that unpacks to more than 1 MB; strip it") from None
        raise FileError(path, "E_CORRUPT", f"is damaged ({error or type(error).__name__})") from error


@contextmanager
def _opened(path: Path, page: Page | None) -> Iterator[tuple[Image.Image, Png | None]]:
    if "INTARSIA_MAX_PIXELS" in os.environ:  # the user's own word; else Pillow's limit stays as it is
        Image.MAX_IMAGE_PIXELS = max_pixels()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels():
                raise _too_large(path)
            _one_page(path, page.pages if page else getattr(image, "n_frames", 1) if image.format != "MPO" else 1)
            yield image, png_of(path) if image.format == "PNG" else None


def _one_page(path: Path, pages: int) -> None:
    if pages > 1:
        raise FileError(path, "E_PAGES", f"holds {pages} pages; save each as a file of its own")


def _too_large(path: Path) -> FileError:
    reason = f"has more pixels than the limit of {max_pixels()}; set INTARSIA_MAX_PIXELS to allow it"
    return FileError(path, "E_TOO_LARGE", reason)


def read_image(path: Path | str, bands: Sequence[int] | None = None) -> Decoded:
    """An image, upright: (H, W) of one band, else (H, W, C).

    EXIF orientation is applied; palettes and CMYK become RGB; transparency is dropped. 8 and 16 bits stay, all other
    numbers become float32.

    Args:
        bands: the file's bands to take, from 1, in this order; transparency is one of them. None: all but transparency.

    Raises:
        FileError: the file is missing, damaged, too large, no image, or has not these bands.
    """
    path = Path(path)
    with guarded(path), page_of(path) as page:
        if page and not (page.is_plain and (bands is None or page.page.photometric > 2)):
            return _of_page(path, page, bands)
        with _opened(path, page) as (image, png):
            return _of_pillow(path, image, png, bands, page.nodata if page else None)


def _of_pillow(
    path: Path, image: Image.Image, png: Png | None, bands: Sequence[int] | None, nodata: float | None
) -> Decoded:
    fmt, mode = str(image.format), image.mode
    orientation = orientation_of(image, png)
    notes = notes_on(path, fmt)
    if orientation not in range(1, 9):
        notes.append("unreadable EXIF orientation passed over")
    if mode == "CMYK":
        notes.append("CMYK turned into RGB without its colour profile")
    if bands is None and (mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info):
        notes.append("alpha channel dropped")
    if png and png.depth == 16 and mode in ("RGB", "RGBA", "LA"):
        stored = _deep(path, image, png)
        stored = without_alpha(stored) if bands is None else stored
    else:
        stored = _pixels(image, png, path, whole=bands is not None)
    if fmt == "TIFF" and orientation_of(image) != orientation:  # Pillow has turned it
        stored = as_stored(stored, orientation)
    return _upright(_chosen(path, stored, bands), fmt, mode, orientation, notes, nodata)


def _deep(path: Path, image: Image.Image, png: Png) -> NDArray[Any]:
    """(H, W, C) of a PNG with 16 bits a channel, which Pillow cuts to 8."""
    stored = png.pixels(16)
    if stored is None:
        image.load()  # tells what is damaged
        raise FileError(path, "E_TRUNCATED", "is cut off: the end of the file is missing")
    return stored


def _of_page(path: Path, page: Page, bands: Sequence[int] | None) -> Decoded:
    _one_page(path, page.pages)
    if page.page.imagelength * page.page.imagewidth > max_pixels():
        raise _too_large(path)
    values = page.values(path, 4 * max_pixels())
    notes, alpha = notes_on(path, "TIFF"), page.alpha
    if bands is None and alpha:
        notes.append("alpha channel dropped")
        values = np.delete(values, alpha, axis=2)
    if values.dtype.kind not in "uifb":
        raise FileError(path, "E_MODE", f"holds {values.dtype} numbers, which are no pixels")
    kept = values if values.dtype in (np.uint8, np.uint16) else values.astype(np.float32)
    return _upright(_chosen(path, kept, bands), "TIFF", str(values.dtype), page.orientation, notes, page.nodata)


def _upright(
    stored: NDArray[Any], fmt: str, mode: str, orientation: int, notes: list[str], nodata: float | None
) -> Decoded:
    turn = TURNS.get(orientation)
    pixels, there = filled(np.ascontiguousarray(turn(stored)) if turn else stored, nodata)
    return Decoded(pixels, fmt, mode, orientation, tuple(notes), there)


def _chosen(path: Path, stored: NDArray[Any], bands: Sequence[int] | None) -> NDArray[Any]:
    """The bands that were asked for; (H, W) if it is one."""
    planes = stored if stored.ndim == 3 else stored[..., None]
    if bands is not None:
        if max(bands) > planes.shape[2]:
            there = f"{planes.shape[2]} band{'s' * (planes.shape[2] != 1)}"
            raise FileError(path, "E_BANDS", f"has {there}, but band {max(bands)} is asked for (data.bands)")
        planes = planes[..., [band - 1 for band in bands]]
    return np.ascontiguousarray(planes[..., 0] if planes.shape[2] == 1 else planes)


def filled(pixels: NDArray[Any], nodata: float | None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The pixels with the mean of each band where there is no value, and where that is; None where all have one."""
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    there: NDArray[np.bool_] = np.zeros(planes.shape[:2], bool)
    if planes.dtype == np.float32:
        there |= ~np.isfinite(planes).all(axis=2)
    if nodata is not None and np.isfinite(nodata):
        there |= (planes == planes.dtype.type(nodata)).all(axis=2) if _holds(planes.dtype, nodata) else False
    if not there.any():
        return pixels, None
    planes[there] = planes[~there].mean(axis=0, dtype=np.float64).astype(planes.dtype) if not there.all() else 0
    return pixels, there


def _holds(dtype: np.dtype[Any], number: float) -> bool:
    """Whether a type can hold a number as a file says it."""
    return dtype.kind == "f" or (number == int(number) and 0 <= number <= np.iinfo(dtype).max)


def read_mask(path: Path | str) -> Decoded:
    """A mask as stored: (H, W) of values or palette indices, or (H, W, 3) of colours; never turned, never resampled.

    Raises:
        FileError: as `read_image`.
    """
    path = Path(path)
    with guarded(path), page_of(path) as page:
        if page and (not page.is_plain or page.orientation in TURNS):  # Pillow would turn it
            _one_page(path, page.pages)
            stored = np.delete(page.values(path, 4 * max_pixels()), page.alpha, axis=2)
            return Decoded(_numbers(path, stored), "TIFF", str(stored.dtype), notes=tuple(notes_on(path, "TIFF")))
        with _opened(path, page) as (image, png):
            fmt, mode = str(image.format), image.mode
            if mode == "P":
                pixels: Array = np.asarray(image).copy()
            elif mode == "1":
                pixels = np.asarray(image).astype(np.uint8)
            elif mode in ("LA", "La"):
                pixels = np.asarray(image.convert("L")).copy()
            else:
                pixels = _pixels(image, png, path)
            return Decoded(pixels, fmt, mode, notes=tuple(notes_on(path, fmt)))


def _numbers(path: Path, stored_HWC: NDArray[Any]) -> Array:
    """A mask of any kind of number, if it is one of classes or colours."""
    bands = stored_HWC.shape[2]
    if stored_HWC.dtype == np.uint8 and bands in (1, 3):
        return stored_HWC[..., 0].copy() if bands == 1 else stored_HWC
    if bands != 1:
        raise FileError(path, "E_MODE", f"holds {bands} bands of {stored_HWC.dtype}; a mask has one number a pixel")
    stored = stored_HWC[..., 0]
    if stored.dtype.kind not in "uifb" or (stored.dtype.kind == "f" and not np.array_equal(stored, np.rint(stored))):
        raise FileError(path, "E_MODE", f"holds {stored.dtype} numbers that are not whole; a mask holds class numbers")
    if stored.size and (stored.min() < 0 or stored.max() > 65535):
        met = f"{stored.min():g} to {stored.max():g}"
        raise FileError(path, "E_MODE", f"holds values {met}; those of a mask lie within 0..65535")
    return stored.astype(np.uint16)


def frame_of(path: Path) -> tuple[tuple[int, int], int]:
    """Height and width of the upright image, and the orientation of the stored one; pixels are not decoded.

    Raises:
        FileError: as `read_image`.
    """
    with guarded(path), page_of(path) as page:
        if page:
            orientation, height, width = page.orientation, int(page.page.imagelength), int(page.page.imagewidth)
            if height * width > max_pixels():
                raise _too_large(path)
        else:
            with _opened(path, None) as (image, png):
                orientation, (width, height) = orientation_of(image, png), image.size
    return ((width, height) if orientation in range(5, 9) else (height, width)), orientation


def as_stored(upright: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) in the frame of a file with this orientation: undoes what `TURNS` did."""
    turn = TURNS.get(_BACK.get(orientation, orientation))
    return np.ascontiguousarray(turn(upright)) if turn else upright


def orientation_of(image: Image.Image, png: Png | None = None) -> int:
    """The EXIF orientation, 1 where there is none; a number beyond 1..8 where it cannot be read.

    Args:
        png: its file; without it, Pillow decodes the pixels of a PNG to see what comes after them.
    """
    try:
        known = png is not None and not png.tells_late
        exif = Image.Image.getexif(image) if known else image.getexif()
        return int(exif.get(0x0112, 1))
    except Exception:  # broken EXIF is as no EXIF: the pixels are still good
        return 0


def without_alpha(stored: NDArray[Any]) -> NDArray[Any]:
    """(H, W) or (H, W, 3) of grey or colours, which may have transparency as their last band."""
    if stored.ndim == 2 or stored.shape[2] == 3:
        return stored
    return stored[..., 0] if stored.shape[2] == 2 else stored[..., :3]


def _pixels(image: Image.Image, png: Png | None, path: Path, *, whole: bool = False) -> Array:
    """(H, W) or (H, W, 3); `whole`: with transparency, (H, W, 2) or (H, W, 4)."""
    found = png.pixels(8) if png else None
    if found is not None:
        return found if whole else without_alpha(found)
    mode = image.mode
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if mode in ("I", "F"):
        return _numbers(path, np.asarray(image)[..., None])
    if mode in ("L", "RGB") or (whole and mode in ("LA", "RGBA")):
        return np.asarray(image).copy()
    grey = {"1": "L", "LA": "L", "La": "L"}
    if whole and ("transparency" in image.info or mode in ("PA", "La", "RGBa")):
        return np.asarray(image.convert("LA" if mode in grey else "RGBA")).copy()
    return np.asarray(image.convert(grey.get(mode, "RGB"))).copy()


def write_class_map(path: Path, classes_HW: NDArray[np.uint8], table: ClassTable) -> None:
    """A palette PNG: class numbers as indices, class colours as palette.

    Runs of equal numbers are all that is packed: in a third of the time, to 5 % more than by looking for other repeats too
    (CamVid's predictions).
    """
    image = Image.fromarray(np.ascontiguousarray(classes_HW))
    image.putpalette(table.palette())
    image.save(path, format="PNG", optimize=False, compress_type=zlib.Z_RLE)
