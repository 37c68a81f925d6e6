"""SuperAnnotate: pixel projects (a JSON and a painted PNG for each image) and vector projects (a JSON for each image).

Pixel: `NAME___pixel.json` lists the parts of each object by colour, `NAME___save.png` has the colours. Vector
(`NAME___objects.json`): polygon with `exclude` (holes), ellipse (turned by degrees), bbox, rbbox. Points, polylines, templates
and cuboids have no area and are left out. A later object lies on top; objects of one `groupId` and class are parts of one.
Classes and colours are those of classes/classes.json, in its order; it names the class where an object has a `classId` only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import FileError
from intarsia.images.files import read_image
from intarsia.importers.base import (
    Files,
    Format,
    Picture,
    Project,
    Shape,
    classes_of,
    ellipse,
    number,
    rectangle,
    register,
    ring,
)
from intarsia.importers.pictures import color_of, name_of, nearest, size_of, unique
from intarsia.ops.polygons import Ring

ENDINGS = ("___pixel.json", "___objects.json", ".json")
WITHOUT_AREA = {
    "point": "points",
    "polyline": "polylines",
    "template": "templates",
    "cuboid": "cuboids",
    "tag": "tags",
    "comment": "comments",
}


@dataclass
class Classes:
    """What a classes.json says."""

    names: dict[int, str] = field(default_factory=dict)
    """By id."""
    colors: dict[str, tuple[int, int, int]] = field(default_factory=dict)


def recognise(files: Files) -> bool:
    """Whether a JSON has instances, and metadata with the image's name."""
    return any(True for _ in _documents(files))


def _documents(files: Files) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in files.ending(".json"):
        found = files.try_json(path)
        if isinstance(found, dict) and isinstance(found.get("instances"), list):
            metadata = found.get("metadata")
            if isinstance(metadata, dict) and isinstance(metadata.get("name"), str):
                yield path, found


def read(files: Files) -> Project:
    """Every image that a JSON describes.

    Raises:
        FileError: a file holds what is no object, or a painted PNG is missing or damaged.
    """
    lists = _class_lists(files)
    left_out: Counter[str] = Counter()
    documents = list(_documents(files))
    names = unique(
        [name_of(f"{path.parent.relative_to(files.folder).as_posix()}/{_stem(path)}") for path, _ in documents],
        ["pixel" if path.name.endswith(ENDINGS[0]) else "objects" for path, _ in documents],
    )
    pictures = [
        _picture(files, path, each, name, lists, left_out) for name, (path, each) in zip(names, documents, strict=True)
    ]
    known = [name for each in lists.values() for name in each.names.values()]
    colors = {name: color for each in reversed(lists.values()) for name, color in each.colors.items()}
    return Project("superannotate", tuple(pictures), classes_of(pictures, known), colors, left_out)


def _stem(path: Path) -> str:
    """The image's name."""
    return next(path.name[: -len(ending)] for ending in ENDINGS if path.name.lower().endswith(ending))


def _class_lists(files: Files) -> dict[Path, Classes]:
    """Folder of a project to its classes."""
    found = {}
    for path in files.ending("classes.json"):
        listed = files.try_json(path)
        if path.name != "classes.json" or not isinstance(listed, list):
            continue
        classes = Classes()
        for each in listed:
            if isinstance(each, dict) and isinstance(each.get("id"), int) and isinstance(each.get("name"), str):
                classes.names[each["id"]] = each["name"]
                if color := color_of(str(each.get("color"))):
                    classes.colors[each["name"]] = color
        found[path.parent.parent if path.parent.name == "classes" else path.parent] = classes
    return found


def _picture(
    files: Files,
    path: Path,
    document: dict[str, Any],
    name: str,
    lists: Mapping[Path, Classes],
    left_out: Counter[str],
) -> Picture:
    metadata = document["metadata"]
    size = size_of(path, "the image", metadata.get("height"), metadata.get("width"))
    classes = next((lists[folder] for folder in path.parents if folder in lists), Classes())
    instances = document["instances"]
    if not all(isinstance(each, dict) for each in instances):
        raise FileError(path, "E_SHAPE", "has an instance that is no object")
    painted = path.name.lower().endswith(ENDINGS[0]) or any("parts" in each for each in instances)
    if painted:
        shapes, size = _painted(path, instances, classes, size, left_out)
    else:
        drawn = (_drawn(path, index, each, classes, left_out) for index, each in enumerate(instances))
        shapes = [shape for shape in drawn if shape is not None]
    said = str(metadata["name"])
    return Picture(name, nearest(files, path, [said, _stem(path)]), size, tuple(shapes), missing=said)


def _label(each: Mapping[str, Any], classes: Classes, left_out: Counter[str]) -> str | None:
    if isinstance(each.get("className"), str) and each["className"].strip():
        return str(each["className"])
    key = each.get("classId")
    found = classes.names.get(key) if isinstance(key, int) else None
    if found is None:
        left_out["objects without a class"] += 1
    return found


