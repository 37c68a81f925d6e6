"""PASCAL VOC's tree of class maps: JPEGImages/, SegmentationClass/, SegmentationObject/, ImageSets/Segmentation/.

Read: masks of class numbers (palette or grey PNG; 255 is void), and masks painted in colours, as CVAT ("Segmentation mask
1.1") and Datumaro write them. Names and colours are those of labelmap.txt (name:r,g,b:parts:actions), names those of
class_names.txt or labels.txt, a line each; without either VOC's own 21 and its colours. Black is the class that says so,
else it is unlabelled; (224, 224, 192) is void where no class has it. ImageSets/Segmentation/ says the split; where it does,
masks that are in none of its lists, and images without a mask, are left out. With SegmentationObject/ each object is a
shape.

Written: the tree, with palette PNGs in the classes' colours, class_names.txt and, where their colours differ, labelmap.txt:
lossless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.data.base import pack
from intarsia.data.published.voc import NAMES, voc_colour
from intarsia.errors import ConfigError, FileError
from intarsia.images.files import IMAGE_SUFFIXES, MASK_SUFFIXES, read_mask
from intarsia.importers.base import Files, Format, Picture, Project, Written, register
from intarsia.importers.pictures import IGNORED, name_of, split_of, unique
from intarsia.importers.regions import SPLITS, UNLABELLED, VOID, shapes_of
from intarsia.importers.write import copied_image, each_item, new_folder

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress

Colour = tuple[int, int, int]
MASKS = "SegmentationClass"
MASK_FOLDERS = (MASKS, "SegmentationClassPNG")
"""The second is labelme's name where the first holds arrays."""
VOID_COLOUR = (224, 224, 192)
VOID_NAMES = frozenset({"ignored", "ignore", "void"})
LISTS = ("class_names.txt", "labels.txt")
MOST_CLASSES = 255


@dataclass(frozen=True)
class Labels:
    """What the masks of a tree hold."""

    names: tuple[str, ...]
    colors: Mapping[Colour, int]
    """Class number of a colour, or `VOID` or `UNLABELLED`."""


def recognise(files: Files) -> bool:
    """Whether there are masks below SegmentationClass/."""
    return bool(_folders(files))


def _folders(files: Files) -> dict[Path, list[Path]]:
    """Masks by the SegmentationClass/ that holds them."""
    found: dict[Path, list[Path]] = {}
    for path in files.every:
        parts = path.relative_to(files.folder).parts[:-1]
        place = next((index for index, part in enumerate(parts) if part in MASK_FOLDERS), None)
        if place is not None and path.suffix.lower() in MASK_SUFFIXES:
            found.setdefault(files.folder.joinpath(*parts[: place + 1]), []).append(path)
    return found


def read(files: Files) -> Project:
    """Every mask of every tree.

    Raises:
        FileError: a mask holds what is no class, or the list of classes is none.
    """
    notes: list[str] = []
    classes: dict[str, None] = {}
    colors: dict[str, Colour] = {}
    found: list[Picture] = []
    prefixes = []
    for folder, masks in _folders(files).items():
        tree = folder.parent
        labels = _labels(tree)
        classes.update(dict.fromkeys(labels.names))
        for color, k in labels.colors.items():
            if k >= 0:
                colors.setdefault(labels.names[k], color)
        pictures = _pictures(files, folder, masks, labels, notes)
        found += pictures
        prefixes += [tree.relative_to(files.folder).as_posix()] * len(pictures)
    names = unique([picture.name for picture in found], prefixes)
    named = tuple(replace(picture, name=name) for picture, name in zip(found, names, strict=True))
    return Project("voc", named, tuple(classes), colors, notes=tuple(notes))


