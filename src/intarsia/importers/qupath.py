"""QuPath: one GeoJSON for each image, of the same name.

Read: a FeatureCollection, a bare list or a single Feature; Polygon and MultiPolygon with holes, in full-resolution pixels from
the top left corner. Points and lines have no area and are left out, as are objects beyond the first plane of a stack and the
nuclei of cells, which lie within them. A later object lies on top. The class is `classification`; objects without one are
`unclassified`; `Ignore*`, QuPath's own word, is ignored. classifiers/classes.json, as in a QuPath project, gives the order of
classes and colours.

Written: a feature for each 4-connected part of a class, along the edges of pixels, and classifiers/classes.json. Lossless when
filled by pixels' centres.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import DataError, FileError
from intarsia.images.files import IMAGE_SUFFIXES
from intarsia.importers.base import Files, Format, Picture, Project, Shape, Written, classes_of, register, ring
from intarsia.importers.pictures import name_of, nearest, split_of, unique
from intarsia.importers.write import copied_image, each_item, new_folder
from intarsia.ops.polygons import Ring, outlines

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress

IGNORED = "Ignore*"
UNCLASSIFIED = "unclassified"
CLASSES = "classes.json"
ENDINGS = (".geojson", ".json")
IMAGE_ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp")
WITHOUT_AREA = {
    "Point": "points",
    "MultiPoint": "points",
    "LineString": "lines",
    "MultiLineString": "lines",
}
NO_ANNOTATIONS = {
    "tma_core": "TMA cores",
    "TMACoreObject": "TMA cores",
    "root": "whole images",
    "PathRootObject": "whole images",
}
"""Kinds of object, as newer and older versions call them."""


def recognise(files: Files) -> bool:
    """Whether a file is GeoJSON."""
    return any(True for _ in _documents(files))


def _documents(files: Files) -> Iterator[tuple[Path, Any]]:
    for path in files.ending(*ENDINGS):
        found = files.try_json(path)
        if _features(found) is not None:
            yield path, found


def _features(document: Any) -> list[Any] | None:
    """The features of GeoJSON; None if it is none."""
    if isinstance(document, dict):
        if document.get("type") == "FeatureCollection" and isinstance(document.get("features"), list):
            features: list[Any] = document["features"]
            return features
        document = [document]
    is_bare = isinstance(document, list) and bool(document)
    return (
        document
        if is_bare and all(isinstance(each, dict) and each.get("type") == "Feature" for each in document)
        else None
    )


def read(files: Files) -> Project:
    """Every GeoJSON, one for each image.

    Raises:
        FileError: coordinates are of a map, or a file holds what is no feature.
    """
    left_out: Counter[str] = Counter()
    notes: list[str] = []
    names, colors = _listed(files)
    documents = list(_documents(files))
    pictures = unique(
        [name_of(f"{path.parent.relative_to(files.folder).as_posix()}/{_stem(path)}") for path, _ in documents],
        [path.suffix.removeprefix(".") for path, _ in documents],
    )
    found = []
    for name, (path, document) in zip(pictures, documents, strict=True):
        shapes = _shapes(path, document, colors, left_out)
        if shapes and _like_degrees(shapes):
            notes.append(f"{path}: all coordinates are small and fractional, as of a map; they are taken as pixels")
        image = nearest(files, path, _images(path))
        found.append(Picture(name, image, None, tuple(shapes), split=split_of(path.parent.name), missing=_stem(path)))
    unclassified = sum(shape.label == UNCLASSIFIED for picture in found for shape in picture.shapes)
    if unclassified:
        notes.append(f"{unclassified} objects have no classification; their class is {UNCLASSIFIED!r}")
    return Project("qupath", tuple(found), classes_of(found, names), colors, left_out, tuple(notes))


def _stem(path: Path) -> str:
    return next(path.name[: -len(ending)] for ending in ENDINGS if path.name.lower().endswith(ending))


def _images(path: Path) -> list[str]:
    """What the image may be called: x of x.geojson, x.ome.geojson or x.tif.geojson."""
    stem = _stem(path)
    own = [stem] if Path(stem).suffix.lower() in IMAGE_SUFFIXES else []
    short = [stem.removesuffix(".ome")] if stem.endswith(".ome") else []
    return [*own, *(f"{each}{ending}" for each in (stem, *short) for ending in IMAGE_ENDINGS)]


def _listed(files: Files) -> tuple[list[str], dict[str, tuple[int, int, int]]]:
    """Classes and colours of a QuPath project's own list."""
    names: list[str] = []
    colors: dict[str, tuple[int, int, int]] = {}
    for path in files.ending(CLASSES):
        document = files.try_json(path)
        listed = document.get("pathClasses") if isinstance(document, dict) else None
        for each in listed if isinstance(listed, list) else ():
            if isinstance(each, dict) and isinstance(name := each.get("name"), str) and name != IGNORED:
                names.append(name)
                if color := _color(each):
                    colors.setdefault(name, color)
    return names, colors


