"""Class maps as plain TIFFs, without rasterio: tiles of 512, deflate, class colours, BigTIFF where 4 GB might not do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE, ClassTable
from intarsia.errors import SaveError
from intarsia.images.source import release

TILE = 512
_GDAL_METADATA, _GDAL_NODATA, _ASCII = 42112, 42113, 2
_CLASSIC = (1 << 32) - (1 << 27)
"""Bytes of pixels that fit a TIFF with 32-bit offsets even where deflate makes nothing smaller."""


def write_class_tiff(
    path: Path | str,
    classes: NDArray[np.uint8],
    table: ClassTable,
    *,
    tags: Mapping[str, str] | None = None,
) -> None:
    """A class map: class numbers, 255 where ignored, class colours as palette; class names as tags that GDAL reads.

    Equal input gives equal bytes. Memory does not grow with the image.

    Args:
        classes: (H, W), may be mapped from a file that is larger than memory.
        tags: more to be stored, such as the model's sha256.

    Raises:
        SaveError: the file cannot be written.
    """
    import tifffile

    path = Path(path)
    named = {**{f"CLASS_{index}": name for index, name in enumerate(table.names)}, **(tags or {})}
    # escaped twice: once for XML, once as GDAL reads the text of an item
    items = "".join(f"  <Item name={quoteattr(key)}>{escape(escape(value))}</Item>\n" for key, value in named.items())
    text = f"<GDALMetadata>\n{items}</GDALMetadata>\n".encode()
    nodata = str(IGNORE).encode()
    palette = np.asarray(table.palette(), np.uint16).reshape(256, 3).T * 257
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
            part = Path(folder) / "image.tif"
            with tifffile.TiffWriter(part, bigtiff=_padded(classes.shape) > _CLASSIC) as file:
                file.write(
                    _tiles(classes),
                    shape=classes.shape,
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    compression="adobe_deflate",
                    photometric="palette",
                    colormap=palette,
                    metadata=None,
                    software=False,
                    maxworkers=1,
                    extratags=[
                        (_GDAL_METADATA, _ASCII, len(text) + 1, text + b"\0", True),
                        (_GDAL_NODATA, _ASCII, len(nodata) + 1, nodata + b"\0", True),
                    ],
                )
            os.replace(part, path)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error.strerror or error}).") from None


def _padded(size: tuple[int, ...]) -> int:
    """Pixels of whole tiles."""
    return (-(-size[0] // TILE) * TILE) * (-(-size[1] // TILE) * TILE)


def _tiles(classes: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Tiles of a class map, row after row; ignored beyond its edge."""
    for top in range(0, classes.shape[0], TILE):
        rows = np.asarray(classes[top : top + TILE])
        for left in range(0, classes.shape[1], TILE):
            part = rows[:, left : left + TILE]
            tile = np.full((TILE, TILE), IGNORE, np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
        release(classes)
