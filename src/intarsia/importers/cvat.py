"""CVAT XML 1.1, for images and for video: one document for a task or a project, images beside or in images/.

Read: polygon, box and ellipse (turned clockwise by `rotation` degrees about their centre) and mask (run lengths, row by row
within its box, the first run outside). Polylines, points, cuboids, skeletons and tags have no area and are left out. Parts
of one object share label and group_id. CVAT paints by z_order, then in the order of the document: that is order "z"; a note
says where it differs from the document's order. `subset` is the split. Labels and colours are those of the task or project
in <meta>.

Video: each frame that a track mentions is a picture; a shape with outside="1" is not to be seen there. The document does
not name images: frame_000010.png is looked for, else the image whose name ends in that number.

CVAT has no word for ignored pixels: the label `__ignore__` is written and read as such; any other label, "background" and
"ignore" too, is a class.

Written: for images, one mask a class, its pixels as they are: lossless.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import cos, radians, sin
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import FileError
from intarsia.images.files import max_pixels
from intarsia.importers.base import (
    Files,
    Format,
    Picture,
    Project,
    Shape,
    Written,
    classes_of,
    ellipse,
    number,
    rectangle,
    register,
    ring,
)
from intarsia.importers.pictures import IGNORED, color_of, name_of, nearest, size_of, split_of, unique
from intarsia.importers.regions import first_splits, parts_by
from intarsia.importers.write import copied_image, each_item, new_folder
from intarsia.ops.polygons import Ring

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress

WITHOUT_AREA = {
    "polyline": "polylines",
    "points": "points",
    "cuboid": "cuboids",
    "skeleton": "skeletons",
    "tag": "tags",
}
FRAME_SUFFIXES = (".png", ".PNG", ".jpg", ".JPG", ".jpeg")


def recognise(files: Files) -> bool:
    """Whether an XML's root is <annotations> with images or tracks."""
    return any(True for _ in _documents(files))


def _documents(files: Files) -> Iterator[tuple[Path, Element]]:
    for path in files.ending(".xml"):
        root = files.try_xml(path)
        if root is None or root.tag != "annotations":
            continue
        if any(root.find(tag) is not None for tag in ("image", "track", "meta/task", "meta/project", "meta/job")):
            yield path, root


def read(files: Files) -> Project:
    """Every CVAT document.

    Raises:
        FileError: one of them holds what is no shape.
    """
    left_out: Counter[str] = Counter()
    notes: list[str] = []
    labels: dict[str, tuple[int, int, int] | None] = {}
    found: list[tuple[Picture, str]] = []
    for path, root in _documents(files):
        for label, color in _labels(root):
            labels[label] = color or labels.get(label)
        found += _images(files, path, root, left_out)
        frames = _frames(files, path, root, left_out)
        found += frames
        if frames:
            notes.append(f"{path.name}: a video; {len(frames)} frames are in the document, others are not read")
    names = unique([picture.name for picture, _ in found], [prefix for _, prefix in found])
    pictures = [replace(picture, name=name) for (picture, _), name in zip(found, names, strict=True)]
    if turned := sum(_differs(picture) for picture in pictures):
        notes.append(f"{turned} pictures have shapes whose z_order is not the document's order; CVAT paints by order=z")
    colors = {label: color for label, color in labels.items() if color is not None}
    return Project("cvat", tuple(pictures), classes_of(pictures, list(labels)), colors, left_out, tuple(notes))


def _differs(picture: Picture) -> bool:
    heights = [shape.z for shape in picture.shapes]
    return heights != sorted(heights)


def _labels(root: Element) -> Iterator[tuple[str, tuple[int, int, int] | None]]:
    """Classes and colours; the parts of a skeleton, which have a parent, are none."""
    for label in root.iterfind("meta/*/labels/label"):
        name = label.findtext("name") or ""
        if name and name != IGNORED and not (label.findtext("parent") or "").strip():
            yield name, color_of(label.findtext("color"))


