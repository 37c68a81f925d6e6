"""Label Studio: JSON (a list of tasks, or a task a file) and JSON-MIN; a labelling config (XML) beside gives the classes.

Of a task's annotations the one marked as ground truth is read, else the newest that was not cancelled; predictions only
where nobody annotated; tasks without either are left out: nobody has said that nothing is there. Notes count all of it.
Later regions lie on top.

| region | how it is read |
|---|---|
| polygon, rectangle, ellipse | percent of the original size; a rectangle turns about its first corner, an ellipse its centre |
| brush | run lengths of RGBA bytes (`importers/brush.py`), opacity at least half |
| bitmask | a PNG in a data URL: what is opaque; what is dark if the PNG has no opacity |
| keypoint, vector; answers, relations | have no area: left out |

A region of several labels has the first. Coordinates are of the upright image as it was uploaded; turning the view
(`image_rotation`) does not change them. Images are looked for by the URL's path, its last part, and that without the eight
letters that an upload puts before it. The label `__ignore__` is ignored.

Written: tasks.json of predictions to import, one brush region a class, its pixels as they are: lossless; label_config.xml
to paste into the project's settings; images in images/, as a local storage serves them. A person's edit makes an annotation
of it.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import cos, radians, sin
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.errors import FileError
from intarsia.images.files import IMAGE_SUFFIXES, max_pixels
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
from intarsia.importers.brush import decode_brush, encode_brush
from intarsia.importers.pictures import IGNORED, color_of, name_of, nearest, size_of, split_of, unique
from intarsia.importers.regions import first_splits
from intarsia.importers.write import copied_image, each_item, new_folder

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress

ANSWERS = ("annotations", "completions", "predictions")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
_GEOMETRY = ("points", "radiusX", "rle", "imageDataURL", "height")
_WITHOUT_AREA = {"keypoint": "keypoints", "vector": "vectors", "video": "regions of video", "timeseries": "time series"}

Task = Mapping[str, Any]


def recognise(files: Files) -> bool:
    """Whether a JSON has tasks with results, or with regions that know the original size."""
    return any(True for _ in _documents(files))


def _documents(files: Files) -> Iterator[tuple[Path, list[Task]]]:
    for path in files.ending(".json"):
        found = files.try_json(path)
        tasks = found if isinstance(found, list) else [found]
        if tasks and all(isinstance(task, dict) for task in tasks) and any(_is_task(task) for task in tasks):
            yield path, tasks


def _is_task(task: Task) -> bool:
    answers = [answer for key in ANSWERS for answer in _dicts(task.get(key))]
    if isinstance(task.get("data"), dict) and any(isinstance(task.get(key), list) for key in ANSWERS):
        return not answers or any(isinstance(answer.get("result"), list) for answer in answers)
    return bool(_minimal(task))


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _minimal(task: Task) -> list[dict[str, Any]]:
    """The regions of a JSON-MIN task, which stand under the name of the control that made them."""
    return [each for value in task.values() for each in _dicts(value) if "original_width" in each]


def read(files: Files) -> Project:
    """Every task that somebody answered.

    Raises:
        FileError: one of them holds what is no region.
    """
    left_out: Counter[str] = Counter()
    met: Counter[str] = Counter()
    found: list[tuple[Picture, str]] = []
    for path, tasks in _documents(files):
        for index, task in enumerate(tasks):
            results = _results(task, met)
            if results is not None:
                found += _pictures(files, path, task, f"task {task.get('id', index)}", results, left_out, met)
    names = unique([picture.name for picture, _ in found], [prefix for _, prefix in found])
    pictures = [replace(picture, name=name) for (picture, _), name in zip(found, names, strict=True)]
    labels = _config(files, set(classes_of(pictures)))
    colors = {label: color for label, color in labels.items() if color is not None}
    notes = tuple(f"{count} {what}" for what, count in met.items() if count)
    return Project("label_studio", tuple(pictures), classes_of(pictures, list(labels)), colors, left_out, notes)


def _config(files: Files, used: set[str]) -> dict[str, tuple[int, int, int] | None]:
    """Classes and colours of the labelling configs that know a label in use, of all if there are no labels."""
    folder = files.folder
    paths = files.ending(".xml") or tuple(sorted(folder.glob("*.xml")))
    found: dict[str, tuple[int, int, int] | None] = {}
    for path in paths:
        root = files.try_xml(path)
        if root is None or root.tag != "View":
            continue
        labels = {
            label.get("value", ""): color_of(label.get("background"))
            for control in root.iter()
            if control.tag.endswith("Labels") and not control.tag.startswith(("KeyPoint", "Vector"))
            for label in control.iter("Label")
        }
        if used & set(labels) or not used:
            found.update({label: color for label, color in labels.items() if label not in ("", IGNORED)})
    return found


def _results(task: Task, met: Counter[str]) -> list[dict[str, Any]] | None:
    """The regions of the one answer that is taken; None if nobody gave one."""
    if not any(isinstance(task.get(key), list) for key in ANSWERS):
        return _minimal(task) or None
    given = _dicts(task.get("annotations")) or _dicts(task.get("completions"))
    kept = [answer for answer in given if not (answer.get("was_cancelled") or answer.get("skipped"))]
    if len(kept) < len(given):
        met["cancelled annotations are not read"] += len(given) - len(kept)
    if kept:
        best = max(kept, key=lambda answer: (bool(answer.get("ground_truth")), _when(answer)))
        if len(kept) > 1:
            met["further annotations of a task are not read, but its ground truth or the newest"] += len(kept) - 1
        return _dicts(best.get("result"))
    guesses = _dicts(task.get("predictions"))
    if given or not guesses:
        met["tasks without an answer are left out"] += 1
        return None
    met["tasks that nobody annotated: their newest prediction is read"] += 1
    return _dicts(max(guesses, key=_when).get("result"))


def _when(answer: Mapping[str, Any]) -> str:
    return str(answer.get("updated_at") or answer.get("created_at") or "")


def _pictures(
    files: Files,
    path: Path,
    task: Task,
    what: str,
    results: Sequence[dict[str, Any]],
    left_out: Counter[str],
    met: Counter[str],
) -> Iterator[tuple[Picture, str]]:
    """A task's pictures: one, or one for each image that it shows together, told apart by `item_index`."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    images = _named(data)
    uploaded = task.get("file_upload")
    labelled = {str(each.get("id")) for each in results if _label(each)}
    for index, url in enumerate(images):
        mine = [each for each in results if len(images) == 1 or each.get("item_index", 0) == index]
        sizes = {size for each in mine if (size := _original_size(path, what, each))}
        if len(sizes) > 1:
            raise FileError(path, "E_SHAPE", f"{what} has regions of several image sizes")
        shapes = []
        for each in mine:
            met["regions were drawn in a turned view"] += bool(each.get("image_rotation"))
            shapes.append(_shape(path, what, each, left_out, met, labelled))
        embedded = _data_url(path, what, url) if url.startswith("data:") else None
        places = [] if embedded else _places(url, uploaded if len(images) == 1 else None)
        picture = Picture(
            name_of(places[0] if places and places[0] else what.replace(" ", "_")).removeprefix("images/"),
            nearest(files, path, (at for place in places for at in (f"images/{place}", place))),
            next(iter(sizes), None),
            tuple(shape for shape in shapes if shape is not None),
            split_of(data.get("split")),
            missing="" if embedded else url[:200],
            embedded=embedded,
        )
        yield picture, what.replace(" ", "_")


