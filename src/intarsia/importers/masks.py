"""Masks as files: class maps in a folder that the `folder` data set reads (written), and one file a class (read).

Written ("masks"): images/, masks/ (palette PNG, 255 ignored), instances/ where objects were drawn, classes.yaml,
splits.json.

Read ("masks_per_class"): beside images/, or beside the images themselves, in a folder masks/ or without one,

    IMAGE/CLASS.png     a folder for each image
    CLASS/IMAGE.png     a folder for each class
    IMAGE_CLASS.png     (or IMAGE-CLASS.png) one folder

each of 0 and 1, or 0 and 255. A class without a file is not in the image; an image without any file is left out. Classes lie
over each other in the order of their names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.classes import ClassTable
from intarsia.data.layout import IMAGE_FOLDERS, MASK_FOLDERS
from intarsia.errors import DataError, FileError
from intarsia.images.files import IMAGE_SUFFIXES, MASK_SUFFIXES, read_mask, write_class_map
from intarsia.importers.base import Files, Format, Picture, Project, Shape, Written, register
from intarsia.importers.pictures import split_of
from intarsia.importers.regions import SPLITS, cropped, first_splits, split_in
from intarsia.importers.write import copied_image, each_item, new_folder

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress

SAMPLED = 12
"""Masks that are looked into before a folder is called one of this kind."""
OTHERS = (".json", ".xml", ".geojson", ".yaml", ".yml")
"""A folder with such files is another tool's, or another data set's."""
NO_CLASSES = frozenset(
    {"mask", "masks", "label", "labels", "seg", "segmentation", "gt", "annotation", "annotations", "l"}
)
"""Endings of the masks in a folder of class maps."""
Claim = tuple[str, str]
"""Image and class of a mask."""


def recognise(files: Files) -> bool:
    """Whether every mask's name is one of the three, and a few that are looked into hold two values."""
    if files.root.is_file() or files.ending(*OTHERS):
        return False
    masks = _masks(files)[1]
    try:
        return bool(masks) and all(_binary(path) is not None for path in list(masks)[:SAMPLED])
    except (FileError, OSError):
        return False


def _masks(files: Files) -> tuple[dict[str, Path], dict[Path, Claim]]:
    """Images by name, and image and class of each mask; no masks if their names do not say them all in one way."""
    folder = next((child for child in sorted(files.folder.iterdir()) if child.name.lower() in IMAGE_FOLDERS), None)
    at = folder if folder is not None and folder.is_dir() else files.folder
    pictures = [path for path in files.every if path.suffix.lower() in IMAGE_SUFFIXES and path.is_relative_to(at)]
    if at == files.folder:
        pictures = [path for path in pictures if path.parent == at]
    images = {path.relative_to(at).with_suffix("").as_posix(): path for path in pictures}
    known = set(pictures)
    others = [path for path in files.every if path.suffix.lower() in MASK_SUFFIXES and path not in known]
    base = next((child for child in sorted(files.folder.iterdir()) if child.name.lower() in MASK_FOLDERS), None)
    base = base if base is not None and others and all(path.is_relative_to(base) for path in others) else files.folder
    names = {path: path.relative_to(base).with_suffix("").as_posix() for path in others}
    for way in (_folder_an_image, _folder_a_class, _in_the_name):
        claims = {path: way(name, images) for path, name in names.items()}
        found = {path: claim for path, claim in claims.items() if claim}
        if found and len(found) == len(names) and not {label.lower() for _, label in found.values()} <= NO_CLASSES:
            return images, found
    return images, {}


def _folder_an_image(name: str, images: Mapping[str, Path]) -> Claim | None:
    image, _, label = name.rpartition("/")
    return (image, label) if image in images else None


def _folder_a_class(name: str, images: Mapping[str, Path]) -> Claim | None:
    label, _, image = name.partition("/")
    return (image, label) if image in images else None


