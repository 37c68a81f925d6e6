"""Polygons in pixels as longitude and latitude, cut where they cross the antimeridian (RFC 7946, section 3.1.9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import DataError
from intarsia.images.tiff.geotiff import GeoSource
from intarsia.ops.polygons import Ring
from intarsia.optional import need

DIGITS = 9
"""Decimals of a degree: a tenth of a millimetre."""
_GRID = 33


class LonLat:
    """Pixels of an image to degrees east and north (EPSG:4326).

    Args:
        like: an image with a coordinate system and a transform.
    """

    def __init__(self, like: GeoSource) -> None:
        self.like = like
        self._transform = need("rasterio.warp", extra="geo").transform
        self._failure: Any = need("rasterio.errors", extra="geo").RasterioError
        self._broken: Any = need("rasterio._err", extra="geo").CPLE_BaseError
        y, x = np.meshgrid(np.linspace(0, like.height, _GRID), np.linspace(0, like.width, _GRID), indexing="ij")
        self.middle: float | None = None
        """Longitude around which an image lies that crosses the antimeridian."""
        try:
            lon = self._degrees(np.stack([x.ravel(), y.ravel()], 1))[:, 0].reshape(_GRID, _GRID)
        except DataError:  # its corners lie beyond the earth's disc, as seen from far; its polygons need not
            return
        if max(float(np.abs(np.diff(lon, axis=axis)).max()) for axis in (0, 1)) > 180:
            self.middle = float(lon[_GRID // 2, _GRID // 2])

    def _degrees(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b, c, d, e, f = tuple(self.like.transform)[:6]
        x, y = points.T
        east, north = a * x + b * y + c, d * x + e * y + f
        wrong = DataError(f"{self.like.path}: has points that lie nowhere on the earth; write a GeoPackage instead.")
        try:
            lon, lat = self._transform(self.like.crs, "EPSG:4326", east.tolist(), north.tolist())
        except (self._failure, self._broken):
            raise wrong from None
        found = np.stack([lon, lat], 1)
        if not np.isfinite(found).all():
            raise wrong
        return found

    def parts(self, polygons: Sequence[Sequence[Ring]]) -> Iterator[list[list[NDArray[np.float64]]]]:
        """The parts of each polygon, mostly one: rings in degrees, outer ones counterclockwise, holes clockwise."""
        flat = [ring for rings in polygons for ring in rings]
        if not flat:
            return
        degrees = self._degrees(np.concatenate(flat))
        if self.middle is not None:
            degrees[:, 0] = (degrees[:, 0] - self.middle + 180) % 360 - 180 + self.middle
        moved = iter(np.split(degrees, np.cumsum([len(ring) for ring in flat])[:-1]))
        for rings in polygons:
            own = [next(moved) for _ in rings]
            low, high = own[0][:, 0].min(), own[0][:, 0].max()
            pieces = [own] if low >= -180 and high <= 180 else _cut(own, low, high)
            yield [[_turned(ring.round(DIGITS), hole=at > 0) for at, ring in enumerate(piece)] for piece in pieces]


def _cut(rings: list[NDArray[np.float64]], low: float, high: float) -> list[list[NDArray[np.float64]]]:
    """The polygon cut at each antimeridian, all parts within -180..180."""
    shapely = need("shapely", extra="geo")
    whole = shapely.Polygon(rings[0], rings[1:])
    parts = []
    for turn in range(int(np.floor((low + 180) / 360)), int(np.floor((high + 180) / 360)) + 1):
        band = shapely.box(360 * turn - 180, -91, 360 * turn + 180, 91)
        found: Any = shapely.get_parts(whole.intersection(band))
        for part in found[shapely.get_type_id(found) == shapely.GeometryType.POLYGON]:
            edges = [part.exterior, *part.interiors]
            parts.append([shapely.get_coordinates(edge)[:-1] - (360 * turn, 0) for edge in edges])
    return parts


def _turned(ring: NDArray[np.float64], *, hole: bool) -> NDArray[np.float64]:
    """The ring, counterclockwise if it is an outer one."""
    x, y = (ring - ring[0]).T
    is_left = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0
    return ring if is_left != hole else ring[::-1]
