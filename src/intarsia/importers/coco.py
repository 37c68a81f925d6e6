"""COCO instances: JSON of images, categories and annotations.

Read: polygons, run lengths as numbers and as text; one JSON, or several of different images, such as
instances_train2017.json and instances_val2017.json or Roboflow's train/_annotations.coco.json, whose names say the split.
Classes are in the order of the categories' ids. The rings of one annotation unite: COCO knows no holes in polygons, so each
ring is a shape of its own, and those of one annotation share object_id. COCO knows no order either: annotations lie as they
are listed, but crowds (iscrowd = 1), which are ignored, lie below all others. Annotations of a box alone are left out. Lists
of detections (results) name no images and are refused. Key points are passed over where another JSON has the same images.

Written: annotations/instances_<split>.json and images/, a region of run lengths for each drawn object, or for each class
where no objects were drawn. Every class is a category, background too, its id the class number + 1. Ignored pixels are a
crowd of the first category, so that no category is made up for them: lossless. An image of several splits is written in the
first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intarsia.data.layout import IMAGE_FOLDERS
from intarsia.errors import DataError, FileError
from intarsia.importers.base import Files, Format, Picture, Project, Shape, Written, classes_of, register, ring
from intarsia.importers.pictures import color_of, name_of, nearest, size_of, unique
from intarsia.importers.regions import cropped, first_splits, parts_by, regions_of, split_in, split_of_file
from intarsia.importers.rle import decode_rle, encode_part
from intarsia.importers.write import copied_image, each_item, new_folder
from intarsia.ops.polygons import outlines

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress

Key = int | str
CROWD = (1, "1", "true")
RESULTS = (
    "lists detections without `images`: a COCO results file. Its images and categories are in the annotations that the "
    "detections were made for, such as instances_val2014.json; an export of that kind is needed"
)


@dataclass(frozen=True)
class Document:
    """One JSON of COCO's."""

    path: Path
    images: dict[Key, dict[str, Any]]
    categories: dict[Key, str]
    """Name by id, in the order of ids."""
    annotations: list[dict[str, Any]]
    split: str | None
    colors: dict[str, tuple[int, int, int]]

    @property
    def subset(self) -> str:
        """What the file's name says beside COCO's own words: "val2017"."""
        return self.path.stem.split("_", 1)[-1]


MOST_CORNERS, MOST_EDGES = 1000, 2000
"""Regions of more are written as run lengths, which are shorter then."""


def kind_of(found: Any) -> str:
    """What a JSON is: instances, panoptic, results, or "" for none of COCO's."""
    if isinstance(found, list):
        first = found[0] if found else None
        regions = isinstance(first, dict) and ("segmentation" in first or "bbox" in first)
        return "results" if regions and isinstance(first, dict) and {"image_id", "category_id"} <= first.keys() else ""
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key), list) for key in ("annotations", "categories")
    ):
        return ""
    first = found["annotations"][0] if found["annotations"] else {}
    if not isinstance(first, dict) or (first and "image_id" not in first):
        return ""
    if not isinstance(found.get("images"), list):
        return "results" if first and "segmentation" in first else ""
    return "panoptic" if "segments_info" in first else "instances"


def recognise(files: Files) -> bool:
    """Whether a JSON has images, annotations and categories; a results file too, so that it is refused with its reason."""
    return any(kind_of(files.try_json(path)) in ("instances", "results") for path in files.ending(".json"))


def documents(files: Files, kind: str, notes: list[str]) -> list[Document]:
    """The JSONs of a kind; those that are none are noted.

    Raises:
        FileError: there are results alone, or one is not whole.
    """
    found, results = [], []
    for path in files.ending(".json"):
        data = files.try_json(path)
        if data is None:
            notes.append(f"{path}: is no JSON that is read; passed over")
        elif (met := kind_of(data)) == kind:
            found.append(document(path, data, files.folder))
        elif met == "results":
            results.append(path)
    if not found:
        if results:
            raise FileError(results[0], "E_COCO", RESULTS)
        raise DataError(f"{files.root}: has no JSON of COCO {kind}.")
    notes += [f"{path}: a results file (detections); passed over" for path in results]
    with_points = [each for each in found if any("keypoints" in one for one in each.annotations[:1])]
    if with_points and len(with_points) < len(found):
        found = [each for each in found if each not in with_points]
        notes += [f"{each.path}: key points; passed over beside the other files" for each in with_points]
    return found


def document(path: Path, data: dict[str, Any], folder: Path) -> Document:
    """A parsed JSON, its ids checked.

    Raises:
        FileError: an entry has no id, or two have one and the same.
    """
    images: dict[Key, dict[str, Any]] = {}
    for position, image in enumerate(data["images"]):
        key = key_of(image, "id", path, f"image {position}")
        if key in images:
            raise FileError(path, "E_ID", f"has two images with id {key}")
        if not isinstance(image.get("file_name"), str) or not image["file_name"].strip():
            raise FileError(path, "E_ID", f"image {key} has no file_name")
        images[key] = image
    categories: dict[Key, str] = {}
    colors = {}
    for position, category in enumerate(data["categories"]):
        key = key_of(category, "id", path, f"category {position}")
        name = str(category.get("name") or "").strip()
        if not name:
            raise FileError(path, "E_CATEGORY", f"category {key} has no name")
        if categories.setdefault(key, name) != name:
            raise FileError(path, "E_CATEGORY", f"has two categories with id {key}: {categories[key]} and {name}")
        if (color := _color(category.get("color"))) is not None:
            colors[name] = color
    order = sorted(categories, key=lambda key: (isinstance(key, str), key))
    split = split_of_file(path, folder)
    return Document(path, images, {key: categories[key] for key in order}, data["annotations"], split, colors)


