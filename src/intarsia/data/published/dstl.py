"""DSTL Satellite Imagery Feature Detection (Kaggle, 2017): the 25 labelled square kilometres.

Source: https://www.kaggle.com/c/dstl-satellite-imagery-feature-detection . Licence: the competition's rules; imagery
DigitalGlobe. Classes: 10, which overlap; here one number a pixel: background, and what lies on top by the order of `ORDER`
(crops at the bottom, vehicles on top). Images: 25 with labels of 450. Sizes: about 3350 x 3390 (three_band).
Layout: three_band/ID.tif, train_wkt_v4.csv (ImageId, ClassType, MultipolygonWKT), grid_sizes.csv (ImageId, Xmax, Ymin).
Polygons are in the competition's own coordinates, scaled to pixels as its tutorial says: x W'/Xmax with W' = W W/(W+1), and
y H'/Ymin with H' = H H/(H+1). A pixel belongs to a polygon if its centre does, even-odd.
No split is published: it is drawn, with the tiles of one region (6010_...) together (`group`).

`imagery=rgb`: 8-bit composites of three_band, each band stretched linearly from its 2nd to its 98th percentile in the image to
0..255; values of different images can thus not be compared. `imagery=all`: 20 bands as stored, 16 bits, on the grid of
three_band: red, green, blue; sixteen_band/ID_M.tif (8 bands, coastal to near infrared); ID_A.tif (8, short-wave infrared);
ID_P.tif (panchromatic).
Citation: DSTL, "Satellite Imagery Feature Detection", Kaggle, 2017.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.data.base import DATASETS
from intarsia.data.layout import Pair
from intarsia.data.published.base import Found, Published, value_table
from intarsia.data.published.convert import Converter
from intarsia.data.published.sheet import Sheet
from intarsia.data.published.wkt import fill, read_polygons
from intarsia.errors import DataError, FileError
from intarsia.images.files import read_image
from intarsia.progress import Progress

NAMES = (
    "background", "buildings", "structures", "road", "track", "trees", "crops", "waterway", "standing water",
    "large vehicles", "small vehicles",
)  # fmt: skip
"""Class numbers are the competition's class types."""
ORDER = (6, 5, 7, 8, 4, 3, 2, 1, 9, 10)
"""Class types as they are painted, the last on top."""
SIXTEEN = {"M": 8, "A": 8, "P": 1}
"""Files of sixteen_band and their bands."""
TABLE = value_table(NAMES, dict(enumerate(NAMES)))


@DATASETS.family("dstl")
class DstlConfig(Published):
    """DSTL: satellite images, 10 classes as polygons; the RGB composite or all 20 bands."""

    sheet: ClassVar[Sheet] = Sheet(
        title="DSTL",
        source="https://www.kaggle.com/c/dstl-satellite-imagery-feature-detection",
        licence="the competition's rules",
        classes="10 and background",
        images="25, no split",
        sizes="about 3350 x 3390",
        layout="three_band/ID.tif (all bands: also sixteen_band/ID_M.tif, _A, _P), train_wkt_v4.csv and grid_sizes.csv",
        citation='DSTL, "Satellite Imagery Feature Detection", Kaggle, 2017',
        steps=(
            "Accept the rules at https://www.kaggle.com/c/dstl-satellite-imagery-feature-detection/rules (with an account).",
            (
                "Download three_band.zip, for all bands sixteen_band.zip, train_wkt_v4.csv.zip and grid_sizes.csv.zip, "
                "on the page or with "
                "`kaggle competitions download -c dstl-satellite-imagery-feature-detection`."
            ),
            "Unpack all into one folder.",
        ),
    )

    imagery: Literal["rgb", "all"] = "rgb"
    """The RGB composite, 8 bits; or all 20 bands, 16 bits."""
    group: str | None = r"^(\d+)_"
    """Regular expression on the images' names; the tiles of one region stay on one side of the split."""

    def find(self, root: Path, progress: Progress) -> Found:
        bands = self.folder(root, "three_band")
        grids, wkt = (self._file(root, name) for name in ("grid_sizes.csv", "train_wkt_v4.csv"))
        scales = {row[0]: (float(row[1]), float(row[2])) for row in _rows(grids)}
        texts: dict[str, list[tuple[int, str]]] = {}
        for row in _rows(wkt):
            texts.setdefault(row[0], []).append((int(row[1]), row[2]))
        found, converter = Found(TABLE), Converter("dstl")
        for name, polygons in sorted(texts.items()):
            source = bands / f"{name}.tif"
            if not source.is_file():
                raise self.other(root, f"there is no three_band/{name}.tif, but train_wkt_v4.csv has its polygons")
            if name not in scales:
                raise self.other(root, f"grid_sizes.csv has no line for {name}")
            every = self.imagery == "all"
            others = [root / "sixteen_band" / f"{name}_{kind}.tif" for kind in SIXTEEN] if every else []
            image, mask = converter.ask(
                name,
                [path for path in (source, grids, wkt, *others) if path.is_file()],
                ("bands.tif" if every else "rgb", "mask"),
                partial(_convert, source, polygons, scales[name], every=every),
            )
            found.pairs.append(Pair(name, None, image, mask))
        converter.run(progress)
        values = (
            "values as stored" if self.imagery == "all" else "each band stretched from its 2nd to its 98th percentile"
        )
        found.notes.append(f"{values}; overlapping classes: the upper one")
        return found

    def _file(self, root: Path, name: str) -> Path:
        """A table, which some unpackers put into a folder of its name."""
        for path in (root / name, root / name / name):
            if path.is_file():
                return path
        raise self.other(root, f"there is no file {name}")


