"""How large pixels are on the ground: on the plane of a projected coordinate system, on the ellipsoid of a geographic one.

Source: J. P. Snyder, Map Projections: A Working Manual, USGS Professional Paper 1395, 1987; equations in brackets.

    M = a (1 - e²) / (1 - e² sin²φ)^(3/2)      metres a radian of latitude      (4-18)
    N = a / (1 - e² sin²φ)^(1/2)               N cos φ: metres a radian of longitude      (4-20)
    Z = a²/2 (1 - e²) [sin φ / (1 - e² sin²φ) + atanh(e sin φ) / e]
                       area between equator and latitude φ, m² a radian of longitude (a² q / 2, q of 3-12)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""(n, 2) x and y of its corners in pixels, not closed."""
_ELLIPSOID = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([0-9.eE+-]+),\s*([0-9.eE+-]+)')


@dataclass(frozen=True)
class Ellipsoid:
    """The figure of the earth."""

    radius: float
    """a, the half axis at the equator in metres."""
    eccentricity_squared: float
    """e²; 0: a sphere."""

    def radii(self, latitude: Any) -> tuple[Any, Any]:
        """M and N cos φ: metres a radian of latitude and of longitude, at latitudes in radians."""
        e2 = self.eccentricity_squared
        w2 = 1 - e2 * np.sin(latitude) ** 2
        return self.radius * (1 - e2) / w2**1.5, self.radius * np.cos(latitude) / np.sqrt(w2)

    def zone(self, latitude: Any) -> Any:
        """Z: m² a radian of longitude between equator and latitude, in radians."""
        e2 = self.eccentricity_squared
        sine = np.sin(latitude)
        if e2 == 0:
            return self.radius**2 * sine
        e = e2**0.5
        return self.radius**2 / 2 * (1 - e2) * (sine / (1 - e2 * sine**2) + np.arctanh(e * sine) / e)


@dataclass(frozen=True)
class Ground:
    """What a pixel covers. (x, y) in pixels lies at a x + b y + c, d x + e y + f of the coordinate system."""

    affine: tuple[float, float, float, float, float, float]
    """a, b, c, d, e, f."""
    unit: float
    """Metres, or radians if `ellipsoid`, a unit of the coordinate system."""
    ellipsoid: Ellipsoid | None = None
    """None: a plane."""

    @property
    def determinant(self) -> float:
        """Square units a pixel; negative where the image is mirrored (as north-up images are)."""
        a, b, _, d, e, _ = self.affine
        return a * e - b * d

    def latitude(self, x: Any, y: Any) -> Any:
        """In radians, of points in pixels; poles are not passed."""
        _, _, _, d, e, f = self.affine
        return np.clip((d * x + e * y + f) * self.unit, -np.pi / 2, np.pi / 2)

    def metres(self, height: int, width: int) -> tuple[float, float]:
        """Height and width of a pixel in metres; on an ellipsoid those of the pixel in the middle of the image."""
        a, b, _, d, e, _ = self.affine
        east = north = 1.0
        if self.ellipsoid:
            north, east = self.ellipsoid.radii(self.latitude(width / 2, height / 2))
        return (
            float(np.hypot(b * east, e * north)) * self.unit,
            float(np.hypot(a * east, d * north)) * self.unit,
        )

    def pixel_areas(self, begin: int, end: int, width: int) -> NDArray[np.float64]:
        """m² of the pixels of rows begin..end-1: (rows, 1), or (rows, width) on an ellipsoid if the image is turned."""
        if self.ellipsoid is None:
            return np.full((end - begin, 1), abs(self.determinant) * self.unit**2)
        a, b, _, d, _, _ = self.affine
        if b == 0 == d:
            zones = self.ellipsoid.zone(self.latitude(0, np.arange(begin, end + 1, dtype=np.float64)))
            strips: NDArray[np.float64] = np.abs(a * self.unit * np.diff(zones))[:, None]
            return strips
        rows, columns = np.arange(begin, end)[:, None] + 0.5, np.arange(width)[None] + 0.5
        north, east = self.ellipsoid.radii(self.latitude(columns, rows))  # at centres: wrong by (pixel / radius)²
        turned: NDArray[np.float64] = abs(self.determinant) * self.unit**2 * north * east
        return turned

    def area(self, rings: Sequence[Ring]) -> float:
        """m² within the first ring and outside of the others; sides are straight in the coordinate system.

        On an ellipsoid ∮ Z(φ) dλ, each side by Simpson's rule: exact along a parallel or a meridian.
        """
        outer, *holes = (abs(self._enclosed(ring)) for ring in rings)
        return outer - sum(holes)

    def _enclosed(self, ring: Ring) -> float:
        here, there = ring, np.roll(ring, -1, axis=0)
        if self.ellipsoid is None:
            return _shoelace(ring) * self.determinant * self.unit**2
        a, b, *_ = self.affine
        steps = (a * (there[:, 0] - here[:, 0]) + b * (there[:, 1] - here[:, 1])) * self.unit
        middle = (here + there) / 2
        first, half, last = (self.ellipsoid.zone(self.latitude(*points.T)) for points in (here, middle, there))
        level = first[0]  # the ring lies nearly at one latitude: digits are kept by counting from there
        return float(((first - level + 4 * (half - level) + last - level) / 6 * steps).sum())


def _shoelace(ring: Ring) -> float:
    x, y = (ring - ring[0]).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def ground_of(crs: Any, transform: Any) -> Ground | None:
    """The ground of a rasterio coordinate system and affine; None where lengths in metres cannot be told."""
    if crs is None:
        return None
    affine = tuple(float(value) for value in tuple(transform)[:6])
    a, b, c, d, e, f = affine
    try:
        unit = float(crs.units_factor[1])
        if crs.is_projected:
            return Ground((a, b, c, d, e, f), unit)
        found = _ELLIPSOID.search(crs.to_wkt())
    except Exception:  # a coordinate system of a site, a drawing or the earth's centre: all kinds of errors
        return None
    if not crs.is_geographic or not found:
        return None
    radius, inverse = float(found[1]), float(found[2])
    flattening = 1 / inverse if inverse else 0.0
    return Ground((a, b, c, d, e, f), unit, Ellipsoid(radius, flattening * (2 - flattening)))


def stretch_of(crs: Any, ground: Ground, height: int, width: int) -> float | None:
    """Square metres of a projected plane a square metre of ground (WGS 84), in the middle of an image; None if unknown.

    1 for equal-area projections, near 1 for UTM, 1 / cos² φ and more for web maps (EPSG:3857).
    """
    from rasterio.warp import transform

    a, b, c, d, e, f = ground.affine
    x, y = np.array([0, 1, 0]) + width / 2, np.array([0, 0, 1]) + height / 2
    try:
        lon, lat = transform(crs, "EPSG:4326", (a * x + b * y + c).tolist(), (d * x + e * y + f).tolist())
    except Exception:  # a plane that lies nowhere on the earth
        return None
    lam, phi = np.radians(lon), np.radians(lat)
    north, east = Ellipsoid(6378137.0, 0.0066943799901413165).radii(phi[0])
    turn = 2 * np.pi
    lam = (lam - lam[0] + np.pi) % turn - np.pi
    real = abs((lam[1] * (phi[2] - phi[0])) - (lam[2] * (phi[1] - phi[0]))) * north * east
    if not np.isfinite(real) or real == 0:
        return None
    return float(abs(ground.determinant) * ground.unit**2 / real)