def _painted(
    path: Path, instances: list[dict[str, Any]], classes: Classes, size: tuple[int, int] | None, left_out: Counter[str]
) -> tuple[list[Shape], tuple[int, int] | None]:
    """The shapes of a painted PNG, and its size, which is the image's."""
    png = path.with_name(f"{_stem(path)}___save.png")
    if not png.is_file():
        if any(each.get("parts") for each in instances):
            raise FileError(path, "E_MISSING", f"lists parts by colour, but {png.name} is not beside it")
        return [], size
    pixels = read_image(png).pixels
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise FileError(png, "E_MODE", "is not painted in colours of 8 bits")
    numbers = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    boxes = _boxes(numbers)
    shapes, used = [], {0}
    for index, each in enumerate(instances):
        parts = _colors(path, index, each)
        used |= parts
        there = [boxes[color] for color in parts if color in boxes]
        if len(there) < len(parts):
            left_out["parts without a pixel"] += len(parts) - len(there)
        label = _label(each, classes, left_out)
        if label is None or not there:
            continue
        top, left = (min(box[axis].start for box in there) for axis in (0, 1))
        bottom, right = (max(box[axis].stop for box in there) for axis in (0, 1))
        inside = np.isin(numbers[top:bottom, left:right], np.array(sorted(parts), np.uint32))
        shapes.append(Shape(label, pixels=inside, origin=(top, left), object_id=_group(label, each)))
    if unclaimed := set(boxes) - used:
        left_out["painted colours without an object"] += len(unclaimed)
    return shapes, numbers.shape


def _boxes(numbers: NDArray[np.uint32]) -> dict[int, tuple[slice, slice]]:
    """Colour to the box that holds it."""
    from scipy import ndimage

    colors, index = np.unique(numbers, return_inverse=True)
    found = ndimage.find_objects(index.reshape(numbers.shape).astype(np.int32) + 1)
    return dict(zip(colors.tolist(), found, strict=True))


def _colors(path: Path, index: int, each: Mapping[str, Any]) -> set[int]:
    parts = each.get("parts") or []
    if not isinstance(parts, list):
        raise FileError(path, "E_SHAPE", f"instance {index} has parts that are no list")
    found = set()
    for part in parts:
        color = color_of(str(part.get("color"))) if isinstance(part, dict) else None
        if color is None:
            raise FileError(path, "E_SHAPE", f"instance {index} has a part without a colour #rrggbb")
        found.add(color[0] << 16 | color[1] << 8 | color[2])
    return found


def _group(label: str, each: Mapping[str, Any]) -> str | None:
    group = each.get("groupId")
    return f"{label}/{group}" if isinstance(group, int) and group > 0 else None


def _drawn(path: Path, index: int, each: dict[str, Any], classes: Classes, left_out: Counter[str]) -> Shape | None:
    kind = str(each.get("type"))
    if kind in WITHOUT_AREA:
        left_out[WITHOUT_AREA[kind]] += 1
        return None
    if kind not in ("polygon", "ellipse", "bbox", "rbbox"):
        left_out[f"shapes of type {kind:.30}"] += 1
        return None
    label = _label(each, classes, left_out)
    if label is None:
        return None
    rings = _rings(path, f"instance {index} ({label})", kind, each)
    if not rings:
        left_out["polygons of less than three points"] += 1
        return None
    return Shape(label, tuple(rings), object_id=_group(label, each))


def _rings(path: Path, what: str, kind: str, each: dict[str, Any]) -> list[Ring]:
    if kind == "ellipse":
        cx, cy, rx, ry = (number(each.get(key), path, f"{key} of {what}") for key in ("cx", "cy", "rx", "ry"))
        return [ellipse(cx, cy, rx, ry, math.radians(number(each.get("angle") or 0, path, f"angle of {what}")))]
    points = each.get("points")
    if kind == "polygon":
        outer = ring(points, path, what)
        holes = each.get("exclude") or []
        if not isinstance(holes, list):
            raise FileError(path, "E_SHAPE", f"{what} has holes that are no list")
        inner = [ring(hole, path, f"a hole of {what}") for hole in holes]
        return [] if outer is None else [outer, *(one for one in inner if one is not None)]
    if not isinstance(points, dict):
        raise FileError(path, "E_SHAPE", f"{what} has no corners")
    corners = 2 if kind == "bbox" else 4
    xy = [
        (number(points.get(f"x{i}"), path, what), number(points.get(f"y{i}"), path, what))
        for i in range(1, corners + 1)
    ]
    return [rectangle(*xy[0], *xy[1]) if kind == "bbox" else np.array(xy, np.float64)]


register(Format("superannotate", "SuperAnnotate pixel and vector projects", recognise, read))
