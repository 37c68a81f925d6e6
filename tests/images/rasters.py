"""Few-pixel rasters with coordinates."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio", reason="needs rasterio, of the extra geo")
from rasterio import Affine  # noqa: E402
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.crs import CRS  # noqa: E402
from rasterio.rpc import RPC  # noqa: E402

UTM = {"crs": "EPSG:32616", "transform": Affine(0.5, 0, 733601, 0, -0.5, 3725139)}
DEGREES = {"crs": "EPSG:4326", "transform": Affine(0.001, 0, 10, 0, -0.001, 60)}
TILES = {"tiled": True, "blockxsize": 64, "blockysize": 64}
GCPS = (
    [GroundControlPoint(row, column, 10 + column * 0.01, 50 - row * 0.01) for row in (0, 20) for column in (0, 30)],
    CRS.from_epsg(4326),
)
ONES = [1.0] + [0.0] * 19
RATIONAL = RPC(
    height_off=1.0, height_scale=100.0, lat_off=45.0, lat_scale=1.0, line_den_coeff=ONES, line_num_coeff=[0.5] * 20,
    line_off=10.0, line_scale=10.0, long_off=7.0, long_scale=1.0, samp_den_coeff=ONES, samp_num_coeff=[0.25] * 20,
    samp_off=15.0, samp_scale=15.0, err_bias=None, err_rand=None,
)  # fmt: skip
PLACES = {
    "north up": UTM,
    "turned": {"crs": "EPSG:32616", "transform": Affine(0.4, 0.3, 733601, 0.3, -0.4, 3725139)},
    "south up": {"crs": "EPSG:32616", "transform": Affine(0.5, 0, 733601, 0, 0.5, 3725139)},
    "no crs": {"transform": Affine(2, 0, 100, 0, -2, 200)},
    "degrees": DEGREES,
    "antimeridian": {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 179.9, 0, -0.01, 10)},
    "gcps": {"gcps": GCPS},
    "rpcs": {"rpcs": RATIONAL},
    "nothing": {},
}


def raster(path: Path, values, mask=None, colormap=None, interpretation=None, gcps=None, rpcs=None, **profile) -> Path:
    values = np.asarray(values)
    planes = values if values.ndim == 3 else values[None]
    settings = {"driver": "GTiff", "dtype": planes.dtype, "count": len(planes), "height": planes.shape[1]}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **{**settings, "width": planes.shape[2], **profile}) as file:
            if interpretation:
                file.colorinterp = interpretation
            if colormap:
                file.write_colormap(1, colormap)
            if gcps:
                file.gcps = gcps
            if rpcs:
                file.rpcs = rpcs
            file.write(planes)
            if mask is not None:
                file.write_mask(mask)
    return path


def opened(path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rasterio.open(path)