def _rows(path: Path) -> list[list[str]]:
    """The lines of a table of three columns, without its head."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))[1:]
    except (csv.Error, UnicodeDecodeError) as error:
        raise FileError(path, "E_CORRUPT", f"is no table ({error})") from None
    if any(len(row) != 3 for row in rows):
        raise FileError(path, "E_CORRUPT", "has lines that are not three columns")
    return rows


def _convert(
    source: Path, polygons: Sequence[tuple[int, str]], grid: tuple[float, float], *, every: bool
) -> list[NDArray[Any]]:
    """The image, RGB composite or all bands, and its mask."""
    bands = read_image(source).pixels
    if bands.ndim != 3 or bands.shape[2] != 3:
        raise FileError(source, "E_BANDS", "has not three bands")
    height, width = bands.shape[:2]
    scale = (width * width / (width + 1) / grid[0], height * height / (height + 1) / grid[1])
    image = twenty_bands(source) if every else stretched(bands)
    return [image, paint(polygons, scale, (height, width), source.stem)]


def paint(
    polygons: Sequence[tuple[int, str]], scale: tuple[float, float], size: tuple[int, int], name: str
) -> NDArray[np.uint8]:
    """(H, W) class types of polygons, the upper one where they overlap, 0 where there is none.

    Args:
        polygons: class type and well-known text.
        scale: pixels a unit of x and of y.
        size: height and width.
        name: the image's, for messages.

    Raises:
        DataError: a text that is no polygon, or a class type that does not exist.
    """
    of_class: dict[int, list[str]] = {}
    for number, text in polygons:
        if number not in ORDER:
            raise DataError(f"train_wkt_v4.csv: {name} has class type {number}; there are 1 to 10.")
        of_class.setdefault(number, []).append(text)
    mask = np.zeros(size, np.uint8)
    for number in ORDER:
        for text in of_class.get(number, ()):
            try:
                rings = [[ring * np.array(scale) for ring in polygon] for polygon in read_polygons(text)]
            except ValueError as error:
                raise DataError(f"train_wkt_v4.csv: class type {number} of {name} {error}.") from None
            mask[fill(rings, size)] = number
    return mask


def twenty_bands(three: Path) -> NDArray[np.uint16]:
    """(H, W, 20) stored values on the grid of three_band: its red, green, blue, then M, A and P of sixteen_band.

    The coarser ones are resized bilinearly. The shift between the cameras, a few pixels, stays.

    Raises:
        DataError: a file of sixteen_band is missing or has other bands.
    """
    composite = read_image(three).pixels
    height, width = composite.shape[:2]
    planes: list[NDArray[Any]] = [composite[..., band] for band in range(3)]
    for kind, count in SIXTEEN.items():
        path = three.parent.parent / "sixteen_band" / f"{three.stem}_{kind}.tif"
        if not path.is_file():
            raise DataError(
                f"{path}: does not exist; unpack sixteen_band.zip beside three_band, or set data.imagery=rgb."
            )
        pixels = read_image(path).pixels
        bands = pixels if pixels.ndim == 3 else pixels[..., None]
        if bands.shape[2] != count:
            raise FileError(path, "E_BANDS", f"has {bands.shape[2]} bands; those of {kind} have {count}")
        for band in range(count):
            plane = Image.fromarray(bands[..., band].astype(np.float32))
            planes.append(np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)).round())
    return np.stack(planes, axis=-1).astype(np.uint16)


def stretched(bands: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W, 3) bands from their 2nd and 98th percentiles to 0..255."""
    low, high = np.percentile(bands, (2, 98), axis=(0, 1))
    unit = (bands - low) / np.maximum(high - low, 1)
    composite: NDArray[np.uint8] = (np.clip(unit, 0, 1) * 255).round().astype(np.uint8)
    return composite
