"""Class maps and probabilities as cloud-optimised GeoTIFFs (COG): tiles of 512, deflate, overviews, coordinates of the source.

Nothing but coordinates is taken from the source: compression, colours and nodata of an image do harm to a class map. Pixels go
through a plain TIFF beside, some rows at a time, so that memory does not grow with the image; the finished file takes its
name at the end. Equal input gives equal bytes.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE, ClassTable
from intarsia.errors import DataError, SaveError
from intarsia.images.source import release
from intarsia.images.tiff.geotiff import GeoSource, environment
from intarsia.optional import need

TILE = 512
_NAME, _VALUE, _RED, _GREEN, _BLUE = 2, 5, 6, 7, 8
"""What a column of an attribute table means to GDAL (GDALRATFieldUsage)."""


def write_class_geotiff(
    path: Path | str,
    classes: NDArray[np.uint8],
    table: ClassTable,
    like: GeoSource | None = None,
    *,
    tags: Mapping[str, str] | None = None,
) -> None:
    """A class map: class numbers, 255 where ignored (nodata), class colours as palette, overviews by the most frequent class.

    Class names are tags (CLASS_0=...) and an attribute table in `path`.aux.xml, which QGIS and GDAL read.

    Args:
        classes: (H, W), may be mapped from a file that is larger than memory.
        like: the image, for its coordinates; None: the file has none.
        tags: more to be stored, such as the model's sha256.

    Raises:
        MissingExtra: rasterio is not installed.
        DataError: the sizes differ.
        SaveError: the file cannot be written.
    """
    palette = np.asarray(table.palette(), np.uint8).reshape(256, 3)
    opaque = {index: (*colour, 0 if index == IGNORE else 255) for index, colour in enumerate(palette.tolist())}
    named = {f"CLASS_{index}": name for index, name in enumerate(table.names)}
    with _finished(Path(path), "mode") as scratch:
        side = scratch / "attributes.xml"
        side.write_text(_attributes(table), encoding="utf-8")
        with _created(scratch, classes[None], like, {**named, **(tags or {})}, ["class"], IGNORE, "palette") as file:
            file.write_colormap(1, opaque)
            _fill(file, classes[None])
        os.replace(side, f"{path}.aux.xml")


def write_float_geotiff(
    path: Path | str,
    values: NDArray[np.float16] | NDArray[np.float32] | NDArray[np.uint8],
    names: Sequence[str],
    like: GeoSource | None = None,
    *,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Numbers a pixel, such as the probability of each class, or the entropy; overviews by the mean.

    uint8 stands for 0..1 in 255 steps: the file's scale says so, and programs that honour it show 0..1. float16 is stored as
    float32, which every GDAL reads; NaN is nodata.

    Args:
        values: (B, H, W), may be mapped from a file that is larger than memory.
        names: of the bands.
        like, tags: as `write_class_geotiff`.

    Raises:
        MissingExtra, DataError, SaveError: as `write_class_geotiff`.
    """
    is_share = values.dtype == np.uint8
    with (
        _finished(Path(path), "average", is_float=not is_share) as scratch,
        _created(scratch, values, like, tags or {}, names, None if is_share else np.nan, "minisblack") as file,
    ):
        if is_share:
            file.scales = (1 / 255,) * len(values)
        _fill(file, values)


@contextmanager
def _finished(path: Path, resampling: str, *, is_float: bool = False) -> Iterator[Path]:
    """A folder for `image.tif`, which becomes the file at `path`."""
    rasterio = need("rasterio", extra="geo")
    copy = need("rasterio.shutil", extra="geo").copy
    broken = need("rasterio._err", extra="geo").CPLE_BaseError
    try:
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder,
            environment(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # rasterio warns of files without coordinates
            scratch = Path(folder)
            yield scratch
            copy(
                scratch / "image.tif",
                scratch / "cog.tif",
                driver="COG",
                compress="deflate",
                predictor="yes" if is_float else "no",
                blocksize=TILE,
                overview_resampling=resampling,
                bigtiff="if_safer",
                num_threads="1",
            )
            os.replace(scratch / "cog.tif", path)
    except (OSError, rasterio.errors.RasterioError, broken) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise SaveError(f"{path}: cannot be written ({reason}). Is the disk full, or the folder missing?") from None


@contextmanager
def _created(
    scratch: Path,
    values: NDArray[Any],
    like: GeoSource | None,
    tags: Mapping[str, str],
    names: Sequence[str],
    nodata: float | None,
    photometric: str,
) -> Iterator[Any]:
    """The plain TIFF, open for writing, with all that is no pixel."""
    count, height, width = values.shape
    if like is not None and like.size != (height, width):
        raise DataError(
            f"the map is {height} x {width}, {like.path} is {like.height} x {like.width}; coordinates need equal sizes."
        )
    place = {} if like is None else {"crs": like.crs, "transform": like.transform}
    with need("rasterio", extra="geo").open(
        scratch / "image.tif",
        "w",
        driver="GTiff",
        dtype="uint8" if values.dtype == np.uint8 else "float32",
        count=count,
        height=height,
        width=width,
        nodata=nodata,
        photometric=photometric,
        tiled=True,
        blockxsize=TILE,
        blockysize=TILE,
        interleave="band",
        compress="deflate",
        zlevel=1,
        bigtiff="if_safer",
        **{key: value for key, value in place.items() if value is not None},
    ) as file:
        if like is not None and like.gcps:
            file.gcps = (list(like.gcps), like.gcps_crs)
        if like is not None and like.rpcs is not None:
            file.rpcs = like.rpcs
        file.update_tags(**tags)
        for index, name in enumerate(names, 1):
            file.set_band_description(index, name)
        yield file


def _fill(file: Any, values: NDArray[Any]) -> None:
    """All pixels, band by band, some rows at a time."""
    window = need("rasterio.windows", extra="geo").Window
    for index, plane in enumerate(values, 1):
        for top in range(0, file.height, TILE):
            rows = np.asarray(plane[top : top + TILE]).astype(file.dtypes[0], copy=False)
            file.write(rows, index, window=window(0, top, file.width, len(rows)))
            release(plane)


def _attributes(table: ClassTable) -> str:
    """GDAL's side file: names and colours of the classes, a row each."""
    columns = (("Value", 0, _VALUE), ("Class", 2, _NAME), ("Red", 0, _RED), ("Green", 0, _GREEN), ("Blue", 0, _BLUE))
    lines = ["<PAMDataset>", '  <PAMRasterBand band="1">', '    <GDALRasterAttributeTable tableType="thematic">']
    for index, (name, kind, usage) in enumerate(columns):
        lines.append(
            f'      <FieldDefn index="{index}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        )
    for index, (name, colour) in enumerate(zip(table.names, table.colors, strict=True)):
        cells = "".join(f"<F>{escape(str(cell))}</F>" for cell in (index, name, *colour))
        lines.append(f'      <Row index="{index}">{cells}</Row>')
    return "\n".join([*lines, "    </GDALRasterAttributeTable>", "  </PAMRasterBand>", "</PAMDataset>", ""])
