"""Which files of a folder belong together. Only names are looked at here, never contents.

    images/ + masks/                      masks/ may also be called labels/ or annotations/
    {train,val,test}/images/ + masks/     or the other way round, images/{train,val,test}/
    splits.json or splits.yaml            {train: [names], val: [...], test: [...]}, beside images/ and masks/

An image and its mask have the same path below their folder, without ending; if no mask has, endings such as _mask are
tried. A folder instances/ beside masks/ may hold the single objects (0 background, 1..n), under the images' names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from intarsia.config import read_yaml
from intarsia.errors import ConfigError, DataError
from intarsia.images.files import IMAGE_SUFFIXES, MASK_SUFFIXES

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation")
INSTANCE_FOLDERS = ("instances", "instance")
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_ENDING = re.compile(r"[_-](masks?|labels?|seg|segmentation|gt|annotations?|l)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """An image and a mask of the same name; one of them may be missing."""

    name: str
    split: str | None
    image: Path | None
    mask: Path | None
    instances: Path | None = None


@dataclass
class Layout:
    """What a folder holds, by name."""

    pairs: list[Pair] = field(default_factory=list)
    doubles: list[tuple[Path, Path]] = field(default_factory=list)
    """Files of the same stem, in the same folder."""
    passed_over: list[Path] = field(default_factory=list)
    """Files with an ending that is no image's."""
    notes: list[str] = field(default_factory=list)
    split_source: str = ""