def _pictures(files: Files, folder: Path, masks: Sequence[Path], labels: Labels, notes: list[str]) -> list[Picture]:
    tree = folder.parent
    splits = _splits(tree, notes)
    stems = {path.relative_to(folder).with_suffix("").as_posix(): path for path in masks}
    if bare := sorted(splits.keys() - stems.keys()):
        notes.append(f"{tree}: {len(bare)} images of the lists have no mask, first {bare[0]}; left out")
    if splits and (unlisted := sorted(stems.keys() - splits.keys())):
        notes.append(f"{tree}: {len(unlisted)} masks are in no list, first {unlisted[0]}; left out")
    images = {
        path.relative_to(tree / "JPEGImages").with_suffix("").as_posix(): path
        for path in files.every
        if path.is_relative_to(tree / "JPEGImages") and path.suffix.lower() in IMAGE_SUFFIXES
    }
    made = []
    for stem, path in stems.items():
        if splits and stem not in splits:
            continue
        classes = _classes(path, labels)
        shapes = shapes_of(classes, labels.names, _objects(folder, path, classes.shape))
        size = classes.shape[0], classes.shape[1]
        image = images.get(stem) or files.image(f"{stem}.jpg")
        made.append(Picture(name_of(f"{stem}.png"), image, size, shapes, splits.get(stem), missing=stem))
    return made


def _splits(tree: Path, notes: list[str]) -> dict[str, str]:
    """The split of each name, of the lists train, val and test; the first of several."""
    found: dict[str, str] = {}
    twice = 0
    folder = tree / "ImageSets" / "Segmentation"
    lists = {split_of(path.stem): path for path in sorted(folder.glob("*.txt"))}
    for split in SPLITS:
        if split in lists:
            for line in lists[split].read_text(encoding="utf-8-sig", errors="replace").splitlines():
                if line.strip():
                    twice += found.setdefault(_listed(line), split) != split
    if twice:
        notes.append(f"{folder}: has {twice} names in several lists; they are in the first of them")
    return found


def _listed(line: str) -> str:
    """A name of a list; in quotes if it has a space, as Datumaro writes it, and without what follows it."""
    text = line.strip()
    return text[1:].split('"')[0] if text.startswith('"') else text.split(" ")[0] if text[-2:] in (" 1", " 0") else text


def _labels(tree: Path) -> Labels:
    """Names and colours of a tree's classes.

    Raises:
        FileError: the list that is there is none.
    """
    for folder in (tree, tree.parent):
        if (folder / "labelmap.txt").is_file():
            return _label_map(folder / "labelmap.txt")
        for name in LISTS:
            if (folder / name).is_file():
                return _by_line(folder / name)
    return Labels(NAMES, _void({voc_colour(k): k for k in range(len(NAMES))}))


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _by_line(path: Path) -> Labels:
    names = [name for name in _lines(path) if name != IGNORED]
    _fits(path, names)
    return Labels(tuple(names), _void({voc_colour(k): k for k in range(len(names))}))


def _label_map(path: Path) -> Labels:
    names: list[str] = []
    colors: dict[Colour, int] = {}
    for line in _lines(path):
        if line.startswith("#"):
            continue
        name, *rest = line.rsplit(":", 3) if line.count(":") >= 3 else line.split(":")
        channels = (rest[0] if rest else "").split(",")
        if len(channels) != 3 or not all(one.strip().isdecimal() and int(one) <= 255 for one in channels):
            raise FileError(
                path, "E_LABELS", f"has the line {line[:60]!r}; lines are name:red,green,blue:parts:actions"
            )
        color = int(channels[0]), int(channels[1]), int(channels[2])
        if name in VOID_NAMES and color == VOID_COLOUR:
            continue
        if color in colors:
            raise FileError(path, "E_LABELS", f"gives {names[colors[color]]} and {name} one colour, {color}")
        colors[color] = len(names)
        names.append(name)
    _fits(path, names)
    return Labels(tuple(names), _void(colors))


def _fits(path: Path, names: Sequence[str]) -> None:
    if not names or len(names) > MOST_CLASSES or len(set(names)) < len(names):
        raise FileError(
            path, "E_LABELS", f"must list 1 to {MOST_CLASSES} classes of different names; it lists {len(names)}"
        )


