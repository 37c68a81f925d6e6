"""Datumaro's own JSON: annotations/<subset>.json, images in images/, images/<subset>/ or beside.

Read: polygon, mask (COCO's run lengths, a list or text), bbox (x, y, width, height) and ellipse (x, y of two corners of its
box). All else has no area and is left out. Parts of one object share label and group, 0 is no group. Datumaro paints by
z_order, then in the order of the document: that is order "z"; a note says where it differs. The file's name is the split.
Classes are those of the categories in their order, colours those of the mask category. An annotation with the attribute
is_crowd is ignored, as COCO's are, and so is the label `__ignore__`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import FileError
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
from intarsia.importers.pictures import IGNORED, name_of, nearest, size_of, split_of, unique
from intarsia.importers.rle import decode_rle
from intarsia.ops.polygons import Ring

WITHOUT_AREA = {
    "label": "labels of whole images",
    "caption": "captions",
    "points": "points",
    "polyline": "polylines",
    "cuboid_3d": "cuboids",
    "cuboid_2d": "cuboids",
    "skeleton": "skeletons",
}


def recognise(files: Files) -> bool:
    """Whether a JSON has categories by kind and items with annotations."""
    return any(True for _ in _documents(files))


def _documents(files: Files) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in files.ending(".json"):
        found = files.try_json(path)
        if (
            isinstance(found, dict)
            and isinstance(found.get("categories"), dict)
            and isinstance(found.get("items"), list)
        ):
            yield path, found


def read(files: Files) -> Project:
    """Every subset.

    Raises:
        FileError: one of them holds what is no annotation.
    """
    left_out: Counter[str] = Counter()
    classes: dict[str, None] = {}
    colors: dict[str, tuple[int, int, int]] = {}
    found: list[tuple[Picture, str]] = []
    for path, document in _documents(files):
        labels = _labels(path, document)
        classes.update(dict.fromkeys(label for label in labels if label != IGNORED))
        colors.update(_colors(path, document, labels))
        for index, item in enumerate(document["items"]):
            if not isinstance(item, dict):
                raise FileError(path, "E_SHAPE", f"item {index} is no object")
            found.append(
                (_picture(files, path, f"item {item.get('id', index)!s:.80}", item, labels, left_out), path.stem)
            )
    names = unique([picture.name for picture, _ in found], [subset for _, subset in found])
    pictures = [replace(picture, name=name) for (picture, _), name in zip(found, names, strict=True)]
    turned = sum([shape.z for shape in each.shapes] != sorted(shape.z for shape in each.shapes) for each in pictures)
    note = f"{turned} pictures have shapes whose z_order is not the document's order; Datumaro paints by order=z"
    notes = (note,) if turned else ()
    return Project("datumaro", tuple(pictures), classes_of(pictures, tuple(classes)), colors, left_out, notes)


def _labels(path: Path, document: dict[str, Any]) -> list[str]:
    kind = document["categories"].get("label")
    labels = kind.get("labels") if isinstance(kind, dict) else []
    if not isinstance(labels, list) or not all(isinstance(each, dict) and "name" in each for each in labels):
        raise FileError(path, "E_SHAPE", "has labels without names")
    return [str(each["name"]) for each in labels]


def _colors(path: Path, document: dict[str, Any], labels: Sequence[str]) -> Iterator[tuple[str, tuple[int, int, int]]]:
    kind = document["categories"].get("mask")
    colormap = kind.get("colormap") if isinstance(kind, dict) else None
    for each in colormap if isinstance(colormap, list) else []:
        index = each.get("label_id") if isinstance(each, dict) else None
        if isinstance(index, int) and 0 <= index < len(labels):
            red, green, blue = (int(number(each.get(key), path, f"a colour of {labels[index]}")) for key in "rgb")
            if {red, green, blue} <= set(range(256)):
                yield labels[index], (red, green, blue)


def _picture(
    files: Files, path: Path, what: str, item: dict[str, Any], labels: Sequence[str], left_out: Counter[str]
) -> Picture:
    image = item["image"] if isinstance(item.get("image"), dict) else {}
    sides = image.get("size") or (None, None)
    if not isinstance(sides, (list, tuple)) or len(sides) < 2:
        raise FileError(path, "E_SHAPE", f"the size of {what} is not its height and width")
    size = size_of(path, what, *sides[:2])
    annotations = item.get("annotations")
    shapes = []
    for index, each in enumerate(annotations if isinstance(annotations, list) else []):
        if not isinstance(each, dict):
            raise FileError(path, "E_SHAPE", f"annotation {index} of {what} is no object")
        shapes.append(_shape(path, f"annotation {index} of {what}", each, labels, left_out))
    stored, key = str(image.get("path") or ""), str(item.get("id", ""))
    identified = [f"{key}{ending}" for ending in (".jpg", ".png", ".jpeg", ".tif", ".bmp")] if key else []
    named = [name for name in (stored, *identified) if name]
    images = path.parent.parent / "images"
    found = nearest(files, images / path.stem / path.name, named, anywhere=False)
    return Picture(
        name_of(key or stored or what),
        found or nearest(files, images / path.name, named),
        size,
        tuple(shape for shape in shapes if shape is not None),
        split_of(path.stem),
        missing=stored or key,
    )


def _shape(path: Path, what: str, each: dict[str, Any], labels: Sequence[str], left_out: Counter[str]) -> Shape | None:
    kind = str(each.get("type"))
    if kind not in ("polygon", "mask", "bbox", "ellipse"):
        left_out[WITHOUT_AREA.get(kind, f"annotations of type {kind:.40}")] += 1
        return None
    index = each.get("label_id")
    if index is None:
        left_out["shapes without a label"] += 1
        return None
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(labels):
        raise FileError(path, "E_LABEL", f"{what} has label_id {index!r:.40}; there are {len(labels)} labels, from 0")
    label, group = labels[index], each.get("group")
    attributes = each.get("attributes")
    ignored = label == IGNORED or (isinstance(attributes, dict) and attributes.get("is_crowd") in (True, 1))
    shared: dict[str, Any] = {
        "label": "" if label == IGNORED else label,
        "ignored": ignored,
        "z": number(each.get("z_order") or 0, path, f"z_order of {what}"),
        "object_id": f"{label}/{group}" if group else None,
    }
    if kind == "mask":
        return Shape(pixels=_mask(path, what, each.get("rle")), **shared)
    corners = _corners(path, what, kind, each)
    if corners is None:
        left_out["polygons of less than three points"] += 1
        return None
    return Shape(rings=(corners,), **shared)


def _mask(path: Path, what: str, rle: Any) -> NDArray[np.bool_]:
    sides = rle.get("size") if isinstance(rle, dict) else None
    size = size_of(path, what, *sides) if isinstance(sides, list) and len(sides) == 2 else None
    if size is None:
        raise FileError(path, "E_RLE", f"{what} is a mask without a size")
    try:
        return decode_rle(rle.get("counts"), size)
    except ValueError as error:
        raise FileError(path, "E_RLE", f"{what} {error}") from None


def _corners(path: Path, what: str, kind: str, each: dict[str, Any]) -> Ring | None:
    if kind == "polygon":
        return ring(each.get("points") or [], path, what)
    key = "bbox" if kind == "bbox" else "points"
    sides = each.get(key)
    if not isinstance(sides, list) or len(sides) != 4:
        raise FileError(path, "E_SHAPE", f"{what} is a {kind} whose {key} are not four numbers")
    x, y, right, below = (number(side, path, what) for side in sides)
    if kind == "bbox":
        return rectangle(x, y, x + right, y + below)
    return ellipse((x + right) / 2, (y + below) / 2, (right - x) / 2, (below - y) / 2)


register(Format("datumaro", "Datumaro JSON", recognise, read))
