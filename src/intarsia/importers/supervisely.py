"""Supervisely: meta.json, and for each data set a folder ann/ of JSON and a folder img/ of images.

Read: polygon and multipolygon with holes, rectangle, bitmap (base64 of zlib of a PNG, at `origin`). Points, lines, graphs and
cuboids have no area and are left out. A later object lies on top. Classes and colours are those of meta.json, in its order. A
data set called train, val or test is that split.

Coordinates count from the corner of the first pixel, as in Supervisely's tool: a rectangle 10..20 is ten pixels wide. What its
own SDK has written in "pixel" coordinates, with the last pixel included, comes out up to a pixel smaller.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.errors import FileError
from intarsia.importers.base import (
    Files,
    Format,
    Picture,
    Project,
    Shape,
    classes_of,
    number,
    rectangle,
    register,
    ring,
)
from intarsia.importers.pictures import color_of, name_of, nearest, size_of, split_of, unique
from intarsia.ops.polygons import Ring

MOST_UNPACKED = 32 << 20
"""Bytes of the PNG of one bitmap."""
WITHOUT_AREA = {
    "point": "points",
    "line": "lines",
    "graph": "graphs",
    "cuboid": "cuboids",
    "cuboid_2d": "cuboids",
}


def recognise(files: Files) -> bool:
    """Whether a JSON has a size and objects with a classTitle."""
    return any(True for _ in _documents(files))


def _documents(files: Files) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in files.ending(".json"):
        found = files.try_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("objects"), list):
            continue
        size = found.get("size")
        titled = all(isinstance(each, dict) and "classTitle" in each for each in found["objects"])
        if isinstance(size, dict) and {"height", "width"} <= set(size) and (titled or path.parent.name == "ann"):
            yield path, found


def read(files: Files) -> Project:
    """Every data set of the project, or of several projects.

    Raises:
        FileError: a file holds what is no object.
    """
    names, colors = _meta(files)
    left_out: Counter[str] = Counter()
    documents = list(_documents(files))
    pictures = unique(
        [name_of(f"{_dataset(files, path)}/{path.name[: -len('.json')]}") for path, _ in documents],
        [path.stem for path, _ in documents],
    )
    found = [
        _picture(files, path, each, name, left_out) for name, (path, each) in zip(pictures, documents, strict=True)
    ]
    return Project("supervisely", tuple(found), classes_of(found, names), colors, left_out)


def _meta(files: Files) -> tuple[list[str], dict[str, tuple[int, int, int]]]:
    """Classes in order, and the colours of those that have one."""
    names: list[str] = []
    colors: dict[str, tuple[int, int, int]] = {}
    for path in files.ending("meta.json"):
        meta = files.try_json(path)
        classes = meta.get("classes") if isinstance(meta, dict) else None
        for each in classes if isinstance(classes, list) else ():
            if isinstance(each, dict) and isinstance(each.get("title"), str):
                names.append(each["title"])
                if color := color_of(str(each.get("color"))):
                    colors.setdefault(each["title"], color)
    return names, colors


def _dataset(files: Files, path: Path) -> str:
    folder = path.parent.parent if path.parent.name == "ann" and path.parent != files.folder else path.parent
    return folder.relative_to(files.folder).as_posix()


def _picture(files: Files, path: Path, document: dict[str, Any], name: str, left_out: Counter[str]) -> Picture:
    size = size_of(path, "the image", document["size"]["height"], document["size"]["width"])
    if size is None:
        raise FileError(path, "E_DIM", "does not say the size of the image")
    shapes = []
    for index, each in enumerate(document["objects"]):
        if not isinstance(each, dict) or not isinstance(each.get("classTitle"), str):
            raise FileError(path, "E_SHAPE", f"object {index} has no classTitle")
        shape = _shape(path, index, each, size, left_out)
        if shape is not None:
            shapes.append(shape)
    dataset = path.parent.parent if path.parent.name == "ann" else path.parent
    said = path.name[: -len(".json")]
    beside = dataset / "img" / path.name
    near = [said, *(f"{said}{ending}" for ending in (".jpg", ".png", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"))]
    image = nearest(files, beside, near)
    return Picture(name, image, size, tuple(shapes), split=split_of(dataset.name), missing=said)


def _shape(path: Path, index: int, each: dict[str, Any], size: tuple[int, int], left_out: Counter[str]) -> Shape | None:
    label, kind = each["classTitle"], each.get("geometryType")
    what = f"object {index} ({label})"
    if kind is None:
        kind = "bitmap" if each.get("bitmap") else "polygon"
    if kind in WITHOUT_AREA:
        left_out[WITHOUT_AREA[kind]] += 1
        return None
    if kind == "bitmap":
        pixels, origin = _bitmap(path, what, each.get("bitmap"), size)
        return Shape(label, pixels=pixels, origin=origin)
    if kind == "rectangle":
        corners = _points(path, what, each).get("exterior")
        if not isinstance(corners, list) or len(corners) != 2:
            raise FileError(path, "E_SHAPE", f"{what} is a rectangle without two corners")
        (x0, y0), (x1, y1) = (_pair(path, what, corner) for corner in corners)
        return Shape(label, (rectangle(x0, y0, x1, y1),))
    if kind not in ("polygon", "multipolygon"):
        left_out[f"shapes of type {kind!s:.30}"] += 1
        return None
    parts = each.get("parts") if kind == "multipolygon" else [_points(path, what, each)]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise FileError(path, "E_SHAPE", f"{what} has no parts")
    rings = tuple(one for part in parts for one in _rings(path, what, part))
    if not rings:
        left_out["polygons of less than three points"] += 1
        return None
    return Shape(label, rings)


def _points(path: Path, what: str, each: dict[str, Any]) -> dict[str, Any]:
    found = each.get("points")
    if not isinstance(found, dict):
        raise FileError(path, "E_SHAPE", f"{what} has no points")
    return found


def _pair(path: Path, what: str, corner: Any) -> tuple[float, float]:
    if not isinstance(corner, list) or len(corner) != 2:
        raise FileError(path, "E_SHAPE", f"{what} has a corner that is no pair of x and y")
    return number(corner[0], path, what), number(corner[1], path, what)


def _rings(path: Path, what: str, part: dict[str, Any]) -> list[Ring]:
    """The outer ring and its holes; none if the outer one encloses nothing."""
    outer = ring(part.get("exterior") or [], path, what)
    holes = part.get("interior") or []
    if not isinstance(holes, list):
        raise FileError(path, "E_SHAPE", f"{what} has holes that are no list")
    found = [ring(hole, path, f"a hole of {what}") for hole in holes]
    return [] if outer is None else [outer, *(hole for hole in found if hole is not None)]


def _bitmap(path: Path, what: str, bitmap: Any, size: tuple[int, int]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    if not isinstance(bitmap, dict) or not isinstance(bitmap.get("data"), str):
        raise FileError(path, "E_SHAPE", f"{what} is a bitmap without data")
    x, y = _pair(path, what, bitmap.get("origin"))
    try:
        packed = base64.b64decode(bitmap["data"], validate=True)
        unpacking = zlib.decompressobj()
        png = unpacking.decompress(packed, MOST_UNPACKED)
    except (ValueError, binascii.Error, zlib.error) as error:
        raise FileError(path, "E_SHAPE", f"{what} has a bitmap that does not unpack ({str(error)[:60]})") from None
    if unpacking.unconsumed_tail:
        raise FileError(path, "E_TOO_LARGE", f"{what} has a bitmap that unpacks to more than {MOST_UNPACKED >> 20} MB")
    if not unpacking.eof:
        raise FileError(path, "E_SHAPE", f"{what} has a bitmap whose end is missing")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if image.width * image.height > size[0] * size[1]:
                raise FileError(path, "E_TOO_LARGE", f"{what} has a bitmap of more pixels than its image")
            inside = _inside(image)
    except FileError:
        raise
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(path, "E_SHAPE", f"{what} has a bitmap that is no PNG ({str(error)[:60]})") from None
    return inside, (round(y), round(x))


def _inside(image: Image.Image) -> NDArray[np.bool_]:
    """Opacity if the PNG has a channel of it, else what is neither index 0 nor black."""
    pixels = np.asarray(image)
    if image.mode in ("RGBA", "LA", "PA"):
        pixels = pixels[..., -1]
    return (pixels if pixels.ndim == 2 else pixels.any(axis=2)).astype(bool)


register(Format("supervisely", "Supervisely project", recognise, read))
