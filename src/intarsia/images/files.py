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
| E_MODE | a pixel format that is not read (float, 32-bit) |
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from intarsia.classes import ClassTable
from intarsia.errors import FileError
from intarsia.images.sniff import has_wrong_checksum, is_without_area, kind_of, notes_on

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif"})
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
Array = NDArray[np.uint8] | NDArray[np.uint16]


def max_pixels() -> int:
    """Largest image that is decoded: 178 million pixels, as Pillow allows, or INTARSIA_MAX_PIXELS."""
    return int(os.environ.get("INTARSIA_MAX_PIXELS", 178_956_970))


@dataclass(frozen=True)
class Decoded:
    """One decoded file: pixels, how they were stored, and what was noticed."""

    pixels: Array
    """(H, W) or (H, W, 3), uint8 or uint16."""
    format: str
    mode: str
    turned: bool = False
    """Whether an EXIF orientation was applied."""
    swapped: bool = False
    """Whether that orientation swapped height and width."""
    notes: tuple[str, ...] = ()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileError(
                path, "E_NOT_FILE", "is no regular file, but a folder, a pipe or a device; put a file there"
            )
        if status.st_size == 0:
            raise FileError(path, "E_EMPTY", "is empty (0 bytes)")
        if "INTARSIA_MAX_PIXELS" in os.environ:  # the user's own word; else Pillow's limit stays as it is
            Image.MAX_IMAGE_PIXELS = max_pixels()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > max_pixels():
                    raise _too_large(path)
                pages = getattr(image, "n_frames", 1)
                if pages > 1 and image.format != "MPO":
                    raise FileError(path, "E_PAGES", f"holds {pages} pages; save each as a file of its own")
                if image.format == "PNG" and has_wrong_checksum(path):
                    raise FileError(path, "E_CORRUPT", "is damaged (its content is not what its checksum says)")
                yield image
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


def _too_large(path: Path) -> FileError:
    reason = f"has more pixels than the limit of {max_pixels()}; set INTARSIA_MAX_PIXELS to allow it"
    return FileError(path, "E_TOO_LARGE", reason)


def read_image(path: Path | str) -> Decoded:
    """An image, upright: (H, W) grey or (H, W, 3) RGB, uint8 or uint16.

    EXIF orientation is applied; palettes and CMYK become RGB; an alpha channel is dropped; 16-bit grey stays 16-bit.

    Raises:
        FileError: the file is missing, damaged, too large, or no image.
    """
    path = Path(path)
    with _opened(path) as image:
        fmt, mode = str(image.format), image.mode
        before, orientation = image.size, orientation_of(image)
        upright = ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
        notes = notes_on(path, fmt)
        if orientation not in range(1, 9):
            notes.append("unreadable EXIF orientation passed over")
        if mode == "CMYK":
            notes.append("CMYK turned into RGB without its colour profile")
        if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            notes.append("alpha channel dropped")
        if _png_depth(path, fmt) == 16 and mode in ("RGB", "RGBA"):
            notes.append("16-bit colour read as 8-bit")
        pixels = _pixels(upright, path)
        turned = upright is not image
        return Decoded(pixels, fmt, mode, turned, turned and upright.size != before, tuple(notes))


def read_mask(path: Path | str) -> Decoded:
    """A mask as stored: (H, W) of values or palette indices, or (H, W, 3) of colours; never turned, never resampled.

    Raises:
        FileError: as `read_image`.
    """
    path = Path(path)
    with _opened(path) as image:
        fmt, mode = str(image.format), image.mode
        if mode == "P":
            pixels: Array = np.asarray(image).copy()
        elif mode == "1":
            pixels = np.asarray(image).astype(np.uint8)
        elif mode in ("LA", "La"):
            pixels = np.asarray(image.convert("L")).copy()
        else:
            pixels = _pixels(image, path)
        return Decoded(pixels, fmt, mode, notes=tuple(notes_on(path, fmt)))


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none; a number beyond 1..8 where it cannot be read."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # broken EXIF is as no EXIF: the pixels are still good
        return 0


def _png_depth(path: Path, fmt: str) -> int:
    if fmt != "PNG":
        return 8
    with path.open("rb") as file:
        return file.read(25)[-1]


def _pixels(image: Image.Image, path: Path) -> Array:
    mode = image.mode
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if mode == "I":
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise FileError(path, "E_MODE", "holds 32-bit values beyond 0..65535; convert it to 16-bit")
        return wide.astype(np.uint16)
    if mode == "F":
        wild = int((~np.isfinite(np.asarray(image))).sum())
        told = f", {wild} of them NaN or infinite" if wild else ""
        raise FileError(path, "E_MODE", f"holds floating-point values{told}; convert it to 8- or 16-bit")
    if mode in ("L", "RGB"):
        return np.asarray(image).copy()
    return np.asarray(image.convert("L" if mode in ("1", "LA", "La") else "RGB")).copy()


def write_class_map(path: Path, classes_HW: NDArray[np.uint8], table: ClassTable) -> None:
    """A palette PNG: class numbers as indices, class colours as palette."""
    image = Image.fromarray(np.ascontiguousarray(classes_HW))
    image.putpalette(table.palette())
    image.save(path, format="PNG", optimize=False)
