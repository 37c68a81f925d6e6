"""What an annotation export becomes, whichever tool wrote it: pictures with shapes; and the list of formats that are known.

A format's file registers a `Format`. Exports are told apart by their content (`find_format`), never by a folder's name.
Parsers are bounded: see `parse.py`; numbers are finite; images are read as `images/files.py` does. What a class map cannot hold
(points, lines, boxes where they are no areas, text) is left out and counted in words.
"""

from __future__ import annotations

import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import ConfigError, DataError, FileError
from intarsia.images.files import IMAGE_SUFFIXES
from intarsia.importers.parse import read_json, read_xml
from intarsia.ops.polygons import Ring
from intarsia.registry import did_you_mean

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.progress import Progress

MOST_FILES = 2_000_000
LOOKED_AT = 100
"""Files of an ending that are parsed to tell the format."""


class Pixels:
    """A region, compressed: those of a whole data set lie in memory together."""

    def __init__(self, inside: NDArray[np.bool_]) -> None:
        self.shape = inside.shape
        self._kept = zlib.compress(np.packbits(inside.astype(bool)).tobytes(), 1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        bits = np.frombuffer(zlib.decompress(self._kept), np.uint8)
        inside = np.unpackbits(bits, count=self.shape[0] * self.shape[1]).reshape(self.shape).astype(bool)
        return inside if dtype is None else inside.astype(dtype)

    def __repr__(self) -> str:
        return f"Pixels({self.shape[0]} x {self.shape[1]})"


@dataclass(frozen=True)
class Shape:
    """A region of one class: what rings enclose, or pixels."""

    label: str
    """The class; "" only if it is ignored."""
    rings: tuple[Ring, ...] = ()
    """Together even-odd, so that a ring within a ring is a hole; separate parts may be rings of one shape too."""
    pixels: NDArray[np.bool_] | Pixels | None = None
    """(h, w), the first pixel at `origin`; it may stick out of the picture. Kept compressed."""
    origin: tuple[int, int] = (0, 0)
    """Row and column."""
    z: float = 0.0
    """The tool's own height of the shape; higher lies on top."""
    ignored: bool = False
    """Pixels that count for nothing, such as a crowd's or void."""
    object_id: str | None = None
    """Shapes with an equal one are parts of one object; None: an object of its own."""

    def __post_init__(self) -> None:
        if isinstance(self.pixels, np.ndarray):
            object.__setattr__(self, "pixels", Pixels(self.pixels))


@dataclass(frozen=True)
class Picture:
    """An image and its shapes, in the order of the document."""

    name: str
    """Path of the image below its folder, without ending; unique in a project."""
    image: Path | None
    """None: the export names it, but it is not there (`missing` says what was looked for)."""
    size: tuple[int, int] | None
    """Height and width to which the coordinates belong; None: those of the upright image (the export does not say)."""
    shapes: tuple[Shape, ...]
    split: str | None = None
    """train, val or test, where the export says so."""
    missing: str = ""
    """What the export calls an image that is not there."""
    embedded: bytes | None = None
    """The image's file, where the export holds it itself."""


@dataclass(frozen=True)
class Project:
    """A whole export."""

    format: str
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    """In the tool's own order if it has one, else as they appear."""
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=Counter)
    """What a class map cannot hold, in words ("points"), and how many there were."""
    notes: tuple[str, ...] = ()
    """What a person should know, one line each."""


@dataclass(frozen=True)
class Written:
    """What an export kept."""

    path: Path
    """The folder."""
    files: int
    lossless: bool
    """Whether reading it back gives the same class maps, pixel by pixel."""
    reason: str
    """Why, or what is lost."""


@dataclass(frozen=True)
class Format:
    """One tool's way to store annotations."""

    name: str
    title: str
    """For people: "labelme JSON"."""
    recognise: Callable[[Files], bool] | None = None
    """Whether files are of this format, by content; must not raise over files of others."""
    read: Callable[[Files], Project] | None = None
    write: Callable[[Dataset, Path, Progress], Written] | None = None
    """Write a data set's class maps into a new folder, images beside them."""
    loss: str = "lossless"
    """Of `write`: "lossless", or when and what is lost."""


FORMATS: dict[str, Format] = {}