def _void(colors: Mapping[Colour, int]) -> dict[Colour, int]:
    return {VOID_COLOUR: VOID, (0, 0, 0): UNLABELLED, **colors}


def _classes(path: Path, labels: Labels) -> NDArray[np.int64]:
    """Class numbers of a mask, `VOID` and `UNLABELLED`.

    Raises:
        FileError: it holds numbers or colours that are no class.
    """
    pixels = read_mask(path).pixels
    if pixels.ndim == 2:
        table = np.full(65536, -3, np.int64)
        table[: len(labels.names)] = np.arange(len(labels.names))
        table[255] = VOID
        classes = table[pixels]
        if (classes == -3).any():
            met = int(pixels[classes == -3].max())
            raise FileError(path, "E_CLASS", f"holds {met}; classes are 0 to {len(labels.names) - 1}, and 255 is void")
        return classes
    values, which = np.unique(pack(pixels), return_inverse=True)
    met_colors = [(int(value) >> 16, int(value) >> 8 & 255, int(value) & 255) for value in values]
    if unknown := [color for color in met_colors if color not in labels.colors]:
        raise FileError(path, "E_CLASS", f"holds the colour {unknown[0]}, which no class has; list it in labelmap.txt")
    numbers = np.array([labels.colors[color] for color in met_colors], np.int64)
    return numbers[which.reshape(pixels.shape[:2])]


def _objects(folder: Path, mask: Path, size: tuple[int, ...]) -> NDArray[Any] | None:
    path = folder.with_name(folder.name.replace("Class", "Object")) / mask.relative_to(folder)
    if not path.is_file():
        return None
    pixels = read_mask(path).pixels
    objects = pixels if pixels.ndim == 2 else pack(pixels)
    if objects.shape != size:
        raise FileError(
            path, "E_SIZE", f"is {objects.shape[0]} x {objects.shape[1]}, its mask is {size[0]} x {size[1]}"
        )
    return objects


def write(dataset: Dataset, target: Path, progress: Progress) -> Written:
    """The tree."""
    table = dataset.table
    if odd := [
        name for name in table.names if not name or name != " ".join(name.splitlines()).strip() or name == IGNORED
    ]:
        raise ConfigError(
            f"the class {odd[0]!r} cannot stand in a list of one class a line; rename it with data.class_map."
        )
    new_folder(target)
    palette = [channel for color in table.colors for channel in color]
    palette += [0] * (765 - len(palette)) + list(VOID_COLOUR)
    stems = {}
    for item, classes in each_item(dataset, progress):
        image = copied_image(item, target / "JPEGImages").relative_to(target / "JPEGImages")
        stems[item.name] = image.with_suffix("").as_posix()
        path = (target / MASKS / image).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        painted = Image.fromarray(np.ascontiguousarray(classes))
        painted.putpalette(palette)
        painted.save(path, "PNG")
    lists = target / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    taken: set[str] = set()
    for split in SPLITS:
        names = [stems[item.name] for item in dataset.splits.get(split, ()) if item.name not in taken]
        taken.update(item.name for item in dataset.splits.get(split, ()))
        if names:
            (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    if len(set(table.colors) | {VOID_COLOUR}) > len(table.colors) and not any(name[:1] == "#" for name in table.names):
        colored = zip(table.names, table.colors, strict=True)
        text = "# label:color_rgb:parts:actions\n" + "".join(f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in colored)
        (target / "labelmap.txt").write_text(text, encoding="utf-8")
    (target / "class_names.txt").write_text("".join(f"{name}\n" for name in table.names), encoding="utf-8")
    return Written(target, len(stems), lossless=True, reason="masks hold the class numbers, 255 void")


register(Format("voc", "PASCAL VOC class maps, CVAT segmentation mask 1.1", recognise, read, write))