def _named(data: Mapping[str, Any]) -> list[str]:
    """The images that a task's data names: "image" first, else what looks like a path."""
    values = [data.get("image"), data.get("images"), *data.values()]
    for value in values:
        if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
            return value
        if isinstance(value, str) and (value is data.get("image") or _is_image(value)):
            return [value]
    return [""]


def _is_image(text: str) -> bool:
    return text.startswith("data:image/") or Path(urlsplit(text[-4000:]).path).suffix.lower() in IMAGE_SUFFIXES


def _places(url: str, uploaded: Any) -> list[str]:
    """Where an image may be: the URL's path, its last part, that without an upload's letters, the uploaded file's name."""
    parts = urlsplit(url) if "://" in url or url.startswith("/data/") else None
    local = parse_qs(parts.query).get("d", [""])[0] if parts and parts.path.endswith("/local-files/") else ""
    whole = local or unquote(parts.path if parts else url)
    found = [whole.lstrip("/"), *((unquote(url),) if parts is None else ())]
    if isinstance(uploaded, str):
        found.append(uploaded)
    found = [place for place in found if Path(place[-4000:]).suffix.lower() in IMAGE_SUFFIXES] or found
    lasts = [place.rsplit("/", 1)[-1] for place in found]
    if parts and not local:  # what a server's path says before the name is the server's own business
        found = lasts
    return list(dict.fromkeys([*found, *lasts, *(_UPLOADED.sub("", last) for last in lasts)]))