def key_of(entry: Any, field: str, path: Path, what: str) -> Key:
    """An id, a whole number or a text.

    Raises:
        FileError: E_ID, there is none.
    """
    value = entry.get(field) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise FileError(path, "E_ID", f"{what} has no {field} that is a number or a text")
    return value


def _color(value: Any) -> tuple[int, int, int] | None:
    if isinstance(value, str):
        return color_of(value)
    if isinstance(value, list) and len(value) == 3 and all(type(one) is int and 0 <= one <= 255 for one in value):
        return value[0], value[1], value[2]
    return None


def by_image(found: Document) -> dict[Key, list[tuple[int, dict[str, Any], str]]]:
    """Annotations by the id of their image: position, entry, and the name of its class ("" if it is no entry of one class).

    Raises:
        FileError: an image or a category is not in the file.
    """
    sorted_: dict[Key, list[tuple[int, dict[str, Any], str]]] = {key: [] for key in found.images}
    for position, each in enumerate(found.annotations):
        image = key_of(each, "image_id", found.path, f"annotation {position}")
        if image not in sorted_:
            raise FileError(
                found.path, "E_ID", f"annotation {position} is of image {image}, which the file does not list"
            )
        sorted_[image].append((position, each, "" if "segments_info" in each else label_of(found, each, position)))
    return sorted_


def label_of(found: Document, entry: Any, position: int | str) -> str:
    """The class of an annotation or a segment.

    Raises:
        FileError: the file does not list its category.
    """
    category = key_of(entry, "category_id", found.path, f"annotation {position}")
    if category not in found.categories:
        raise FileError(
            found.path, "E_CATEGORY", f"annotation {position} is of category {category}, which the file does not list"
        )
    return found.categories[category]


def with_names(found: list[tuple[Document, Picture]]) -> tuple[Picture, ...]:
    """The pictures of several files under names that differ.

    Raises:
        FileError: two entries are of one image file.
    """
    where: dict[Path, Path] = {}
    for each, picture in found:
        if picture.image in where:
            other = where[picture.image]
            both = "twice" if other == each.path else f"as {other.name} has; give one of the files alone"
            raise FileError(each.path, "E_TWICE", f"has the image {picture.image}, {both}")
        if picture.image is not None:
            where[picture.image] = each.path
    names = unique([picture.name for _, picture in found], [each.split or each.path.stem for each, _ in found])
    return tuple(replace(picture, name=name) for (_, picture), name in zip(found, names, strict=True))


def home_of(files: Files) -> Files:
    """Where images are looked for: for a file its folder; for annotations/ the folder above, if images/ is beside it."""
    folder = files.folder
    if folder.name.lower() == "annotations":
        beside = [child.name for child in folder.parent.iterdir() if child.is_dir()]
        if any(name.lower() in IMAGE_FOLDERS or split_in(name) for name in beside):
            folder = folder.parent
    return files if folder == files.root else Files(folder)


def image_of(home: Files, found: Document, name: str) -> Path | None:
    """The image that an entry names: beside the JSON, below images/ or the subset's folder, else anywhere by its name."""
    subset = found.subset
    near = [f"images/{subset}/{name}", f"{subset}/{name}", f"images/{name}", name]
    return nearest(home, found.path, near, anywhere=False) or nearest(home, found.path, [name])


def classes_in(found: list[Document]) -> tuple[str, ...]:
    """Classes of all files, those of the first in front."""
    return tuple(dict.fromkeys(name for each in found for name in each.categories.values()))


def read(files: Files) -> Project:
    """Every JSON of instances.

    Raises:
        FileError: one of them is not whole, or it is a results file.
    """
    notes: list[str] = []
    left_out: Counter[str] = Counter()
    found = documents(files, "instances", notes)
    home = home_of(files)
    pictures = with_names([(each, picture) for each in found for picture in _pictures(home, each, left_out)])
    crowds = sum(shape.ignored for picture in pictures for shape in picture.shapes)
    if crowds:
        told = "and are ignored; some tools mark all that was brushed so: data.crowds=label"
        notes.append(f"{crowds} regions are crowds (iscrowd = 1) {told}")
    colors = {name: color for each in reversed(found) for name, color in each.colors.items()}
    return Project("coco", pictures, classes_of(pictures, classes_in(found)), colors, left_out, tuple(notes))


