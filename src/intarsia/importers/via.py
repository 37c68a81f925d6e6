"""VGG Image Annotator (VIA) 1 and 2: a project, or an export of its annotations.

Read: polygon, rect, circle, ellipse (turned by `theta`, in radians). Points, lines and polylines have no area and are left out.
A later region lies on top. The file says no image's size: coordinates are of the upright image.

The class is the value of an attribute whose name the annotator chose. It is the only one of `NAMED` that has values; if none of
them has, the only attribute that has; if no region has any, there is one class, `region`. More than one is refused: see
`attribute_of`. A value is text, ticked boxes of which one is ticked, or the number of one of the project's options.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from intarsia.errors import DataError, FileError
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
from intarsia.importers.pictures import name_of, nearest, split_of, unique
from intarsia.ops.polygons import Ring

NAMED = ("class", "label", "name", "type", "object", "category")
"""Attributes that are looked for first, in any case of letters."""
ONLY_CLASS = "region"
VIA3 = {"project", "config", "attribute", "file", "metadata", "view"}
WITHOUT_AREA = {"point": "points", "line": "lines", "polyline": "polylines"}


def recognise(files: Files) -> bool:
    """Whether a JSON lists images with regions, or is of VIA 3, which `read` refuses by name."""
    return any(True for _ in _documents(files))


def _documents(files: Files) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in files.ending(".json"):
        found = files.try_json(path)
        if isinstance(found, dict) and (_is_via3(found) or _images(found) is not None):
            yield path, found


def _is_via3(document: Mapping[str, Any]) -> bool:
    return set(document) >= VIA3


def _images(document: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """What the document says of each image; None if it is none of VIA's."""
    listed = document.get("_via_img_metadata")
    if isinstance(listed, dict):
        return listed
    each = list(document.values())
    bare = bool(each) and all(isinstance(one, dict) and "filename" in one and "regions" in one for one in each)
    return dict(document) if bare else None


def read(files: Files) -> Project:
    """Every JSON that is VIA's.

    Raises:
        DataError: several attributes could be the class, or one image is annotated differently in two files.
        FileError: a file is of VIA 3, or holds what is no region.
    """
    documents = list(_documents(files))
    entries: list[tuple[Path, dict[str, Any]]] = []
    options: dict[str, dict[str, Any]] = {}
    for path, document in documents:
        if _is_via3(document):
            raise FileError(
                path, "E_VERSION", "is a project of VIA 3, which is not read; draw in VIA 2, or export COCO"
            )
        for key, one in (_images(document) or {}).items():
            if not isinstance(one, dict) or not isinstance(one.get("filename"), str):
                raise FileError(path, "E_SHAPE", f"image {key!r:.60} has no filename")
            entries.append((path, one))
        options.update(_options(document))
    notes: list[str] = []
    entries = _once(entries, notes)
    every = (region for path, one in entries for region in _regions(path, one))
    named = attribute_of(files.root, every, files.attribute)
    if named is None:
        notes.append(f"no region has a class: all are {ONLY_CLASS!r}")
    left_out: Counter[str] = Counter()
    names = unique(
        [name_of(f"{_below(files, path)}/{one['filename']}") for path, one in entries],
        [path.stem for path, _ in entries],
    )
    pictures = [
        _picture(files, path, one, name, named, options.get(named or "", {}), left_out)
        for name, (path, one) in zip(names, entries, strict=True)
    ]
    return Project("via", tuple(pictures), classes_of(pictures), left_out=left_out, notes=tuple(notes))


def _below(files: Files, path: Path) -> str:
    return path.parent.relative_to(files.folder).as_posix()


