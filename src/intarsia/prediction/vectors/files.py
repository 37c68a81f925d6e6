"""Polygons as files: GeoJSON, GeoPackage, COCO and labelme. Equal input gives equal bytes.

| kind | coordinates | holes |
|---|---|---|
| geojson | longitude and latitude (RFC 7946) if the image has a coordinate system, else pixels, which a member says | rings |
| gpkg | the image's own system, also one without an EPSG code; its transform's numbers without one; else pixels | rings |
| coco | pixels | run lengths in place of polygons |
| labelme | pixels | a mask in place of a polygon |
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import ClassTable
from intarsia.errors import ConfigError, SaveError
from intarsia.images.source import Source
from intarsia.images.tiff.geotiff import GeoSource
from intarsia.images.tiff.ground import Ground
from intarsia.importers.labelme import mask_shape
from intarsia.importers.rle import encode_part
from intarsia.ops.polygons import fill_window
from intarsia.optional import need
from intarsia.prediction.vectors.areas import ground_under
from intarsia.prediction.vectors.lonlat import LonLat
from intarsia.prediction.vectors.polygons import Polygon

Kind = Literal["geojson", "gpkg", "coco", "labelme"]
SUFFIXES: dict[Kind, str] = {"geojson": ".geojson", "gpkg": ".gpkg", "coco": ".json", "labelme": ".json"}
LAYER = "classes"
_TOGETHER = 20_000
"""Polygons that are written at once."""
_DATE = "2000-01-01T00:00:00.000Z"
"""Of the last change, as a GeoPackage must name one: the same in each, so that equal polygons are equal files."""


def write_vectors(
    path: Path | str,
    polygons: Iterable[Polygon],
    table: ClassTable,
    *,
    kind: Kind,
    like: Source | None = None,
    image_path: Path | str | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Write polygons with class number, name and area in pixels; m² where the image tells them; mean probability where known.

    Args:
        like: the image, for its coordinates and its size.
        image_path: what COCO and labelme call the image; None: the name of `like`'s file.
        size: (height, width) of the image, without `like`.

    Raises:
        MissingExtra: gpkg without pyogrio and shapely.
        ConfigError: coco or labelme without a size.
        DataError: geojson of an image parts of which lie nowhere on the earth.
        SaveError: the file cannot be written.
    """
    path = Path(path)
    size = like.size if like is not None else size
    name = str(image_path or (like.path.name if like is not None and like.path else path.stem))
    if kind in ("coco", "labelme") and size is None:
        raise ConfigError(f"polygons: {kind} holds the size of the image; give `like` or `size`.")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
            part = Path(folder) / f"part{SUFFIXES[kind]}"
            if kind == "gpkg":
                _write_gpkg(part, polygons, table, like)
            else:
                with part.open("w", encoding="utf-8", newline="\n") as file:
                    for text in (
                        _geojson(polygons, table, like)
                        if kind == "geojson"
                        else (_coco if kind == "coco" else _labelme)(polygons, table, like, name, size or (0, 0))
                    ):
                        file.write(text)
            os.replace(part, path)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error.strerror or error}).") from None


def _facts(polygon: Polygon, table: ClassTable, ground: Ground | None) -> dict[str, Any]:
    """What is said of a polygon."""
    facts: dict[str, Any] = {
        "class": polygon.class_index,
        "name": table.names[polygon.class_index],
        "area_pixels": polygon.area,
    }
    if ground is not None:
        facts["area_m2"] = ground.area(polygon.rings)
    if polygon.mean_probability is not None:
        facts["mean_probability"] = polygon.mean_probability
    return facts