def register(format_: Format) -> Format:
    """Add a format; each name once."""
    if format_.name in FORMATS:
        raise ValueError(f"format {format_.name!r} is registered twice")
    FORMATS[format_.name] = format_
    return format_


class Files:
    """The files of an export, below a folder or a single one, each parsed at most once.

    Args:
        attribute: which of a shape's attributes is its class, as somebody says.
    """

    def __init__(self, root: Path, attribute: str | None = None) -> None:
        if not root.exists():
            raise DataError(f"{root}: does not exist.")
        self.root, self.attribute, self.only_some = root, attribute, False
        self.folder = root if root.is_dir() else root.parent
        self._parsed: dict[Path, Any] = {}
        self._broken: dict[Path, FileError] = {}

    @cached_property
    def every(self) -> tuple[Path, ...]:
        """All files, by path; hidden ones and those of macOS archives are passed over."""
        return (self.root,) if self.root.is_file() else self._below

    def ending(self, *endings: str) -> tuple[Path, ...]:
        """Files whose names end so, in lower case (".json"); while a format is looked for, the upper `LOOKED_AT` of them."""
        found = tuple(path for path in self.every if path.name.lower().endswith(endings))
        if self.only_some and len(found) > LOOKED_AT:
            return tuple(sorted(found, key=lambda path: len(path.parts))[:LOOKED_AT])
        return found

    @cached_property
    def _below(self) -> tuple[Path, ...]:
        found = []
        for path in sorted(self.folder.rglob("*")):
            below = path.relative_to(self.folder).parts
            if path.is_file() and not any(part.startswith(".") or part == "__MACOSX" for part in below):
                found.append(path)
            if len(found) > MOST_FILES:
                raise DataError(f"{self.folder}: holds more than {MOST_FILES} files.")
        return tuple(found)

    @cached_property
    def images(self) -> Mapping[str, Path]:
        """Image files by path below the folder, and by file name in lower case where only one has it."""
        paths = [path for path in self._below if path.suffix.lower() in IMAGE_SUFFIXES]
        named = Counter(path.name.lower() for path in paths)
        found = {path.relative_to(self.folder).as_posix(): path for path in paths}
        for path in paths:
            if named[path.name.lower()] == 1:
                found.setdefault(path.name.lower(), path)
        return found

    def image(self, name: str, beside: Path | None = None) -> Path | None:
        """The image that an export names, by its path or its file name alone; slashes may lean either way.

        Args:
            name: as the export has it; what leads out of the folder is looked for by its last part. A last part that several
                images have tells nothing: it is then the only one whose path ends as the name does, or none.
            beside: a file relative to whose folder the name may be.
        """
        clean = name.replace("\\", "/").strip()
        if not clean:
            return None
        last = clean.rsplit("/", 1)[-1]
        if beside is not None and ".." not in clean.split("/") and not clean.startswith("/"):
            near = beside.parent / clean
            if near.suffix.lower() in IMAGE_SUFFIXES and "\0" not in clean and os.path.isfile(near):
                return near
        exact = self.images.get(clean.lstrip("./")) or self.images.get(last.lower())
        if exact is not None:
            return exact
        parts = [part.lower() for part in clean.split("/") if part not in ("", ".", "..")]
        for kept in range(len(parts), 1, -1):
            fits = self._by_end.get("/".join(parts[-kept:]), ())
            if fits:
                return fits[0] if len(fits) == 1 else None
        return None

    @cached_property
    def _by_end(self) -> Mapping[str, Sequence[Path]]:
        """Image files by the last two parts and more of their paths, in lower case."""
        found: dict[str, list[Path]] = {}
        for path in self._below:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                parts = path.relative_to(self.folder).as_posix().lower().split("/")
                for start in range(len(parts) - 1):
                    found.setdefault("/".join(parts[start:]), []).append(path)
        return found

    def json(self, path: Path) -> Any:
        """Parsed JSON.

        Raises:
            FileError: it is too large, too deep, not JSON, or holds numbers that are not finite.
        """
        return self._once(path, read_json)

    def xml(self, path: Path) -> Element:
        """The root of parsed XML.

        Raises:
            FileError: it is too large, no XML, or has entities.
        """
        found: Element = self._once(path, read_xml)
        return found

    def _once(self, path: Path, parse: Callable[[Path], Any]) -> Any:
        if path in self._broken:
            raise self._broken[path]
        if path not in self._parsed:
            try:
                self._parsed[path] = parse(path)
            except FileError as error:
                self._broken[path] = error
                raise
        return self._parsed[path]

    def try_json(self, path: Path) -> Any:
        """The same, None where it is none: for `recognise`."""
        try:
            return self.json(path)
        except (FileError, OSError):
            return None

    def try_xml(self, path: Path) -> Element | None:
        """The same, None where it is none: for `recognise`."""
        try:
            return self.xml(path)
        except (FileError, OSError):
            return None