def _options(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Attribute to its options by id, where the project has them."""
    attributes = document.get("_via_attributes")
    regions = attributes.get("region") if isinstance(attributes, dict) else None
    every = regions.items() if isinstance(regions, dict) else ()
    return {
        name: each["options"]
        for name, each in every
        if isinstance(each, dict) and isinstance(each.get("options"), dict)
    }


def _once(entries: list[tuple[Path, dict[str, Any]]], notes: list[str]) -> list[tuple[Path, dict[str, Any]]]:
    """Each image of a folder once, though a project and its export both lie there."""
    seen: dict[tuple[Path, str, str], tuple[Path, dict[str, Any]]] = {}
    doubled = 0
    for path, one in entries:
        key = path.parent, str(one["filename"]), str(one.get("size"))
        before, same = seen.setdefault(key, (path, one))
        if before == path and same is one:
            continue
        if _regions(before, same) != _regions(path, one):
            raise DataError(
                f"{path}: annotates {one['filename']} differently than {before.name} does. Keep one of the two files."
            )
        doubled += 1
    if doubled:
        notes.append(f"{doubled} images stand in two files with the same regions, and are taken once")
    return list(seen.values())


def _regions(path: Path, one: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Version 1 has a dict by number."""
    regions = one.get("regions")
    if not isinstance(regions, dict | list):
        raise FileError(path, "E_SHAPE", f"{one['filename']} has no regions")
    found = list(regions.values()) if isinstance(regions, dict) else regions
    for index, region in enumerate(found):
        if not isinstance(region, dict) or not isinstance(region.get("shape_attributes"), dict):
            raise FileError(path, "E_SHAPE", f"region {index} of {one['filename']} has no shape_attributes")
    return found


def attribute_of(root: Path, regions: Iterable[Mapping[str, Any]], wanted: str | None = None) -> str | None:
    """The attribute that holds the class; None if no region has any.

    Args:
        wanted: as somebody says.

    Raises:
        DataError: there are several, and none is the only one of `NAMED`; or the one that is wanted is not there.
    """
    values: dict[str, Counter[str]] = {}
    for region in regions:
        for key, value in _attributes(region).items():
            if ticked(value):
                values.setdefault(key, Counter())[json.dumps(ticked(value))] += 1
    if wanted is not None and wanted not in values:
        there = ", ".join(map(repr, values)) or "none"
        raise DataError(f"{root}: no region has the attribute {wanted!r} (data.attribute); there are: {there}.")
    if not values or wanted is not None:
        return wanted
    known = [key for key in values if key.strip().lower() in NAMED]
    fits = sorted(known, key=lambda key: NAMED.index(key.strip().lower())) or list(values)
    if len(fits) == 1:
        return fits[0]
    met = ", ".join(f"{key!r} ({len(values[key])} values in {values[key].total()} regions)" for key in fits)
    raise DataError(
        f"{root}: regions have several attributes that could be the class: {met}. "
        f"Say which with data.attribute={fits[0]}."
    )


def _attributes(region: Mapping[str, Any]) -> Mapping[str, Any]:
    found = region.get("region_attributes")
    return found if isinstance(found, dict) else {}


def ticked(value: Any) -> list[str]:
    """What an attribute says: text as a list of one, boxes as those that are ticked."""
    if isinstance(value, dict):
        return [str(key) for key, on in value.items() if on is True or on == "true"]
    text = "" if value is None or isinstance(value, bool | list) else str(value).strip()
    return [text] if text else []


def _label(
    path: Path, what: str, region: Mapping[str, Any], named: str | None, options: Mapping[str, Any]
) -> str | None:
    if named is None:
        return ONLY_CLASS
    said = ticked(_attributes(region).get(named))
    if len(said) > 1:
        raise FileError(
            path, "E_SHAPE", f"{what} has {len(said)} boxes of {named!r} ticked ({', '.join(said)}); tick one"
        )
    if not said:
        return None
    option = options.get(said[0])
    return option.strip() if said[0].isdigit() and isinstance(option, str) and option.strip() else said[0]


def _picture(
    files: Files,
    path: Path,
    one: Mapping[str, Any],
    name: str,
    named: str | None,
    options: Mapping[str, Any],
    left_out: Counter[str],
) -> Picture:
    shapes = []
    for index, region in enumerate(_regions(path, one)):
        what = f"region {index} of {one['filename']}"
        outline = _outline(path, what, region["shape_attributes"], left_out)
        label = _label(path, what, region, named, options)
        if outline is not None and label is None:
            left_out[f"regions without a value of {named!r}"] += 1
        elif outline is not None and label is not None:
            shapes.append(Shape(label, (outline,)))
    said = str(one["filename"])
    image = nearest(files, path, [said])
    return Picture(name, image, None, tuple(shapes), split=split_of(path.parent.name), missing=said)


def _outline(path: Path, what: str, shape: Mapping[str, Any], left_out: Counter[str]) -> Ring | None:
    kind = str(shape.get("name"))

    def get(key: str) -> float:
        return number(shape.get(key), path, f"{key} of {what}")

    if kind in WITHOUT_AREA:
        left_out[WITHOUT_AREA[kind]] += 1
        return None
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise FileError(path, "E_SHAPE", f"{what} is a polygon without equally many x and y")
        found = ring(list(zip(xs, ys, strict=True)), path, what)
        if found is None:
            left_out["polygons of less than three points"] += 1
        return found
    build = _BUILT.get(kind)
    if build is None:
        left_out[f"shapes of type {kind:.30}"] += 1
        return None
    return build(get, shape)


def _rect(get: Callable[[str], float], shape: Mapping[str, Any]) -> Ring:
    x, y = get("x"), get("y")
    return rectangle(x, y, x + get("width"), y + get("height"))


def _circle(get: Callable[[str], float], shape: Mapping[str, Any]) -> Ring:
    return ellipse(get("cx"), get("cy"), get("r"), get("r"))


def _ellipse(get: Callable[[str], float], shape: Mapping[str, Any]) -> Ring:
    return ellipse(get("cx"), get("cy"), get("rx"), get("ry"), get("theta") if "theta" in shape else 0.0)


_BUILT: dict[str, Callable[[Callable[[str], float], Mapping[str, Any]], Ring]] = {
    "rect": _rect,
    "circle": _circle,
    "ellipse": _ellipse,
}

register(Format("via", "VGG Image Annotator 1 and 2 JSON", recognise, read))