def _located(like: Source | None) -> GeoSource | None:
    """The image, if its pixels have coordinates."""
    return like if isinstance(like, GeoSource) and like.transform is not None else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _listed(head: dict[str, Any], key: str, entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The text of an object whose last member is a list, a line an entry."""
    yield f"{_json(head)[:-1]},{_json(key)}:["
    for at, entry in enumerate(entries):
        yield f"{',' * (at > 0)}\n{_json(entry)}"
    yield "\n]}\n"


def _geojson(polygons: Iterable[Polygon], table: ClassTable, like: Source | None) -> Iterator[str]:
    located, ground = _located(like), ground_under(like)
    frame = LonLat(located) if located is not None and located.crs is not None else None
    head: dict[str, Any] = {"type": "FeatureCollection"}
    if frame is None:
        head["coordinates_are"] = "pixels: x to the right, y down, from the top left corner of the image"

    def features() -> Iterator[dict[str, Any]]:
        for some in _chunks(polygons):
            for polygon, parts in zip(some, _parts(some, frame), strict=True):
                closed = [[[*ring, ring[0]] for ring in (each.tolist() for each in rings)] for rings in parts]
                geometry = (
                    {"type": "Polygon", "coordinates": closed[0]}
                    if len(closed) == 1
                    else {"type": "MultiPolygon", "coordinates": closed}
                )
                yield {"type": "Feature", "properties": _facts(polygon, table, ground), "geometry": geometry}

    return _listed(head, "features", features())


def _parts(polygons: Sequence[Polygon], frame: LonLat | None) -> Iterator[list[list[NDArray[Any]]]]:
    if frame is not None:
        return frame.parts([polygon.rings for polygon in polygons])
    return ([[_whole(ring) for ring in polygon.rings]] for polygon in polygons)


def _whole(ring: NDArray[np.float64]) -> NDArray[Any]:
    """As whole numbers, if it is of such."""
    rounded = ring.astype(np.int64)
    return rounded if np.array_equal(rounded, ring) else ring


def _chunks(polygons: Iterable[Polygon]) -> Iterator[list[Polygon]]:
    rest = iter(polygons)
    while some := list(islice(rest, _TOGETHER)):
        yield some


def _write_gpkg(path: Path, polygons: Iterable[Polygon], table: ClassTable, like: Source | None) -> None:
    pyogrio, shapely = need("pyogrio", extra="geo"), need("shapely", extra="geo")
    raw, errors = need("pyogrio.raw", extra="geo"), need("pyogrio.errors", extra="geo")
    located, ground = _located(like), ground_under(like)
    crs = located.crs.to_wkt(version="WKT2_2019") if located is not None and located.crs is not None else None
    chunks = _chunks(polygons)
    first = next(chunks, [])
    has_probability = any(polygon.mean_probability is not None for polygon in first)
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _DATE})
    try:
        for at, some in enumerate(chain([first], chunks)):
            fields: dict[str, NDArray[Any]] = {
                "class": np.array([polygon.class_index for polygon in some], np.int32),
                "name": np.array([table.names[polygon.class_index] for polygon in some], object),
                "area_pixels": np.array([polygon.area for polygon in some], np.float64),
            }
            if ground is not None:
                fields["area_m2"] = np.array([ground.area(polygon.rings) for polygon in some], np.float64)
            if has_probability:
                known = [polygon.mean_probability for polygon in some]
                fields["mean_probability"] = np.array([np.nan if one is None else one for one in known], np.float64)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pyogrio warns of a missing coordinate system
                raw.write(
                    path,
                    geometry=shapely.to_wkb(_geometries(some, located)),
                    field_data=list(fields.values()),
                    fields=list(fields),
                    geometry_type="Polygon",
                    driver="GPKG",
                    layer=LAYER,
                    crs=crs,
                    append=at > 0,
                )
    except (errors.DataSourceError, errors.DataLayerError, errors.FeatureError) as error:
        raise OSError(" ".join(str(error).split())[:200]) from None
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def _geometries(polygons: Sequence[Polygon], located: GeoSource | None) -> NDArray[Any]:
    """shapely's polygons, in the image's coordinates."""
    shapely = need("shapely", extra="geo")
    if not polygons:
        return np.zeros(0, object)
    rings = [ring for polygon in polygons for ring in polygon.rings]
    points = np.concatenate([np.concatenate((ring, ring[:1])) for ring in rings])
    if located is not None:
        a, b, c, d, e, f = tuple(located.transform)[:6]
        x, y = points.T
        points = np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)
    begins = np.cumsum([0, *(len(ring) + 1 for ring in rings)])
    owners = np.cumsum([0, *(len(polygon.rings) for polygon in polygons)])
    geometries: NDArray[Any] = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, (begins, owners))
    return geometries


def _coco(
    polygons: Iterable[Polygon], table: ClassTable, like: Source | None, name: str, size: tuple[int, int]
) -> Iterator[str]:
    ground = ground_under(like)
    head = {
        "info": {"description": name},
        "licenses": [],
        "images": [{"id": 1, "file_name": name, "height": size[0], "width": size[1]}],
        "categories": [
            {"id": k + 1, "name": each, "supercategory": "", "color": list(color), "isthing": int(k > 0)}
            for k, (each, color) in enumerate(zip(table.names, table.colors, strict=True))
        ],
    }

    def annotations() -> Iterator[dict[str, Any]]:
        for number, polygon in enumerate(polygons, 1):
            (left, top), (right, bottom) = (
                _whole(pick(polygon.rings[0], axis=0)).tolist() for pick in (np.min, np.max)
            )
            yield {
                "id": number,
                "image_id": 1,
                "category_id": polygon.class_index + 1,
                "segmentation": _segmentation(polygon, size),
                "area": polygon.area,
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": 0,
                **{key: value for key, value in _facts(polygon, table, ground).items() if key[:4] in ("area", "mean")},
            }

    return _listed(head, "annotations", annotations())


def _segmentation(polygon: Polygon, size: tuple[int, int]) -> Any:
    if len(polygon.rings) == 1:
        return [_whole(polygon.rings[0]).ravel().tolist()]
    inside, top, left = fill_window(polygon.rings, size)
    return {"size": list(size), "counts": encode_part(inside, (top, left), size)}


def _labelme(
    polygons: Iterable[Polygon], table: ClassTable, like: Source | None, name: str, size: tuple[int, int]
) -> Iterator[str]:
    ground = ground_under(like)
    head: dict[str, Any] = {
        "version": "5.7.0",
        "flags": {},
        "imagePath": name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }

    def shapes() -> Iterator[dict[str, Any]]:
        for polygon in polygons:
            said = _facts(polygon, table, ground)
            shape = _labelme_shape(polygon, said["name"], size)
            shape["description"] = ", ".join(f"{key} {said[key]:.10g}" for key in said if key not in ("class", "name"))
            yield shape

    return _listed(head, "shapes", shapes())


def _labelme_shape(polygon: Polygon, label: str, size: tuple[int, int]) -> dict[str, Any]:
    if len(polygon.rings) == 1:
        points = _whole(polygon.rings[0]).tolist()
        return {"label": label, "points": points, "group_id": None, "shape_type": "polygon", "flags": {}, "mask": None}
    inside, top, left = fill_window(polygon.rings, size)
    shape = mask_shape(label, inside)
    shape["points"] = [[x + left, y + top] for x, y in shape["points"]]
    return shape
