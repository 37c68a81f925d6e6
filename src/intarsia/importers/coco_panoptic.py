"""COCO panoptic: a JSON of segments, and a PNG an image whose colours are their numbers: red + 256 green + 65536 blue.

Read: each segment is a shape; number 0 (void) and crowds are ignored. The PNGs are looked for in the folder that is called as
the JSON (panoptic_val.json, panoptic_val/), beside the JSON, then anywhere below. They must be RGB: a palette has lost the
numbers.

Written: annotations/panoptic_<split>.json, annotations/panoptic_<split>/ and images/; a segment for each drawn object, or for
each class where no objects were drawn. Every class is a category, background too, its id the class number + 1; ignored pixels
are void: lossless.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.errors import FileError
from intarsia.images.files import read_mask
from intarsia.importers.base import Files, Format, Picture, Project, Shape, Written, register
from intarsia.importers.coco import (
    CROWD,
    Document,
    by_image,
    categories_of,
    classes_in,
    documents,
    empty,
    home_of,
    image_of,
    key_of,
    kind_of,
    label_of,
    with_names,
)
from intarsia.importers.pictures import name_of, size_of
from intarsia.importers.regions import first_splits, parts_by, regions_of
from intarsia.importers.write import copied_image, each_item, new_folder

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress


def recognise(files: Files) -> bool:
    """Whether a JSON has annotations with segments_info."""
    return any(kind_of(files.try_json(path)) == "panoptic" for path in files.ending(".json"))


def read(files: Files) -> Project:
    """Every JSON of panoptic segments with its PNGs.

    Raises:
        FileError: one of them is not whole, or a PNG is missing or of other segments.
    """
    notes: list[str] = []
    left_out: Counter[str] = Counter()
    found = documents(files, "panoptic", notes)
    home = home_of(files)
    pngs: dict[str, list[Path]] = {}
    for path in home.ending(".png"):
        pngs.setdefault(path.name.lower(), []).append(path)
    pictures = []
    for each in found:
        without = 0
        for key, listed in by_image(each).items():
            if len(listed) > 1:
                raise FileError(each.path, "E_ID", f"has {len(listed)} annotations of image {key}, not one")
            if listed:
                pictures.append((each, _picture(home, each, pngs, key, listed[0][1], left_out)))
            without += not listed
        if without:
            notes.append(f"{each.path}: {without} images have no annotation; left out")
    named = with_names(pictures)
    crowds = sum(bool(shape.ignored and shape.label) for picture in named for shape in picture.shapes)
    if crowds:
        notes.append(f"{crowds} segments are crowds (iscrowd = 1) and are ignored")
    colors = {name: color for each in reversed(found) for name, color in each.colors.items()}
    return Project("coco_panoptic", named, classes_in(found), colors, left_out, tuple(notes))


def _picture(
    home: Files,
    found: Document,
    pngs: dict[str, list[Path]],
    key: int | str,
    annotation: dict[str, Any],
    left_out: Counter[str],
) -> Picture:
    entry = found.images[key]
    name = entry["file_name"]
    size = size_of(found.path, f"image {key}", entry.get("height"), entry.get("width"))
    mask = _mask(found, pngs, annotation.get("file_name"), key)
    numbers = _numbers(mask)
    if size is not None and numbers.shape != size:
        there = f"{numbers.shape[0]} x {numbers.shape[1]}"
        raise FileError(mask, "E_SIZE", f"is {there}, image {key} of {found.path.name} is {size[0]} x {size[1]}")
    image = image_of(home, found, name)
    if image == mask:
        image = next((path for path in pngs[mask.name.lower()] if path != mask), None)
    shapes = _shapes(found, mask, numbers, annotation["segments_info"], left_out)
    shape = numbers.shape[0], numbers.shape[1]
    return Picture(name_of(name), image, size or shape, shapes, found.split, missing=name)


def _mask(found: Document, pngs: dict[str, list[Path]], name: Any, key: int | str) -> Path:
    """The PNG of an annotation.

    Raises:
        FileError: it is not there, or several could be it.
    """
    if not isinstance(name, str) or not name.strip():
        raise FileError(found.path, "E_ID", f"the annotation of image {key} has no file_name")
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    there = pngs.get(parts[-1].lower() if parts else "", [])
    for folder in (found.path.with_suffix(""), found.path.parent):
        if (near := folder.joinpath(*parts)) in there:
            return near
    called = [path for path in there if any(word in path.parent.name.lower() for word in ("panoptic", "mask"))]
    if len(called or there) != 1:
        many = "is not there" if not there else f"could be {len(called or there)} files, first {there[0]}"
        raise FileError(found.path, "E_MISSING", f"names {name} for image {key}, which {many}")
    return (called or there)[0]


def _numbers(path: Path) -> NDArray[np.uint32]:
    colours = read_mask(path).pixels
    if colours.ndim != 3 or colours.dtype != np.uint8:
        raise FileError(path, "E_MODE", "is no RGB image; the numbers of panoptic segments are in red, green and blue")
    wide = colours.astype(np.uint32)
    numbers: NDArray[np.uint32] = wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]
    return numbers


def _shapes(
    found: Document, mask: Path, numbers: NDArray[np.uint32], segments: Any, left_out: Counter[str]
) -> tuple[Shape, ...]:
    known: dict[int | str, tuple[str, bool]] = {}
    for position, each in enumerate(segments if isinstance(segments, list) else ()):
        what = f"{mask.name} segment {position}"
        key = key_of(each, "id", found.path, what)
        if key in known:
            raise FileError(found.path, "E_ID", f"{mask.name} has two segments with id {key}")
        known[key] = label_of(found, each, what), each.get("iscrowd") in CROWD
    shapes = []
    for number, pixels, origin in parts_by(numbers):
        if number == 0:
            shapes.append(Shape("", pixels=pixels, origin=origin, ignored=True))
            continue
        if number not in known:
            raise FileError(mask, "E_SEGMENT", f"has pixels of segment {number}, which {found.path.name} does not list")
        label, crowd = known.pop(number)
        shapes.append(Shape(label, pixels=pixels, origin=origin, ignored=crowd))
    if known:
        left_out["segments without a pixel"] += len(known)
    return tuple(shapes)


def write(dataset: Dataset, target: Path, progress: Progress) -> Written:
    """A JSON and a folder of PNGs for each split, and the images."""
    new_folder(target)
    splits = first_splits(dataset)
    made: dict[str, dict[str, Any]] = {}
    for number, (item, classes) in enumerate(each_item(dataset, progress), 1):
        image = copied_image(item, target / "images").relative_to(target / "images")
        split = splits[item.name]
        data = made.setdefault(split, {**empty(dataset), "categories": categories_of(dataset)})
        numbers = np.zeros(classes.shape, np.uint32)
        segments = []
        for key, (k, pixels, (top, left)) in enumerate(regions_of(dataset, item, classes), 1):
            height, width = pixels.shape
            numbers[top : top + height, left : left + width][pixels] = key
            area, box = int(np.count_nonzero(pixels)), [left, top, width, height]
            segments.append({"id": key, "category_id": k + 1, "area": area, "bbox": box, "iscrowd": 0})
        mask = image.with_suffix(".png")
        path = target / "annotations" / f"panoptic_{split}" / mask
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = [numbers & 255, numbers >> 8 & 255, numbers >> 16]
        Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)
        size = {"height": classes.shape[0], "width": classes.shape[1]}
        data["images"].append({"id": number, "file_name": image.as_posix(), **size})
        data["annotations"].append({"image_id": number, "file_name": mask.as_posix(), "segments_info": segments})
    for split, data in made.items():
        (target / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(data), encoding="utf-8")
    return Written(target, len(splits), lossless=True, reason="segments are numbered pixels; ignored pixels are void")


register(Format("coco_panoptic", "COCO panoptic JSON and PNGs", recognise, read, write))
