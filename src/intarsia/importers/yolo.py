"""YOLO segmentation (Ultralytics): a text file an image, each line a class number and a polygon in shares of the sides.

Read: images/ and labels/ as mirrored folders, or text files beside the images; data.yaml with names and train, val and test,
each a folder, a list of folders or a text file that lists images. Without data.yaml, classes.txt has the names, and folders
called train, val or test the split. Lines of four numbers are boxes and are left out. An image without a text file holds no
object. Where data.yaml lists images, those that it does not list are left out; one of several splits is in the first.

Written: images/, labels/, train.txt, val.txt, test.txt and data.yaml. Regions are drawn along the edges of pixels; one with
a hole is cut into bands of rows that have none, since YOLO has no holes. Every class is drawn, background too: lossless, but
for ignored pixels, which YOLO cannot say: they stay unlabelled.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intarsia.config import read_yaml
from intarsia.errors import ConfigError, FileError
from intarsia.images.files import IMAGE_SUFFIXES, frame_of
from intarsia.importers.base import Files, Format, Picture, Project, Shape, Written, classes_of, register, ring
from intarsia.importers.pictures import name_of
from intarsia.importers.regions import SPLITS, regions_of, split_in
from intarsia.importers.write import copied_image, each_item, new_folder
from intarsia.ops.polygons import Ring, fill_polygon, outlines

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress

NO_LABELS = frozenset({"classes.txt", "names.txt", "labels.txt", "train.txt", "val.txt", "valid.txt", "test.txt"})
MOST_YAML = 1 << 20
BEYOND = 2.0
"""A share of a side that is larger is a number of pixels, not a share."""


def recognise(files: Files) -> bool:
    """Whether a YAML file has names and train or val, or a text file below labels/ begins with a class and numbers."""
    texts = [path for path in files.ending(".txt") if "labels" in _folders(files, path) and path.name not in NO_LABELS]
    return _sheet(files) is not None or any(_has_lines(path) for path in texts[:100])


def _folders(files: Files, path: Path) -> tuple[str, ...]:
    return tuple(part.lower() for part in path.relative_to(files.folder).parts[:-1])


def _has_lines(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            words = file.readline(1 << 16).split()
        return len(words) >= 5 and words[0].isdigit() and all(np.isfinite([float(word) for word in words]))
    except (OSError, ValueError):
        return False


def _sheet(files: Files) -> tuple[Path, dict[str, Any]] | None:
    """data.yaml, or the first YAML file that is one by its content."""
    sheets = []
    for path in files.ending(".yaml", ".yml"):
        try:
            found = read_yaml(path) if path.stat().st_size <= MOST_YAML else None
        except (ConfigError, OSError, RecursionError, ValueError):
            continue
        if isinstance(found, dict) and isinstance(found.get("names"), dict | list) and {"train", "val"} & found.keys():
            sheets.append((path, found))
    return min(sheets, key=lambda each: (each[0].name != "data.yaml", each[0]), default=None)


def read(files: Files) -> Project:
    """Every image with its lines.

    Raises:
        FileError: a line is none of YOLO's.
    """
    if files.root.is_file():
        raise FileError(files.root, "E_LAYOUT", "holds neither images nor lines; give the folder that it lies in")
    notes: list[str] = []
    left_out: Counter[str] = Counter()
    sheet = _sheet(files)
    names = _names(files, sheet)
    pairs = dict(_pairs(files))
    images = [path for path, label in pairs.items() if path != label]
    splits = _splits(sheet, images, notes) if sheet else {}
    pictures: dict[str, Picture] = {}
    for path, label in pairs.items():
        if splits and path not in splits and path != label:
            continue
        picture = _picture(files, path, label, splits, names, left_out)
        if picture.name in pictures:
            raise FileError(
                path, "E_TWICE", f"is the second image called {picture.name}; their lines would be mixed up"
            )
        pictures[picture.name] = picture
    if splits and (unlisted := [path for path in images if path not in splits]):
        notes.append(f"{len(unlisted)} images are in no list of data.yaml, first {unlisted[0]}; left out")
    if without := sum(label is None for path, label in pairs.items() if not splits or path in splits):
        notes.append(f"{without} images have no text file and so hold no object")
    found = tuple(pictures.values())
    classes = classes_of(found, names or _numbered(found))
    return Project("yolo", found, classes, left_out=left_out, notes=tuple(notes))


def _picture(
    files: Files,
    path: Path,
    label: Path | None,
    splits: Mapping[Path, str],
    names: Sequence[str],
    left_out: Counter[str],
) -> Picture:
    folders = [part for part in path.relative_to(files.folder).parts[:-1] if part.lower() not in ("images", "labels")]
    name = name_of("/".join((*folders, path.name if path != label else path.stem)))
    split = splits.get(path) or next((found for part in folders if (found := split_in(part))), None)
    if path == label:  # of an image of 1 x 1: one that is found elsewhere is refused rather than left empty
        return Picture(name, None, (1, 1), tuple(_shapes(path, (1, 1), names, left_out)), split, missing=name)
    size = frame_of(path)[0]
    shapes = tuple(_shapes(label, size, names, left_out)) if label else ()
    return Picture(name, path, size, shapes, split, missing=path.name)


def _numbered(pictures: Sequence[Picture]) -> list[str]:
    """Names of classes that are known by number alone."""
    return sorted({shape.label for each in pictures for shape in each.shapes}, key=lambda label: int(label.split()[-1]))


def _names(files: Files, sheet: tuple[Path, dict[str, Any]] | None) -> list[str]:
    """Names of the classes 0, 1, ..., none if nobody says them.

    Raises:
        FileError: the names are not numbered 0, 1, ...
    """
    if sheet is None:
        there = [path for path in files.ending(".txt") if path.name.lower() in ("classes.txt", "names.txt")]
        lines = there[0].read_text(encoding="utf-8-sig", errors="replace").splitlines() if there else []
        return [line.strip() for line in lines if line.strip()]
    names = sheet[1]["names"]
    if isinstance(names, dict):
        if {str(key) for key in names} != {str(number) for number in range(len(names))}:
            raise FileError(
                sheet[0], "E_CATEGORY", f"numbers its names {', '.join(map(str, names))}"[:200] + ", not 0, 1, ..."
            )
        names = [names[key] for key in sorted(names, key=int)]
    return [str(name) for name in names]


def _pairs(files: Files) -> Iterator[tuple[Path, Path | None]]:
    """Each image and its text file, if it has one; a text file that has no image with itself."""
    texts = {path for path in files.ending(".txt") if path.name.lower() not in NO_LABELS}
    used = set()
    for path in files.every:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        mirrored, beside = _mirrored(files.folder, path), path.with_suffix(".txt")
        label = next((each for each in (mirrored, beside) if each in texts), None)
        if label is not None or mirrored is not None:
            if label is not None:
                used.add(label)
            yield path, label
    for path in sorted(texts - used):
        if "labels" in _folders(files, path):
            yield path, path


def _mirrored(folder: Path, path: Path) -> Path | None:
    """labels/a/b.txt of images/a/b.jpg: the last of such folders is meant."""
    parts = list(path.relative_to(folder).parts)
    places = [place for place, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if not places:
        return None
    parts[places[-1]] = "labels" if parts[places[-1]] == "images" else "Labels"
    return folder.joinpath(*parts).with_suffix(".txt")


def _splits(sheet: tuple[Path, dict[str, Any]], images: Sequence[Path], notes: list[str]) -> dict[Path, str]:
    """The split of each image that data.yaml has; the first of several."""
    path, data = sheet
    found: dict[Path, str] = {}
    twice = 0
    for split in SPLITS:
        entries = data.get(split) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            listed = _listed(path, str(entry), str(data.get("path") or ""), images)
            if not listed:
                notes.append(f"{path}: {split} says {entry}, where no image is")
            for image in listed:
                twice += found.setdefault(image, split) != split
    if twice:
        notes.append(f"{path}: has {twice} images in several splits; they are in the first of them")
    return found


def _listed(sheet: Path, entry: str, base: str, images: Sequence[Path]) -> list[Path]:
    """The images below a folder, or those that a text file lists; what leads out of the folder is taken from the folder on."""
    inner = _inside(entry)
    for folder in (sheet.parent, sheet.parent / _inside(base), sheet.parent / PurePosixPath(_inside(base)).name):
        place = folder / inner
        if place.is_dir():
            return [image for image in images if image.is_relative_to(place)]
        if place.suffix == ".txt" and place.is_file():
            lines = place.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            wanted = [_inside(line.strip()) for line in lines if line.strip()]
            near = {image.relative_to(folder).as_posix(): image for image in images if image.is_relative_to(folder)}
            ends: dict[str, Path] = {"/".join(image.parts[-2:]): image for image in images}
            each = [near.get(name) or ends.get("/".join(name.split("/")[-2:])) for name in wanted]
            return [image for image in each if image is not None]
    return []


def _inside(entry: str) -> str:
    return "/".join(
        part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..") and ":" not in part
    )


def _shapes(path: Path, size: tuple[int, int], names: Sequence[str], left_out: Counter[str]) -> Iterator[Shape]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise FileError(path, "E_LINE", "is no text of YOLO's (not UTF-8)") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        what = f"line {number}"
        if not words[0].isdecimal() or len(words[0]) > 9:
            raise FileError(path, "E_LINE", f"{what} begins with {words[0][:20]!r}, which is no class number")
        if names and int(words[0]) >= len(names):
            raise FileError(path, "E_CATEGORY", f"{what} is of class {words[0]}; the names are 0 to {len(names) - 1}")
        if len(words) == 5:
            left_out["boxes"] += 1
            continue
        if len(words) < 5 or len(words) % 2 == 0:
            raise FileError(path, "E_LINE", f"{what} has {len(words) - 1} numbers after the class, which are no pairs")
        corners = ring(words[1:], path, what)
        if corners is None:
            left_out["polygons of less than three points"] += 1
            continue
        if np.abs(corners).max() > BEYOND:
            raise FileError(
                path, "E_NUMBER", f"{what} has {np.abs(corners).max():g}; coordinates are shares of the sides, 0 to 1"
            )
        label = names[int(words[0])] if names else f"class {int(words[0])}"
        yield Shape(label, rings=(corners * (size[1], size[0]),))


def write(dataset: Dataset, target: Path, progress: Progress) -> Written:
    """Images, lines, lists and data.yaml."""
    new_folder(target)
    written: dict[str, str] = {}
    ignored = 0
    for item, classes in each_item(dataset, progress):
        image = copied_image(item, target / "images")
        height, width = classes.shape
        lines = []
        for k, pixels, (top, left) in regions_of(dataset, item, classes):
            for corners in without_holes(pixels):
                shares = np.add(corners, (left, top)) / (width, height)
                lines.append(" ".join((str(k), *(f"{share:.12g}" for share in shares.ravel().tolist()))))
        label = _mirrored(target, image) or image.with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        written[item.name] = image.relative_to(target).as_posix()
        ignored += int((classes == 255).sum())
    _write_lists(dataset, target, written)
    if ignored:
        return Written(
            target, len(written), lossless=False, reason=f"{ignored} ignored pixels stay unlabelled: YOLO has no word"
        )
    return Written(
        target, len(written), lossless=True, reason="polygons run along the edges of pixels, none with a hole"
    )


def _write_lists(dataset: Dataset, target: Path, written: Mapping[str, str]) -> None:
    there = [split for split in SPLITS if dataset.splits.get(split)]
    for split in there:
        lines = [f"./{written[item.name]}\n" for item in dataset.splits[split]]
        (target / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    sheet = [f"{split}: {split}.txt" for split in there] + ["names:"]
    sheet += [f"  {k}: {json.dumps(name, ensure_ascii=False)}" for k, name in enumerate(dataset.table.names)]
    (target / "data.yaml").write_text("\n".join(sheet) + "\n", encoding="utf-8")


def without_holes(region: NDArray[np.bool_]) -> Iterator[Ring]:
    """The outlines of a region; a part with holes is cut above each hole, so that every hole opens to a cut."""
    for rings in outlines(region):
        if len(rings) == 1:
            yield rings[0]
            continue
        (left, top), (right, bottom) = (edge(rings[0], axis=0).astype(int) for edge in (np.min, np.max))
        part = fill_polygon([one - (left, top) for one in rings], (bottom - top, right - left))
        cuts = sorted({0, bottom - top, *(int(hole[:, 1].min()) - top for hole in rings[1:])})
        for first, last in pairwise(cuts):
            for (outer,) in outlines(part[first:last]):
                yield np.add(outer, (left, top + first))


register(
    Format(
        "yolo",
        "YOLO segmentation (Ultralytics)",
        recognise,
        read,
        write,
        loss="lossless; ignored pixels stay unlabelled",
    )
)