def _in_the_name(name: str, images: Mapping[str, Path]) -> Claim | None:
    places = [place for place, letter in enumerate(name) if letter in "_-"]
    image = next((name[:place] for place in reversed(places) if name[:place] in images), None)
    return (image, name[len(image) + 1 :]) if image is not None and name[len(image) + 1 :] else None


def _binary(path: Path) -> NDArray[np.bool_] | None:
    """The pixels of a mask of two values, None if it has others."""
    pixels = read_mask(path).pixels
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            return None
        pixels = pixels[..., 0]
    values = set(np.unique(pixels).tolist())
    return pixels > 0 if values <= {0, 1} or values <= {0, 255} else None


def read(files: Files) -> Project:
    """Every image with the masks of its classes.

    Raises:
        DataError: the masks' names do not say image and class.
        FileError: a mask holds more than two values, or those of one image differ in size.
    """
    images, masks = _masks(files)
    if not masks:
        raise DataError(
            f"{files.root}: has no masks by class. Expected images/ with IMAGE/CLASS.png, CLASS/IMAGE.png or IMAGE_CLASS.png."
        )
    of_image: dict[str, list[tuple[str, Path]]] = {}
    for path, (image, label) in masks.items():
        of_image.setdefault(image, []).append((label, path))
    pictures = []
    for name, found in sorted(of_image.items()):
        shapes, size = _shapes(sorted(found))
        split = split_in(name.split("/")[0]) if "/" in name else None
        pictures.append(Picture(name, images[name], size, shapes, split, missing=name))
    classes = tuple(sorted({label for _, label in masks.values()}))
    without = sorted(images.keys() - of_image.keys())
    notes = (f"{len(without)} images have no mask, first {without[0]}; left out",) if without else ()
    return Project("masks_per_class", tuple(pictures), classes, notes=notes)


def _shapes(found: list[tuple[str, Path]]) -> tuple[tuple[Shape, ...], tuple[int, int]]:
    size: tuple[int, int] | None = None
    shapes = []
    for label, path in found:
        inside = _binary(path)
        if inside is None:
            raise FileError(
                path, "E_VALUES", "is no mask of one class: it holds other values than 0 and 1, or 0 and 255"
            )
        own = inside.shape[0], inside.shape[1]
        size = size or own
        if own != size:
            reason = f"is {own[0]} x {own[1]}, another mask of its image ({found[0][1].name}) is {size[0]} x {size[1]}"
            raise FileError(path, "E_SIZE", reason)
        part = cropped(inside)
        if part is not None:
            shapes.append(Shape(label, pixels=part[0], origin=part[1]))
    assert size is not None
    return tuple(shapes), size


def write(dataset: Dataset, target: Path, progress: Progress) -> Written:
    """A folder as the `folder` data set reads it."""
    new_folder(target)
    table = ClassTable(names=dataset.table.names, colors=dataset.table.colors)
    names: dict[str, str] = {}
    given = first_splits(dataset)
    folders = {(split_of(name.split("/")[0]) if "/" in name else None, split) for name, split in given.items()}
    torn = any(said for said, _ in folders) and any(said != split for said, split in folders)
    within = "all" if torn else ""  # or the folders would be taken for the split
    for item, classes in each_item(dataset, progress):
        image = copied_image(item, target / "images" / within).relative_to(target / "images")
        names[item.name] = image.with_suffix("").as_posix()
        mask = _made((target / "masks" / image).with_suffix(".png"))
        write_class_map(mask, classes, table)
        if item.instances is not None:
            objects = dataset.read_instances(item)
            place = _made((target / "instances" / image).with_suffix(".png"))
            Image.fromarray(objects.astype(np.uint8 if objects.max(initial=0) < 256 else np.uint16)).save(place)
    (target / "classes.yaml").write_text(table.to_text(), encoding="utf-8")
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name, split in given.items():
        splits[split].append(names[name])
    (target / "splits.json").write_text(json.dumps(splits, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Written(target, len(names), lossless=True, reason="masks hold the class numbers, 255 ignored")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


register(Format("masks", "folder of class maps (palette PNG)", write=write))
register(Format("masks_per_class", "a mask file for each class", recognise, read))