def _pictures(home: Files, found: Document, left_out: Counter[str]) -> Iterator[Picture]:
    for key, listed in by_image(found).items():
        entry = found.images[key]
        name = entry["file_name"]
        size = size_of(found.path, f"image {key}", entry.get("height"), entry.get("width"))
        shapes = [
            shape
            for position, each, label in listed
            for shape in _shapes(found.path, position, each, label, size, left_out)
        ]
        shapes.sort(key=lambda shape: not shape.ignored)
        yield Picture(name_of(name), image_of(home, found, name), size, tuple(shapes), found.split, missing=name)


def _shapes(
    path: Path, position: int, each: dict[str, Any], label: str, size: tuple[int, int] | None, left_out: Counter[str]
) -> Iterator[Shape]:
    what, region = f"annotation {position} ({label})", each.get("segmentation")
    shared: dict[str, Any] = {
        "label": label,
        "ignored": each.get("iscrowd") in CROWD,
        "object_id": f"{path.stem}/{position}",
    }
    if isinstance(region, dict):
        mask = cropped(_run_lengths(path, what, region, size))
        if mask is None:
            left_out["regions without a pixel"] += 1
        else:
            yield Shape(pixels=mask[0], origin=mask[1], **shared)
    elif isinstance(region, list) and region:
        for one in [region] if isinstance(region[0], int | float) else region:
            corners = ring(one, path, what)
            if corners is None:
                left_out["polygons of less than three points"] += 1
            else:
                yield Shape(rings=(corners,), **shared)
    elif region:
        raise FileError(path, "E_SHAPE", f"{what} has a segmentation that is neither polygons nor run lengths")
    else:
        left_out["boxes" if each.get("bbox") else "annotations without a region"] += 1


def _run_lengths(path: Path, what: str, region: dict[str, Any], size: tuple[int, int] | None) -> Any:
    sides = region.get("size")
    if not isinstance(sides, list) or len(sides) != 2:
        raise FileError(path, "E_RLE", f"{what} has run lengths without a size of two numbers")
    own = size_of(path, what, *sides)
    if own is None or (size is not None and own != size):
        raise FileError(path, "E_RLE", f"{what} has run lengths of size {sides}, its image is of {list(size or ())}")
    try:
        return decode_rle(region.get("counts"), own)
    except ValueError as error:
        raise FileError(path, "E_RLE", f"{what} {error}") from None


def categories_of(dataset: Dataset) -> list[dict[str, Any]]:
    """Every class as a category."""
    return [
        {"id": k + 1, "name": name, "supercategory": "", "color": list(color), "isthing": int(k > 0)}
        for k, (name, color) in enumerate(zip(dataset.table.names, dataset.table.colors, strict=True))
    ]


def empty(dataset: Dataset) -> dict[str, Any]:
    """A document without images."""
    return {"info": {"description": dataset.label}, "licenses": [], "images": [], "annotations": []}


def write(dataset: Dataset, target: Path, progress: Progress) -> Written:
    """A JSON for each split, and the images."""
    new_folder(target)
    splits = first_splits(dataset)
    made: dict[str, dict[str, Any]] = {}
    for number, (item, classes) in enumerate(each_item(dataset, progress), 1):
        image = copied_image(item, target / "images").relative_to(target / "images").as_posix()
        data = made.setdefault(splits[item.name], {**empty(dataset), "categories": categories_of(dataset)})
        size = classes.shape[0], classes.shape[1]
        data["images"].append({"id": number, "file_name": image, "height": size[0], "width": size[1]})
        regions = [(k, 0, pixels, origin) for k, pixels, origin in regions_of(dataset, item, classes)]
        regions += [(0, 1, pixels, origin) for there, pixels, origin in parts_by(classes == 255) if there]
        for k, crowd, pixels, origin in regions:
            data["annotations"].append(
                {
                    "id": len(data["annotations"]) + 1,
                    "image_id": number,
                    "category_id": k + 1,
                    "segmentation": _segmentation(pixels, origin, size, crowd=bool(crowd)),
                    "area": int(np.count_nonzero(pixels)),
                    "bbox": [origin[1], origin[0], pixels.shape[1], pixels.shape[0]],
                    "iscrowd": crowd,
                }
            )
    (target / "annotations").mkdir()
    for split, data in made.items():
        (target / "annotations" / f"instances_{split}.json").write_text(json.dumps(data), encoding="utf-8")
    reason = "polygons along pixel edges, run lengths where there are holes; ignored pixels are a crowd"
    return Written(target, len(splits), lossless=True, reason=reason)


def _segmentation(
    pixels: NDArray[np.bool_], origin: tuple[int, int], size: tuple[int, int], *, crowd: bool
) -> list[list[int]] | dict[str, Any]:
    """Polygons, where they give the same pixels (no holes, few corners); else run lengths."""
    if not crowd and np.count_nonzero(pixels[:, 1:] != pixels[:, :-1]) <= MOST_EDGES:
        parts = outlines(pixels)
        if all(len(rings) == 1 for rings in parts) and sum(len(rings[0]) for rings in parts) <= MOST_CORNERS:
            return [(rings[0] + origin[::-1]).astype(int).ravel().tolist() for rings in parts]
    return {"size": list(size), "counts": encode_part(pixels, origin, size)}


register(Format("coco", "COCO instances JSON", recognise, read, write))