def number(value: Any, path: Path, what: str) -> float:
    """A finite number, of text too.

    Raises:
        FileError: E_NUMBER.
    """
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found) or abs(found) > 1e9:
        raise FileError(path, "E_NUMBER", f"{what} is {value!r:.40}, which is no number of pixels")
    return found


def ring(points: Any, path: Path, what: str) -> Ring | None:
    """(n, 2) of a list of points, or of a flat list x, y, x, y; None if it has fewer than three, which enclose nothing.

    Raises:
        FileError: E_NUMBER, something is no finite number, or the flat list is odd.
    """
    try:
        array = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise FileError(path, "E_NUMBER", f"{what} has points that are no numbers") from None
    if array.ndim == 1 and array.size % 2 == 0:
        array = array.reshape(-1, 2)
    if array.size and (array.ndim != 2 or array.shape[1] != 2):
        raise FileError(path, "E_NUMBER", f"{what} has points that are not pairs of x and y")
    if not np.isfinite(array).all() or (array.size and np.abs(array).max() > 1e9):
        raise FileError(path, "E_NUMBER", f"{what} has coordinates that are no numbers of pixels")
    if len(array) > 1 and np.array_equal(array[0], array[-1]):
        array = array[:-1]
    return array if len(array) >= 3 else None


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Ring:
    """The ring of a box by two opposite corners."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Ring:
    """The ring of an ellipse, corners on it, edges at most a hundredth of a pixel inside it, its area to 0.1 %.

    Args:
        turn: radians, from x towards y.
    """
    most = max(abs(rx), abs(ry), 1e-6)
    count = int(np.clip(math.pi / math.acos(max(-1.0, 1 - 0.01 / max(most, 0.02))), 128, 4096))
    angle = np.arange(count) * (2 * math.pi / count)
    x, y = rx * np.cos(angle), ry * np.sin(angle)
    return np.stack(
        (cx + x * math.cos(turn) - y * math.sin(turn), cy + x * math.sin(turn) + y * math.cos(turn)), axis=1
    )


def classes_of(pictures: Iterable[Picture], first: Sequence[str] = ()) -> tuple[str, ...]:
    """The classes of `first`, then those of the shapes as they appear."""
    found = dict.fromkeys(first)
    for picture in pictures:
        found.update(dict.fromkeys(shape.label for shape in picture.shapes if shape.label and not shape.ignored))
    return tuple(found)


def formats_of(files: Files) -> list[Format]:
    """The formats that recognise an export."""
    files.only_some = True
    try:
        return [each for _, each in sorted(FORMATS.items()) if each.read and each.recognise and each.recognise(files)]
    finally:
        files.only_some = False


def find_format(files: Files, name: str | None = None) -> Format:
    """The format of an export.

    Args:
        name: as somebody says; None: by content.

    Raises:
        ConfigError: there is no such format to read.
        DataError: no format recognises the files, or several do.
    """
    readable = {key: each for key, each in sorted(FORMATS.items()) if each.read}
    if name is not None:
        if name not in readable:
            raise ConfigError(
                f"data.format: there is no {name!r}.{did_you_mean(name, readable)} Read: {', '.join(readable)}."
            )
        return readable[name]
    fits = formats_of(files)
    if len(fits) == 1:
        return fits[0]
    if fits:
        names = " or ".join(each.name for each in fits)
        raise DataError(f"{files.root}: could be {names}. Say which with data.format={fits[0].name}.")
    met = Counter(path.suffix.lower() or "no ending" for path in files.every)
    counts = ", ".join(f"{count} {ending}" for ending, count in met.most_common(6)) or "nothing"
    tried = ", ".join(f"{each.name} ({each.title})" for each in readable.values())
    raise DataError(f"{files.root}: is no annotation export that is known. Met: {counts}. Tried: {tried}.")