def find_pairs(root: Path, split_file: Path | None = None) -> Layout:
    """The pairs of a folder.

    Args:
        split_file: lists of names, such as train/a where the folders are split; None: splits.json or splits.yaml in the
            folder, if there is one.

    Raises:
        DataError: it does not exist, or holds no folder of images and none of masks.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {'is a file, not a folder' if root.exists() else 'does not exist'}.")
    layout = Layout()
    places = find_places(root)
    for place in places:
        _pair_up(layout, place)
    if not any(pair.image for pair in layout.pairs):
        raise DataError(f"{root}: holds no images. Read are {', '.join(sorted(IMAGE_SUFFIXES))}.")
    if any(place.split for place in places) and split_file is None:
        layout.split_source = "folders"
    else:
        layout.pairs = [replace(p, name=f"{p.split}/{p.name}", split=None) if p.split else p for p in layout.pairs]
        apply_split_file(root, layout, split_file)
    layout.pairs.sort(key=lambda pair: (pair.split or "", pair.name))
    return layout


def is_laid_out(root: Path) -> bool:
    """Whether a folder has images and masks of the same names where `find_pairs` looks for them."""
    try:
        return any(pair.image and pair.mask for pair in find_pairs(root).pairs)
    except (DataError, OSError):
        return False


@dataclass(frozen=True)
class _Place:
    """Folders of a part of the data set."""

    split: str | None
    images: Path
    masks: Path | None
    instances: Path | None


def find_places(root: Path) -> list[_Place]:
    """The folders of images and masks.

    Raises:
        DataError: there are none.
    """
    images, masks, instances = (_child(root, names) for names in (IMAGE_FOLDERS, MASK_FOLDERS, INSTANCE_FOLDERS))
    if images is None:
        found: list[_Place] = []
        for split, names in SPLIT_FOLDERS.items():
            folder = _child(root, names)
            part = folder and _child(folder, IMAGE_FOLDERS)
            if folder and part:
                found.append(_Place(split, part, _child(folder, MASK_FOLDERS), _child(folder, INSTANCE_FOLDERS)))
        if any(place.masks for place in found):
            return found
        met = ", ".join(sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())[:8]) or "nothing"
        raise DataError(
            f"{root}: has no folders images/ and masks/. Expected images/ + masks/ (or labels/, annotations/), with or "
            f"without train/, val/, test/ above or below them; met: {met}."
        )
    if masks is None:
        raise DataError(f"{root}: has {images.name}/ but no masks/ (or labels/, annotations/).")
    splits = [
        _Place(split, part, _child(masks, names), _child(instances, names) if instances else None)
        for split, names in SPLIT_FOLDERS.items()
        if (part := _child(images, names)) is not None
    ]
    return splits or [_Place(None, images, masks, instances)]


def _child(folder: Path, names: Iterable[str]) -> Path | None:
    children = {child.name.lower(): child for child in sorted(folder.iterdir(), reverse=True) if child.is_dir()}
    return next((children[name] for name in names if name in children), None)


def _pair_up(layout: Layout, place: _Place) -> None:
    masks = place.masks
    pictures = _by_name(layout, place.images, IMAGE_SUFFIXES)
    truths = _by_name(layout, masks, MASK_SUFFIXES | IMAGE_SUFFIXES) if masks else {}
    objects = _instances(layout, place.instances, pictures) if place.instances else {}
    if truths and pictures and not pictures.keys() & truths.keys():
        shortened = {_ENDING.sub("", name): path for name, path in truths.items()}
        if len(shortened) == len(truths) and pictures.keys() & shortened.keys():
            truths = shortened
            layout.notes.append(f"{masks}: masks are matched without their ending, such as _mask")
    for name in pictures.keys() | truths.keys():
        layout.pairs.append(Pair(name, place.split, pictures.get(name), truths.get(name), objects.get(name)))


def _instances(layout: Layout, folder: Path, pictures: Collection[str]) -> dict[str, Path]:
    """Files of single objects by name. They are optional: a fault among them is a note, and no image is left out for it."""
    beside = Layout()
    found = _by_name(beside, folder, MASK_SUFFIXES)
    for first, second in beside.doubles:
        layout.notes.append(f"{first} and {second.name}: two files of one name; the first is taken")
    missing = sorted(name for name in pictures if name not in found)
    if found and missing:
        layout.notes.append(f"{folder}: has no file for {len(missing)} images, first {missing[0]}")
    return found


def _by_name(layout: Layout, folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini") or not path.is_file():
            continue
        if path.suffix.lower() not in suffixes:
            layout.passed_over.append(path)
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            layout.doubles.append((found[name], path))
        else:
            found[name] = path
    return found


def apply_split_file(root: Path, layout: Layout, given: Path | None) -> None:
    """Give the pairs the split that a file lists; those that it leaves out go, with a note.

    Args:
        given: lists of names; None: splits.json or splits.yaml in the folder; where there is none nothing changes.

    Raises:
        DataError: the file is no such list, names what is not there, or names something twice.
    """
    file = given or next(
        (root / name for name in ("splits.json", "splits.yaml", "splits.yml") if (root / name).is_file()), None
    )
    if file is None:
        return
    where = read_splits(file)
    known = {pair.name for pair in layout.pairs if pair.image}
    if missing := sorted(where.keys() - known):
        raise DataError(f"{file}: lists {len(missing)} names without an image, first {missing[0]!r}.")
    layout.split_source = file.name
    left_out = [pair for pair in layout.pairs if pair.name not in where]
    if left_out:
        layout.notes.append(f"{file.name} leaves out {len(left_out)} images, first {left_out[0].name}")
    layout.pairs = [replace(pair, split=where[pair.name]) for pair in layout.pairs if pair.name in where]


def read_splits(file: Path) -> dict[str, str]:
    """Name to split, of a file of lists: {train: [...], val: [...], test: [...]}; endings of image files are left out.

    Raises:
        DataError: it is no such file, or names something twice.
    """
    try:
        lists = read_yaml(file)
    except ConfigError as error:
        raise DataError(str(error)) from None
    if isinstance(lists, dict):
        lists.pop("source", None)
    if not isinstance(lists, dict) or not all(isinstance(names, list) for names in lists.values()):
        raise DataError(f"{file}: must hold lists of names: train: [a, b], val: [c], test: [d].")
    where: dict[str, str] = {}
    for key, names in lists.items():
        split = next((split for split, synonyms in SPLIT_FOLDERS.items() if str(key).lower() in synonyms), None)
        if split is None:
            raise DataError(f"{file}: {key!r} is no split; there are train, val and test.")
        for name in map(str, names):
            stem = re.sub(r"\.(png|jpe?g|tiff?|webp|bmp)$", "", name, flags=re.IGNORECASE)
            if stem in where:
                raise DataError(f"{file}: {name!r} is listed twice ({where[stem]} and {split}).")
            where[stem] = split
    return where