def _data_url(path: Path, what: str, url: Any) -> bytes:
    head, comma, content = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise FileError(path, "E_SHAPE", f"{what} has an image that is no base64 data URL")
    try:
        return base64.b64decode(content, validate=True)
    except (ValueError, binascii.Error) as error:
        raise FileError(path, "E_SHAPE", f"{what} has an image that is no base64 ({str(error)[:60]})") from None


def _value(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a region says; in JSON-MIN it says so itself."""
    value = result.get("value")
    return value if isinstance(value, dict) else result


def _original_size(path: Path, what: str, result: Mapping[str, Any]) -> tuple[int, int] | None:
    return size_of(path, what, result.get("original_height"), result.get("original_width"))


def _label(result: Mapping[str, Any]) -> str | None:
    """The first label of a region."""
    for key, value in _value(result).items():
        if key.lower().endswith("labels") and isinstance(value, list) and value:
            return str(value[0])
    return None


def _shape(
    path: Path, what: str, result: Mapping[str, Any], left_out: Counter[str], met: Counter[str], labelled: set[str]
) -> Shape | None:
    value, kind = _value(result), str(result.get("type") or "")
    for start, words in _WITHOUT_AREA.items():
        if kind.startswith(start) or (not kind and f"{start}labels" in value):
            left_out[words] += 1
            return None
    geometry = next((key for key in _GEOMETRY if value.get(key) is not None), None)
    if geometry is None:
        left_out[f"answers of type {kind:.40}" if kind else "regions without a geometry"] += 1
        return None
    label = _label(result)
    if label is None:
        if str(result.get("id")) not in labelled:  # else its label is another result
            left_out["regions without a label"] += 1
        return None
    met["regions have several labels, of which the first is read"] += any(
        key.lower().endswith("labels") and isinstance(each, list) and len(each) > 1 for key, each in value.items()
    )
    size = _original_size(path, what, result)
    if size is None:
        raise FileError(
            path, "E_SHAPE", f"{what} has a region of {label:.40} without original_width and original_height"
        )
    what = f"{what}, a region of {label:.40},"
    shared: dict[str, Any] = {"label": "" if label == IGNORED else label, "ignored": label == IGNORED}
    if geometry == "rle":
        return Shape(pixels=_brush(path, what, value, size), **shared)
    if geometry == "imageDataURL":
        return Shape(pixels=_bitmask(path, what, value, size), **shared)
    corners = _corners(path, what, geometry, value, size)
    if corners is None:
        left_out["polygons of less than three points"] += 1
        return None
    return Shape(rings=(corners,), **shared)


def _corners(
    path: Path, what: str, geometry: str, value: Mapping[str, Any], size: tuple[int, int]
) -> NDArray[np.float64] | None:
    """The ring of a region whose numbers are percent of the picture's sides."""
    across, down = size[1] / 100, size[0] / 100
    if geometry == "points":
        corners = ring(value["points"], path, what)
        return None if corners is None else corners * (across, down)
    keys = ("x", "y", "radiusX", "radiusY") if geometry == "radiusX" else ("x", "y", "width", "height")
    x, y, right, below = (number(value.get(key), path, f"{key} of {what}") for key in keys)
    x, y, right, below = x * across, y * down, right * across, below * down
    turn = radians(number(value.get("rotation") or 0, path, f"rotation of {what}"))
    if geometry == "radiusX":
        return ellipse(x, y, right, below, turn)
    box = rectangle(0, 0, right, below)
    turned: NDArray[np.float64] = box @ np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]]) + (x, y)
    return turned


