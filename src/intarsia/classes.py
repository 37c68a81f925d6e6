"""The class table: numbers, names and colours of the classes, and what the values in mask files mean.

Inside the library a mask holds class numbers 0..K-1 and `IGNORE` (255) where no truth is known. In files a mask may hold
other values: `values` says which, `ignore_index` says which value is not counted.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from intarsia.config import Config, read_yaml, to_yaml
from intarsia.errors import ConfigError, DataError
from intarsia.registry import did_you_mean

IGNORE = 255
"""Class number of a pixel without truth, inside the library."""
UNKNOWN = -1
"""Entry of a look-up table for a mask value that the class table does not know."""
MAX_CLASSES = 255
FILE_NAMES = ("classes.yaml", "classes.yml", "classes.json")

Colour = tuple[int, int, int]
_KNOWN = ("names", "colors", "ignore_index", "values", "classes")
_ALIASES = {
    "palette": "colors",
    "colours": "colors",
    "class_names": "names",
    "labels": "names",
    "ignore": "ignore_index",
}
_DESCRIPTIVE = ("ignore_name", "ignore_color", "num_classes", "description", "source", "license", "licence", "version")
_FEW = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66))


def default_colors(count: int) -> tuple[Colour, ...]:
    """Colours for `count` classes: black for class 0, then Okabe and Ito's seven, then hues that stay apart."""
    colors: list[Colour] = [(0, 0, 0), *_FEW][:count]
    for index in range(count - len(colors)):
        hue = (index * 0.618033988749895) % 1
        value, saturation = (0.95, 0.70, 0.55)[index % 3], (0.65, 0.9, 0.5)[index // 3 % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colors)


class ClassTable(Config):
    """Names and colours of classes 0..K-1, and how mask files write them."""

    names: tuple[str, ...]
    """Names of classes 0..K-1."""
    colors: tuple[Colour, ...] = ()
    """Colour (red, green, blue; 0..255) of each class; also the key to masks that are drawn in colours."""
    ignore_index: int | None = IGNORE
    """Value in mask files that is not counted, neither in training nor in scores; null: every pixel counts."""
    values: dict[int, str] | None = None
    """Value in mask files to class name, if the values are not 0..K-1; 'ignore' leaves a value out."""

    @field_validator("names", mode="before")
    @classmethod
    def _texts(cls, names: Any) -> Any:
        return (
            tuple(str(name) for name in names) if isinstance(names, Sequence) and not isinstance(names, str) else names
        )

    @field_validator("colors", mode="before")
    @classmethod
    def _rgb(cls, colors: Any) -> Any:
        return tuple(_colour(color) for color in colors or ())

    @model_validator(mode="after")
    def _fits(self) -> ClassTable:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise ValueError(f"names must be 1 to {MAX_CLASSES} classes")
        if doubled := {name for name in self.names if self.names.count(name) > 1}:
            raise ValueError(f"names must differ; twice: {', '.join(sorted(doubled))}")
        if not self.colors:
            object.__setattr__(self, "colors", default_colors(len(self.names)))
        if len(self.colors) != len(self.names):
            raise ValueError(f"{len(self.names)} names need {len(self.names)} colors, there are {len(self.colors)}")
        for value, name in (self.values or {}).items():
            if name not in self.names and name != "ignore":
                raise ValueError(f"values: {value} means {name!r}, which is no class.{did_you_mean(name, self.names)}")
            if not 0 <= value <= 65535:
                raise ValueError(f"values: {value} is not in 0..65535")
        return self

    @property
    def count(self) -> int:
        """K, the number of classes."""
        return len(self.names)

    def lookup(self) -> NDArray[np.int16]:
        """(65536,) class number of each mask value; `IGNORE` where not counted, `UNKNOWN` where not in the table."""
        table = np.full(65536, UNKNOWN, np.int16)
        if self.values is None:
            table[: self.count] = np.arange(self.count)
        if self.ignore_index is not None and 0 <= self.ignore_index <= 65535:
            table[self.ignore_index] = IGNORE
        for value, name in (self.values or {}).items():  # what is said of a value holds before ignore_index
            table[value] = IGNORE if name == "ignore" else self.names.index(name)
        return table

    def colour_lookup(self) -> dict[int, int]:
        """Packed colour (red<<16 | green<<8 | blue) to class number."""
        return {_pack(color): index for index, color in reversed(list(enumerate(self.colors)))}

    def palette(self) -> list[int]:
        """768 numbers for a palette PNG: the class colours, grey for ignored pixels (255)."""
        flat = [channel for color in self.colors for channel in color]
        return flat + [0] * (768 - len(flat) - 3) + [128, 128, 128]

    def to_text(self) -> str:
        """The text of a classes.yaml."""
        return to_yaml(self, comments=True)


def _pack(color: Colour) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _colour(color: Any) -> Any:
    if isinstance(color, str) and len(text := color.removeprefix("#")) == 6:
        try:
            return tuple(int(text[i : i + 2], 16) for i in (0, 2, 4))
        except ValueError:
            return color
    if isinstance(color, Iterable) and not isinstance(color, str):
        channels = tuple(color)
        if any(not isinstance(channel, int) or not 0 <= channel <= 255 for channel in channels):
            raise ValueError(f"a colour is three numbers 0..255 or '#rrggbb', not {list(channels)}")
        return channels
    return color


def numbered_table(count: int, ignore_index: int | None = None) -> ClassTable:
    """A table of `count` classes whose names nobody told: background and foreground, or class 0, class 1, ..."""
    names = ("background", "foreground") if count == 2 else tuple(f"class {index}" for index in range(count))
    return ClassTable(names=names, ignore_index=ignore_index)


def find_class_file(folder: Path) -> Path | None:
    """classes.yaml, classes.yml or classes.json in `folder`, if there is one."""
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def read_class_table(path: Path) -> tuple[ClassTable, list[str]]:
    """The table that a YAML or JSON file holds, and notes on what was passed over in it.

    Forms: {names: [...], colors: [...], ignore_index: ..., values: {...}}; a list of names; {0: name, 1: name}, also as names;
    {classes: [{name:, color:, value:}, ...]}. `palette` is read as `colors`.

    Raises:
        DataError: the file is no class table; the message names the file and the entry.
    """
    try:
        return _table(read_yaml(path), path)
    except ConfigError as error:
        text = str(error)
        raise DataError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _table(data: Any, path: Path) -> tuple[ClassTable, list[str]]:
    if isinstance(data, list):
        data = {"classes": data} if data and isinstance(data[0], Mapping) else {"names": data}
    if not isinstance(data, Mapping):
        raise DataError(f"{path}: is no class table. It needs at least a line such as  names: [background, cell]")
    data = _by_value(data) or data
    if numbered := _by_value(data.get("names")):
        data = {**numbered, **data, "names": numbered["names"]}
    settings: dict[str, Any] = {}
    notes = []
    for key, value in data.items():
        name = _ALIASES.get(str(key), str(key))
        if name in _KNOWN:
            settings[name] = value
        elif name in _DESCRIPTIVE:
            continue
        elif hint := did_you_mean(name, _KNOWN):
            raise DataError(f"{path}: {key}: there is no such entry.{hint}")
        else:
            notes.append(str(key))
    if "classes" in settings:
        settings.update(_from_records(settings.pop("classes"), path))
    if isinstance(settings.get("values"), Mapping):
        settings["values"] = _named_values(settings["values"], settings.get("names") or ())
    if "names" not in settings:
        raise DataError(f"{path}: names no classes. It needs a line such as  names: [background, cell]")
    told = [f"{path.name}: not used: {', '.join(notes)}"] if notes else []
    return ClassTable(**settings), told


def _by_value(names: Any) -> dict[str, Any] | None:
    """{0: name, 1: name} as names and, where the keys are not 0..K-1, values; None if it is no such mapping."""
    if not isinstance(names, Mapping) or not names or not all(str(key).isdecimal() for key in names):
        return None
    values = {int(key): str(name) for key, name in sorted(names.items(), key=lambda item: int(item[0]))}
    plain = list(values) == list(range(len(values)))
    return {"names": list(dict.fromkeys(values.values())), "values": None if plain else values}


def _from_records(records: Any, path: Path) -> dict[str, Any]:
    if not isinstance(records, list) or not all(isinstance(record, Mapping) and "name" in record for record in records):
        raise DataError(f"{path}: classes must be a list of entries such as  - {{name: cell, color: [0, 114, 178]}}")
    found: dict[str, Any] = {"names": [record["name"] for record in records]}
    colors = [record.get("color", record.get("colour")) for record in records]
    if all(color is not None for color in colors):
        found["colors"] = colors
    if any("value" in record for record in records):
        found["values"] = {record.get("value", index): str(record["name"]) for index, record in enumerate(records)}
    return found


def _named_values(values: Mapping[Any, Any], names: Sequence[Any]) -> dict[Any, Any]:
    """Values may point to class numbers or names; both become names."""
    return {
        value: str(names[target]) if isinstance(target, int) and 0 <= target < len(names) else target
        for value, target in values.items()
    }