def _images(files: Files, path: Path, root: Element, left_out: Counter[str]) -> list[tuple[Picture, str]]:
    """The pictures of <image> elements, each with what tells it from others of its name."""
    elements = root.findall("image")
    counts = Counter(element.get("name", "") for element in elements)
    found = []
    for element in elements:
        name, subset = element.get("name", ""), element.get("subset", "")
        if not name:
            raise FileError(path, "E_SHAPE", f"image {element.get('id', '?')} has no name")
        places = (*((f"images/{subset}/{name}", f"{subset}/{name}") if subset else ()), f"images/{name}", name)
        shapes = [_shape(path, name, each, each.get("label", ""), left_out) for each in element]
        picture = Picture(
            name_of(name),
            nearest(files, path, places, anywhere=counts[name] == 1),
            size_of(path, name, element.get("height"), element.get("width")),
            tuple(shape for shape in shapes if shape is not None),
            split_of(subset),
            missing=name,
        )
        found.append((picture, subset or path.parent.relative_to(files.folder).as_posix()))
    return found


def _frames(files: Files, path: Path, root: Element, left_out: Counter[str]) -> list[tuple[Picture, str]]:
    """The pictures of a video's frames; those of a project's several tasks apart."""
    shapes: dict[tuple[str, int], list[Shape]] = {}
    subsets: dict[str, str] = {}
    for track in root.iterfind("track"):
        task, label = track.get("task_id", ""), track.get("label", "")
        subsets[task] = track.get("subset", "")
        for each in track:
            frame = _whole(path, each.get("frame"), f"the frame of track {track.get('id', '?')}")
            inside = shapes.setdefault((task, frame), [])
            if each.get("outside") != "1":
                shape = _shape(path, f"frame {frame}", each, label, left_out, track.get("group_id"))
                inside += [shape] if shape is not None else []
    if not shapes:
        return []
    sizes = _original_sizes(path, root)
    numbered = _numbered(files)
    several = len(subsets) > 1
    found = []
    for (task, frame), inside in sorted(shapes.items()):
        name = f"frame_{frame:06d}"
        folders = ("images/", "") if not several else (f"images/{subsets[task]}/", f"{subsets[task]}/")
        places = [folder + name + suffix for folder in folders for suffix in FRAME_SUFFIXES]
        image = nearest(files, path, places, anywhere=not several)
        if image is None and not several and all(number_ in numbered for _, number_ in shapes):
            image = numbered[frame]
        picture = Picture(
            name,
            image,
            sizes.get(task) or sizes.get(""),
            tuple(inside),
            split_of(subsets[task]),
            missing=f"{name}.png",
        )
        found.append((picture, f"task_{task}" if task else path.parent.relative_to(files.folder).as_posix()))
    return found


def _original_sizes(path: Path, root: Element) -> dict[str, tuple[int, int] | None]:
    """Height and width of a video by its task; "" is the only one's."""
    tasks = [*root.iterfind("meta/task"), *root.iterfind("meta/project/tasks/task"), *root.iterfind("meta/job")]
    sizes = {
        (task.findtext("id") or "").strip(): size_of(
            path, "the video", task.findtext("original_size/height"), task.findtext("original_size/width")
        )
        for task in tasks
    }
    if len(tasks) == 1:
        sizes[""] = next(iter(sizes.values()))
    return sizes


def _numbered(files: Files) -> Mapping[int, Path]:
    """Images by the number that their names end in; empty where two share one."""
    found: dict[int, Path] = {}
    for path in set(files.images.values()):
        digits = re.search(r"(\d{1,12})$", path.stem)
        if digits and found.setdefault(int(digits[1]), path) != path:
            return {}
    return found


def _shape(
    path: Path, where: str, element: Element, label: str, left_out: Counter[str], group: str | None = None
) -> Shape | None:
    """An element's shape; None if it has no area or no label, which is counted."""
    kind = element.tag
    if kind in WITHOUT_AREA:
        left_out[WITHOUT_AREA[kind]] += 1
        return None
    if kind not in ("polygon", "box", "ellipse", "mask"):
        left_out[f"elements <{kind:.40}>"] += 1
        return None
    if not label:
        left_out["shapes without a label"] += 1
        return None
    what = f"a {kind} of {label:.40} in {where:.80}"
    group = element.get("group_id") or group
    shared: dict[str, Any] = {
        "label": "" if label == IGNORED else label,
        "ignored": label == IGNORED,
        "z": number(element.get("z_order", "0") or "0", path, f"z_order of {what}"),
        "object_id": f"{label}/{group}" if group and group != "0" else None,
    }
    if kind == "mask":
        pixels, origin = _mask(path, what, element)
        return Shape(pixels=pixels, origin=origin, **shared)
    corners = _corners(path, what, element)
    if corners is None:
        left_out["polygons of less than three points"] += 1
        return None
    return Shape(rings=(corners,), **shared)