def _brush(path: Path, what: str, value: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    if value.get("format", "rle") != "rle" or not isinstance(value["rle"], list):
        raise FileError(
            path, "E_RLE", f"{what} is in the brush format {value.get('format')!r:.40}, not a list of bytes"
        )
    try:
        return decode_brush(bytes(value["rle"]), size)
    except (TypeError, ValueError, OverflowError) as error:
        raise FileError(path, "E_RLE", f"{what} has run lengths that cannot be read ({str(error)[:80]})") from None


def _bitmask(path: Path, what: str, value: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    content = _data_url(path, what, value["imageDataURL"])
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > max_pixels():
                raise FileError(path, "E_TOO_LARGE", f"{what} has a mask of too many pixels")
            if (image.height, image.width) != size:
                reason = (
                    f"{what} has a mask of {image.width} by {image.height} pixels in an image of {size[1]} by {size[0]}"
                )
                raise FileError(path, "E_SHAPE", reason)
            clear = "A" in image.getbands() or "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA").getchannel("A") if clear else image.convert("L"))
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(path, "E_SHAPE", f"{what} has a mask that is no PNG ({str(error)[:60]})") from None
    return (pixels > 0 if clear else pixels < 128).astype(bool)


def write(dataset: Dataset, target: Path, progress: Progress) -> Written:
    """tasks.json, label_config.xml and images/."""
    new_folder(target)
    splits = first_splits(dataset)
    count, ignored = 0, False
    with (target / "tasks.json").open("w", encoding="utf-8") as file:
        for item, classes in each_item(dataset, progress):
            image = copied_image(item, target / "images").relative_to(target).as_posix()
            ignored |= bool((classes == 255).any())
            names = {k: IGNORED if k == 255 else dataset.table.names[k] for k in np.unique(classes).tolist()}
            results = [_region(f"{count}-{k}", name, classes == k) for k, name in names.items()]
            task = {
                "data": {"image": f"/data/local-files/?d={quote(image)}", "split": splits[item.name]},
                "predictions": [{"model_version": "intarsia", "result": results}],
            }
            file.write(("[\n" if not count else ",\n") + json.dumps(task, separators=(",", ":")))
            count += 1
        file.write("\n]\n" if count else "[]\n")
    labels = dict(zip(dataset.table.names, dataset.table.colors, strict=True))
    _write_config(target / "label_config.xml", labels | ({IGNORED: (255, 255, 255)} if ignored else {}))
    return Written(target, count, lossless=True, reason="every class is a brush region, pixel by pixel")


def _region(name: str, label: str, inside: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "id": name,
        "type": "brushlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": inside.shape[1],
        "original_height": inside.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": list(encode_brush(inside)), "brushlabels": [label]},
    }


def _write_config(path: Path, labels: Mapping[str, tuple[int, int, int]]) -> None:
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image", zoom="true")
    control = SubElement(view, "BrushLabels", name="label", toName="image")
    for label, color in labels.items():
        SubElement(control, "Label", value=label, background="#{:02x}{:02x}{:02x}".format(*color))
    indent(view)
    ElementTree(view).write(path, encoding="utf-8")


register(Format("label_studio", "Label Studio JSON", recognise, read, write))
