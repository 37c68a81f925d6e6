"""Exports made in a test: documents, data sets to write, and class maps as an export gives them back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import intarsia.importers  # noqa: F401
from intarsia.data.base import Dataset
from intarsia.data.folder import FolderConfig
from intarsia.errors import IntarsiaError
from intarsia.importers.base import FORMATS, Files, Picture, Project, find_format
from intarsia.importers.rasterize import render
from intarsia.progress import Silent
from tests.conftest import write

NAMES = ("background", 'a & <b> "c"', "ignore", "ä/ö")
"""Classes that are hard to write; one is called as what is not counted."""

class_maps = st.lists(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 3, 255])),
    min_size=3,
    max_size=3,
)


def data_of(root: Path, maps: Sequence[np.ndarray], names: Sequence[str] = NAMES) -> Dataset:
    """A data set of these class maps; the first lies in a folder of its own."""
    for index, classes in enumerate(maps):
        name = f"deep/i{index}.png" if not index else f"i{index}.png"
        write(root / "images" / name, np.full((*classes.shape, 3), 10 * index, np.uint8))
        write(root / "masks" / name, classes)
    lines = "\n".join(f"  - '{name}'" for name in names)
    (root / "classes.yaml").write_text(f"names:\n{lines}\n", encoding="utf-8")
    return FolderConfig(path=str(root)).open(Silent())


def put(path: Path, text: str) -> Path:
    """A text file, folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def project(path: Path, name: str) -> Project:
    """What an export holds, found by its content."""
    files = Files(path)
    found = find_format(files)
    assert found.name == name
    assert found.read is not None
    return found.read(files)


def picture(path: Path, name: str) -> Picture:
    """The only picture of an export."""
    (found,) = project(path, name).pictures
    return found


def drawn(found: Picture, classes: Sequence[str], **how: str) -> np.ndarray:
    """The class map of a picture; 254 where no shape lies."""
    assert found.size is not None
    rendered = render(found.shapes, found.size, classes, **how)  # type: ignore[arg-type]
    return np.where(rendered.uncovered, 254, rendered.classes).astype(np.uint8)


def rows(text: str) -> np.ndarray:
    """A mask drawn in letters: "." is outside."""
    return np.array([[letter != "." for letter in line.split()[0]] for line in text.strip().splitlines()])


def assert_returns(dataset: Dataset, folder: Path, name: str) -> Project:
    """Written and read back, every class map is what it was, under its name, with its image and its classes."""
    writer = FORMATS[name].write
    assert writer is not None
    done = writer(dataset, folder, Silent())
    assert done.lossless
    found = project(folder, name)
    pictures: Mapping[str, Picture] = {each.name: each for each in found.pictures}
    items = {item.name: (item, split) for split, part in dataset.splits.items() for item in part}
    assert done.files == len(items)
    assert sorted(pictures) == sorted(items)
    assert found.classes == dataset.table.names
    assert not found.left_out
    for key, (item, _) in items.items():
        assert pictures[key].image is not None
        assert pictures[key].size == (item.height, item.width)
        np.testing.assert_array_equal(drawn(pictures[key], found.classes), dataset.read_mask(item))
    return found


JUNK = (None, True, -1, 1.5, 10**30, "", "x\0/../", [], {}, [[]], ["a"], {"a": 1})
JUNK_TEXT = (None, "", "x", "nan", "-1", "1e300", "0.5", "99999999999999999999", "../x", "1,2;;", "a" * 5000)


def junk_json(document: Any) -> Iterator[str]:
    """The document with junk in the place of each of its values."""
    for where in [where for where in _places(document) if where]:
        for junk in JUNK:
            changed = copy.deepcopy(document)
            inner = changed
            for key in where[:-1]:
                inner = inner[key]
            inner[where[-1]] = junk
            yield json.dumps(changed)


def _places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield where
    inner = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _places(each, (*where, key))


def junk_xml(document: str) -> Iterator[str]:
    """The document with junk in the place of each attribute and text."""
    root = ElementTree.fromstring(document)
    for index, element in enumerate(root.iter()):
        for key in (*element.attrib, None):
            for junk in JUNK_TEXT:
                changed = copy.deepcopy(root)
                here = list(changed.iter())[index]
                if key is None:
                    here.text = junk
                elif junk is None:
                    del here.attrib[key]
                else:
                    here.set(key, junk)
                yield ElementTree.tostring(changed, encoding="unicode")


def assert_read_or_refused(path: Path, name: str, texts: Iterator[str]) -> None:
    """No document makes a format fail but with a line that says why."""
    form = FORMATS[name]
    assert form.recognise is not None
    assert form.read is not None
    for text in texts:
        put(path, text)
        form.recognise(Files(path))
        said = ""
        try:
            form.read(Files(path))
        except IntarsiaError as error:
            said = str(error)
        assert "\n" not in said