def _color(each: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Of [r, g, b], or of one signed number with alpha in its highest byte."""
    value = each.get("color", each.get("colorRGB"))
    if isinstance(value, int) and not isinstance(value, bool):
        return value >> 16 & 255, value >> 8 & 255, value & 255
    if isinstance(value, list) and len(value) >= 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in value):
        return value[0], value[1], value[2]
    return None


def _like_degrees(shapes: list[Shape]) -> bool:
    corners = np.concatenate([one for shape in shapes for one in shape.rings])
    return bool(np.abs(corners).max() <= 180 and (corners % 1 != 0).mean() > 0.9)


def _shapes(path: Path, document: Any, colors: dict[str, tuple[int, int, int]], left_out: Counter[str]) -> list[Shape]:
    features = _features(document) or []
    for holder in (document, *features):
        _no_map(path, holder)
    shapes = []
    for index, feature in enumerate(features):
        properties = feature.get("properties") if isinstance(feature, dict) else {}
        if not isinstance(feature, dict) or not isinstance(properties, dict | None):
            raise FileError(path, "E_SHAPE", f"feature {index} is none of GeoJSON")
        properties = properties or {}
        kind = properties.get("objectType") or feature.get("id")
        if isinstance(kind, str) and kind in NO_ANNOTATIONS:
            left_out[NO_ANNOTATIONS[kind]] += 1
            continue
        if "nucleusGeometry" in feature or "nucleusGeometry" in properties:
            left_out["nuclei of cells"] += 1
        rings = _rings(path, f"feature {index}", feature, left_out)
        if rings:
            label = _label(path, index, properties, colors)
            shapes.append(Shape("" if label == IGNORED else label, tuple(rings), ignored=label == IGNORED))
    return shapes


def _no_map(path: Path, holder: Any) -> None:
    crs = holder.get("crs") if isinstance(holder, dict) else None
    if crs and "pixel" not in json.dumps(crs).lower():
        raise FileError(
            path,
            "E_CRS",
            f"has coordinates of a map ({json.dumps(crs)[:80]}), not pixels; rasterise it against its image",
        )


def _label(path: Path, index: int, properties: Mapping[str, Any], colors: dict[str, tuple[int, int, int]]) -> str:
    said = properties.get("classification")
    if said is None or said == {}:
        return UNCLASSIFIED
    given = said if isinstance(said, dict) else {"name": said}
    names = given.get("names")
    name = ": ".join(map(str, names)) if isinstance(names, list) and names else given.get("name")
    if not isinstance(name, str) or not name.strip():
        raise FileError(path, "E_SHAPE", f"feature {index} has a classification without a name")
    if (color := _color(given)) and name != IGNORED:
        colors.setdefault(name, color)
    return name


def _rings(path: Path, what: str, feature: Mapping[str, Any], left_out: Counter[str]) -> list[Ring]:
    """All rings of a feature's polygons in the first plane."""
    geometry = feature.get("geometry")
    if geometry is None:
        left_out["objects without a geometry"] += 1
        return []
    if not isinstance(geometry, dict):
        raise FileError(path, "E_SHAPE", f"{what} has a geometry that is none of GeoJSON")
    plane = geometry.get("plane") or feature.get("plane")
    if isinstance(plane, dict) and any(plane.get(axis) not in (None, 0) for axis in ("z", "t")):
        left_out["objects beyond the first plane"] += 1
        return []
    if geometry.get("type") == "GeometryCollection" and isinstance(geometry.get("geometries"), list):
        parts = geometry["geometries"]
    else:
        parts = [geometry]
    found: list[Ring] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in WITHOUT_AREA:
            left_out[WITHOUT_AREA[kind]] += 1
        elif kind in ("Polygon", "MultiPolygon"):
            coordinates = part.get("coordinates")
            found += _polygons(path, what, [coordinates] if kind == "Polygon" else coordinates, left_out)
        else:
            left_out[f"shapes of type {kind!s:.30}"] += 1
    return found


def _polygons(path: Path, what: str, polygons: Any, left_out: Counter[str]) -> list[Ring]:
    if not isinstance(polygons, list) or not all(isinstance(each, list) for each in polygons):
        raise FileError(path, "E_SHAPE", f"{what} has no coordinates")
    found: list[Ring] = []
    for polygon in polygons:
        if not all(isinstance(each, list) and all(isinstance(point, list) for point in each) for each in polygon):
            raise FileError(path, "E_SHAPE", f"{what} has coordinates that are no lists of points")
        rings = [ring(each, path, what) for each in polygon]
        if not rings or rings[0] is None:
            left_out["polygons of less than three points"] += 1
            continue
        found += [one for one in rings if one is not None]
    return found


def write(dataset: Dataset, target: Path, progress: Progress) -> Written:
    """A GeoJSON beside each image, and the classes as a QuPath project has them."""
    if IGNORED in dataset.table.names:
        raise DataError(f"a class is called {IGNORED!r}, which is QuPath's word for ignored pixels. Rename it first.")
    new_folder(target)
    entries = list(enumerate(zip(dataset.table.names, dataset.table.colors, strict=True)))
    count = 0
    for item, classes in each_item(dataset, progress):
        image = copied_image(item, target)
        features = [each for k, (name, color) in entries for each in _written(name, color, classes == k)]
        features += _written(IGNORED, (180, 180, 180), classes == 255)
        document = {"type": "FeatureCollection", "features": features}
        (image.parent / f"{image.stem}.geojson").write_text(json.dumps(document), encoding="utf-8")
        count += 1
    listed = [{"name": name, "color": list(color)} for _, (name, color) in entries]
    (target / "classifiers").mkdir(exist_ok=True)
    (target / "classifiers" / CLASSES).write_text(json.dumps({"pathClasses": listed}, indent=1), encoding="utf-8")
    return Written(target, count, lossless=True, reason="polygons run along the edges of pixels (fill by centres)")


def _written(
    name: str, color: tuple[int, int, int], inside: np.ndarray[Any, np.dtype[np.bool_]]
) -> Iterator[dict[str, Any]]:
    for rings in outlines(inside):
        closed = [np.concatenate((one, one[:1])).astype(int).tolist() for one in rings]
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name}/{closed[0][:2]}")),
            "geometry": {"type": "Polygon", "coordinates": closed},
            "properties": {"objectType": "annotation", "classification": {"name": name, "color": list(color)}},
        }


register(Format("qupath", "QuPath GeoJSON", recognise, read, write))
