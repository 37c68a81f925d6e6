"""labelme (wkentaro's, versions 3 to 7): one JSON beside each image.

Read: polygon, rectangle, oriented_rectangle, circle (centre and a point of its edge), mask (base64 PNG at a box). Lines, points
and linestrips have no area and are left out. Parts of one object share label and group_id. A later shape lies on top. A shape
called `__ignore__` is ignored, `_background_` is a class. `labels.txt` or `class_names.txt` beside the files, or in the folder
above, gives the order of classes. Coordinates are of the upright image.

Written: one mask shape a class, its pixels as they are: lossless.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
from intarsia.importers.write import copied_image, each_item, new_folder

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress

IGNORED = "__ignore__"
LISTS = ("labels.txt", "class_names.txt")
WITHOUT_AREA = {"line": "lines", "linestrip": "linestrips", "point": "points", "points": "points"}


def recognise(files: Files) -> bool:
    """Whether a JSON has shapes and an imagePath."""
    return any(True for _ in _documents(files))


def _documents(files: Files) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in files.ending(".json"):
        found = files.try_json(path)
        if isinstance(found, dict) and isinstance(found.get("shapes"), list) and "imagePath" in found:
            yield path, found


def read(files: Files) -> Project:
    """Every JSON that is labelme's.

    Raises:
        FileError: one of them holds what is no shape.
    """
    left_out: Counter[str] = Counter()
    pictures = [_picture(files, path, document, left_out) for path, document in _documents(files)]
    return Project("labelme", tuple(pictures), classes_of(pictures, _listed(files)), left_out=left_out)


def _listed(files: Files) -> list[str]:
    """Classes by the tool's own list, a line each."""
    for folder in (files.folder, files.folder.parent):
        for name in LISTS:
            if (folder / name).is_file():
                lines = (folder / name).read_text(encoding="utf-8-sig", errors="replace").splitlines()
                return [line.strip() for line in lines if line.strip() and line.strip() != IGNORED]
    return []


def _picture(files: Files, path: Path, document: dict[str, Any], left_out: Counter[str]) -> Picture:
    size = None
    if document.get("imageHeight") and document.get("imageWidth"):
        height, width = (int(number(document[key], path, key)) for key in ("imageHeight", "imageWidth"))
        size = height, width
    shapes = []
    for index, each in enumerate(document["shapes"]):
        if not isinstance(each, dict) or not isinstance(each.get("label"), str):
            raise FileError(path, "E_SHAPE", f"shape {index} has no label")
        shape = _shape(path, index, each, left_out)
        if shape is not None:
            shapes.append(shape)
    named = PureWindowsPath(str(document.get("imagePath") or "")).as_posix()
    image = (
        files.image(named, beside=path)
        or files.image(f"{path.stem}.jpg", path)
        or files.image(f"{path.stem}.png", path)
    )
    name = path.relative_to(files.folder).with_suffix("").as_posix()
    embedded = (
        _decoded(path, "imageData", document["imageData"]) if image is None and document.get("imageData") else None
    )
    return Picture(name, image, size, tuple(shapes), missing=named or path.stem, embedded=embedded)


def _decoded(path: Path, what: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise FileError(path, "E_SHAPE", f"{what} is no base64 ({str(error)[:60]})") from None


def _shape(path: Path, index: int, each: dict[str, Any], left_out: Counter[str]) -> Shape | None:
    label, kind, points = each["label"], each.get("shape_type") or "polygon", each.get("points") or []
    what = f"shape {index} ({label})"
    if not isinstance(kind, str) or not isinstance(points, list):
        raise FileError(path, "E_SHAPE", f"{what} has a shape_type that is no word, or points that are no list")
    group = each.get("group_id")
    shared: dict[str, Any] = {
        "label": "" if label == IGNORED else label,
        "ignored": label == IGNORED,
        "object_id": f"{label}/{group}" if isinstance(group, int) and not isinstance(group, bool) else None,
    }
    if kind in WITHOUT_AREA:
        left_out[WITHOUT_AREA[kind]] += 1
        return None
    if kind in ("rectangle", "circle", "mask"):
        if len(points) != 2 or not all(isinstance(point, list) and len(point) == 2 for point in points):
            raise FileError(path, "E_SHAPE", f"{what} is a {kind} of {len(points)} points, not of two of x and y")
        (x0, y0), (x1, y1) = ((number(x, path, what), number(y, path, what)) for x, y in points)
        if kind == "rectangle":
            return Shape(rings=(rectangle(x0, y0, x1, y1),), **shared)
        if kind == "circle":
            radius = float(np.hypot(x1 - x0, y1 - y0))
            return Shape(rings=(ellipse(x0, y0, radius, radius),), **shared)
        pixels = _mask(path, what, each.get("mask"))
        if (x0, y0, x1, y1) == tuple(map(int, (x0, y0, x1, y1))):  # a whole box is trusted, else the mask's own extent
            pixels = pixels[: max(0, int(y1 - y0)) + 1, : max(0, int(x1 - x0)) + 1]
        return Shape(pixels=pixels, origin=(round(y0), round(x0)), **shared)
    if kind not in ("polygon", "oriented_rectangle"):
        left_out[f"shapes of type {kind}"] += 1
        return None
    corners = ring(points, path, what)
    if corners is None:
        left_out["polygons of less than three points"] += 1
        return None
    return Shape(rings=(corners,), **shared)


def _mask(path: Path, what: str, text: Any) -> NDArray[np.bool_]:
    try:
        with Image.open(io.BytesIO(_decoded(path, what, text)), formats=("PNG",)) as image:
            if image.width * image.height > max_pixels():
                raise FileError(path, "E_TOO_LARGE", f"{what} has a mask of too many pixels")
            pixels = np.asarray(image)
    except FileError:
        raise
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(path, "E_SHAPE", f"{what} has a mask that is no PNG ({str(error)[:60]})") from None
    return (pixels if pixels.ndim == 2 else pixels.any(axis=2)).astype(bool)


def write(dataset: Dataset, target: Path, progress: Progress) -> Written:
    """A JSON beside each image."""
    new_folder(target)
    count = 0
    for item, classes in each_item(dataset, progress):
        image = copied_image(item, target)
        shapes = [mask_shape(name, classes == k) for k, name in enumerate(dataset.table.names) if (classes == k).any()]
        if (classes == 255).any():
            shapes.append(mask_shape(IGNORED, classes == 255))
        document: dict[str, Any] = {
            "version": "5.7.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": image.name,
            "imageData": None,
            "imageHeight": item.height,
            "imageWidth": item.width,
        }
        image.with_suffix(".json").write_text(json.dumps(document), encoding="utf-8")
        count += 1
    (target / "labels.txt").write_text("\n".join((IGNORED, *dataset.table.names)) + "\n", encoding="utf-8")
    return Written(target, count, lossless=True, reason="every class is a mask shape, pixel by pixel")


def mask_shape(label: str, inside: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, bottom, left, right = (int(side) for side in (rows[0], rows[-1], columns[0], columns[-1]))
    buffer = io.BytesIO()
    Image.fromarray(inside[top : bottom + 1, left : right + 1].astype(np.uint8) * 255).convert("1").save(buffer, "PNG")
    return {
        "label": label,
        "points": [[left, top], [right, bottom]],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(buffer.getvalue()).decode(),
    }


register(Format("labelme", "labelme JSON", recognise, read, write))
