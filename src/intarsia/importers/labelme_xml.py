"""LabelMe's old web XML (MIT, "LabelMe 3.0" in CVAT and Datumaro): Annotations/, Images/, Masks/, folders alike.

Read: polygons, boxes among them, and <segm> masks: a PNG of the whole image, what is more than half as opaque as its most
opaque pixel (the tool draws at 60 % and smooths edges), or not black where the PNG has no opacity. Deleted objects and
scribbles are left out. Parts of an object with the same name are one object. A later object lies on top. It is not
wkentaro's labelme, whose files are JSON.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.errors import FileError
from intarsia.images.files import max_pixels
from intarsia.importers.base import Files, Format, Picture, Project, Shape, classes_of, number, register, ring
from intarsia.importers.pictures import IGNORED, name_of, nearest, size_of, split_of, unique


def recognise(files: Files) -> bool:
    """Whether an XML's root is <annotation> with polygons of <pt>, or masks, or says it is LabelMe's."""
    return any(True for _ in _documents(files))


def _documents(files: Files) -> Iterator[tuple[Path, Element]]:
    for path in files.ending(".xml"):
        root = files.try_xml(path)
        if root is None or root.tag != "annotation":
            continue
        says = "labelme" in (root.findtext("source/sourceAnnotation") or "").lower()
        if says or root.find("object/polygon/pt") is not None or root.find("object/segm/mask") is not None:
            yield path, root


def read(files: Files) -> Project:
    """Every XML that is LabelMe's.

    Raises:
        FileError: one of them holds what is no object.
    """
    left_out: Counter[str] = Counter()
    pictures = [_picture(files, path, root, left_out) for path, root in _documents(files)]
    names = unique([picture.name for picture in pictures], [""] * len(pictures))
    renamed = [replace(each, name=name) for each, name in zip(pictures, names, strict=True)]
    return Project("labelme_xml", tuple(renamed), classes_of(renamed), left_out=left_out)


def _picture(files: Files, path: Path, root: Element, left_out: Counter[str]) -> Picture:
    folder, name = (root.findtext("folder") or "").strip(), (root.findtext("filename") or "").strip() or path.stem
    base = _base(path, folder)
    objects = root.findall("object")
    whole = {(each.findtext("id") or "").strip(): (each.findtext("parts/ispartof") or "").strip() for each in objects}
    size = size_of(path, name, root.findtext("imagesize/nrows"), root.findtext("imagesize/ncols"))
    shapes = [_shape(path, base, folder, each, whole, left_out) for each in objects]
    places = [f"Images/{folder}/{name}", f"Images/{name}", f"{folder}/{name}", name]
    image = nearest(files, base / "x", places, anywhere=False) or nearest(files, path, [name])
    return Picture(
        name_of(f"{folder}/{name}"),
        image,
        size,
        tuple(shape for shape in shapes if shape is not None),
        split_of(folder),
        missing=f"{folder}/{name}".lstrip("/"),
    )


def _base(path: Path, folder: str) -> Path:
    """The folder that holds Annotations/, Images/ and Masks/; the file's own where there is no Annotations/."""
    for above in list(path.parents)[: len([part for part in folder.split("/") if part]) + 1]:
        if above.name.lower() == "annotations":
            return above.parent
    return path.parent


def _root_of(key: str, whole: Mapping[str, str]) -> str:
    """The object that has no other above it."""
    for _ in range(len(whole)):
        above = whole.get(key, "")
        if not above or above not in whole:
            return key
        key = above
    return key


def _shape(
    path: Path, base: Path, folder: str, each: Element, whole: Mapping[str, str], left_out: Counter[str]
) -> Shape | None:
    label, key = (each.findtext("name") or "").strip(), (each.findtext("id") or "").strip()
    what = f"object {key} ({label:.40})"
    if (each.findtext("deleted") or "0").strip() == "1":
        left_out["objects deleted in the tool"] += 1
        return None
    if not label:
        left_out["shapes without a label"] += 1
        return None
    top = _root_of(key, whole)
    shared: dict[str, Any] = {
        "label": "" if label == IGNORED else label,
        "ignored": label == IGNORED,
        "object_id": f"{label}/{top}" if key and (whole.get(key) or key in whole.values()) else None,
    }
    if each.find("segm/mask") is not None:
        return Shape(pixels=_mask(path, base, folder, what, (each.findtext("segm/mask") or "").strip()), **shared)
    points = [
        (number(point.findtext("x"), path, f"x of {what}"), number(point.findtext("y"), path, f"y of {what}"))
        for point in each.iterfind("polygon/pt")
    ]
    if not points:
        left_out["objects without a polygon or a mask"] += 1
        return None
    corners = ring(points, path, what)
    if corners is None:
        left_out["polygons of less than three points"] += 1
        return None
    return Shape(rings=(corners,), **shared)


def _mask(path: Path, base: Path, folder: str, what: str, name: str) -> NDArray[np.bool_]:
    places = [base / "Masks" / folder / name, base / "Masks" / name, path.parent / name]
    inside = not any(part in ("..", "") for part in f"{folder or 'x'}/{name}".replace("\\", "/").split("/"))
    found = next((place for place in places if inside and os.path.isfile(place)), None)
    if found is None:
        raise FileError(path, "E_MISSING", f"{what} has a mask {name:.80} that is not there")
    try:
        with Image.open(found, formats=("PNG",)) as image:
            if image.width * image.height > max_pixels():
                raise FileError(found, "E_TOO_LARGE", "has too many pixels")
            if "A" in image.getbands() or "transparency" in image.info:
                alpha = np.asarray(image.convert("RGBA").getchannel("A"))
                opaque: NDArray[np.bool_] = alpha > 0.5 * alpha.max()
                return opaque
            pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(found, "E_SHAPE", f"is a mask that is no PNG ({str(error)[:60]})") from None
    return (pixels if pixels.ndim == 2 else pixels.any(axis=2)).astype(bool)


register(Format("labelme_xml", "LabelMe web XML", recognise, read))