def _corners(path: Path, what: str, element: Element) -> Ring | None:
    if element.tag == "polygon":
        points = [pair.split(",") for pair in (element.get("points") or "").split(";") if pair.strip()]
        return ring(points, path, what)
    turn = radians(number(element.get("rotation", "0") or "0", path, f"rotation of {what}"))
    if element.tag == "ellipse":
        cx, cy, rx, ry = (number(element.get(key), path, f"{key} of {what}") for key in ("cx", "cy", "rx", "ry"))
        return ellipse(cx, cy, rx, ry, turn)
    x0, y0, x1, y1 = (number(element.get(key), path, f"{key} of {what}") for key in ("xtl", "ytl", "xbr", "ybr"))
    corners = rectangle(x0, y0, x1, y1)
    if not turn:
        return corners
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    turned: Ring = (corners - centre) @ np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]]) + centre
    return turned


def _whole(path: Path, text: str | None, what: str) -> int:
    found = number(text, path, what)
    if found != int(found):
        raise FileError(path, "E_NUMBER", f"{what} is {text!r:.40}, which is no whole number")
    return int(found)


def _mask(path: Path, what: str, element: Element) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The pixels of a run-length mask, and the row and column of the first."""
    keys = ("left", "top", "width", "height")
    left, top, width, height = (_whole(path, element.get(key), f"{key} of {what}") for key in keys)
    if width < 1 or height < 1:
        raise FileError(path, "E_SHAPE", f"{what} is {width} by {height} pixels")
    if width * height > max_pixels():
        raise FileError(path, "E_TOO_LARGE", f"{what} is {width} by {height} pixels, more than {max_pixels()}")
    try:
        runs = np.array([int(run) for run in (element.get("rle") or "").split(",")], np.int64)
    except (ValueError, OverflowError):
        raise FileError(path, "E_RLE", f"{what} has run lengths that are no whole numbers") from None
    if runs.min() < 0 or runs.max() > width * height or runs.sum() != width * height:
        total = "some are negative" if runs.min() < 0 else f"they sum to {sum(runs.tolist())}"
        raise FileError(path, "E_RLE", f"{what} has run lengths for other than {width * height} pixels: {total}")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape(height, width), (top, left)


def write(dataset: Dataset, target: Path, progress: Progress) -> Written:
    """annotations.xml, and the images in images/."""
    new_folder(target)
    splits = first_splits(dataset)
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    count, ignored = 0, False
    for item, classes in each_item(dataset, progress):
        image = copied_image(item, target / "images").relative_to(target / "images").as_posix()
        about = {"id": str(count), "name": image, "subset": splits[item.name]}
        element = SubElement(root, "image", about | {"width": str(item.width), "height": str(item.height)})
        for k, inside, origin in parts_by(classes):
            ignored |= k == 255
            _write_mask(element, IGNORED if k == 255 else dataset.table.names[k], inside, origin)
        count += 1
    for name, color in zip(dataset.table.names, dataset.table.colors, strict=True):
        _write_label(labels, name, color)
    if ignored:
        _write_label(labels, IGNORED, (255, 255, 255))
    indent(root)
    ElementTree(root).write(target / "annotations.xml", encoding="utf-8", xml_declaration=True)
    return Written(target, count, lossless=True, reason="every class is a mask, pixel by pixel")


def _write_label(labels: Element, name: str, color: tuple[int, int, int]) -> None:
    label = SubElement(labels, "label")
    SubElement(label, "name").text = name
    SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*color)
    SubElement(label, "type").text = "mask"
    SubElement(label, "attributes")


def _write_mask(image: Element, label: str, box: NDArray[np.bool_], origin: tuple[int, int]) -> None:
    flat = np.concatenate(([False], box.ravel()))  # the first run is outside, of no length where the box starts inside
    starts = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate(([0], starts, [box.size])))
    SubElement(
        image,
        "mask",
        label=label,
        source="file",
        occluded="0",
        rle=", ".join(map(str, runs.tolist())),
        left=str(origin[1]),
        top=str(origin[0]),
        width=str(box.shape[1]),
        height=str(box.shape[0]),
        z_order="0",
    )


register(Format("cvat", "CVAT XML 1.1", recognise, read, write))
