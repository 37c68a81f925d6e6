"""Exports made in a test: documents, data sets of drawn class maps, and what an export gives back."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from intarsia.data.base import Dataset
from intarsia.data.folder import FolderConfig
from intarsia.errors import IntarsiaError
from intarsia.importers.base import FORMATS, Files, Picture, Project, Written, find_format
from intarsia.importers.rasterize import render
from intarsia.progress import Silent
from tests.conftest import write

NAMES = ("background", "cell", "wall: outer", "tv/monitor")
"""Classes that are hard to write in lists and paths."""
MARKUP_NAMES = ("background", 'a & <b> "c"', "ignore", "ä/ö")
"""Classes that are hard to write in markup; one is called as what is not counted."""

CLASS_MAPS = st.lists(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 3, 255])),
    min_size=1,
    max_size=3,
)


def data_of(
    root: Path,
    maps: Sequence[NDArray[np.uint8]],
    objects: Sequence[NDArray[np.uint8]] = (),
    names: Sequence[str] = ("b0", "b1", "b2"),
    *,
    splits: Sequence[str] = ("val", "train", "train"),
    classes: Sequence[str] = NAMES,
) -> Dataset:
    """A folder of noise with at most three class maps, opened; one alone trains."""
    rng = np.random.default_rng(0)
    listed: dict[str, list[str]] = {"train": [], "val": []}
    for index, (each, name) in enumerate(zip(maps, names[: len(maps)], strict=True)):
        write(root / "images" / f"{name}.png", rng.integers(0, 256, (*each.shape, 3), dtype=np.uint8))
        write(root / "masks" / f"{name}.png", each)
        if objects:
            write(root / "instances" / f"{name}.png", objects[index])
        listed.setdefault(splits[index] if len(maps) > 1 else "train", []).append(name)
    put(root / "classes.yaml", json.dumps({"names": classes, "ignore_index": 255}))
    put(root / "splits.yaml", json.dumps(listed))
    return FolderConfig(path=str(root)).open(Silent())


def put(path: Path, text: str) -> Path:
    """A text file, folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def written(dataset: Dataset, target: Path, name: str) -> Written:
    """The data set in a format, and what was kept."""
    writer = FORMATS[name].write
    assert writer is not None
    done = writer(dataset, target, Silent())
    assert done.path == target
    return done


def read_back(path: Path, name: str) -> Project:
    """What an export holds; its content alone must say the format."""
    files = Files(path)
    found = find_format(files)
    assert found.name == name
    assert found.read is not None
    project = found.read(files)
    assert project.format == name
    return project


def picture(path: Path, name: str) -> Picture:
    """The only picture of an export."""
    (found,) = read_back(path, name).pictures
    return found


def drawn(found: Picture, classes: Sequence[str], uncovered: int = 254, **how: str) -> NDArray[np.uint8]:
    """The class map of a picture; `uncovered` where no shape lies."""
    assert found.size is not None
    rendered = render(found.shapes, found.size, classes, **how)  # type: ignore[arg-type]
    return np.where(rendered.uncovered, uncovered, rendered.classes).astype(np.uint8)


def class_maps(project: Project, uncovered: int = 254) -> dict[str, NDArray[np.uint8]]:
    """The class map of each picture by its name."""
    return {each.name: drawn(each, project.classes, uncovered) for each in project.pictures}


def rows(text: str) -> np.ndarray:
    """A mask drawn in letters: "." is outside."""
    return np.array([[letter != "." for letter in line.split()[0]] for line in text.strip().splitlines()])


def assert_returns(name: str, *, colors: bool = True, splits: bool = True, bare: bool = False) -> None:
    """Written and read back, every class map is what it was, under its name, with its image and its classes.

    colors, splits: whether the format holds them.
    bare: it leaves out what is not counted.
    """

    @settings(max_examples=40, deadline=None)
    @given(CLASS_MAPS, st.sampled_from((NAMES, MARKUP_NAMES)))
    def maps_return(maps: list[NDArray[np.uint8]], classes: tuple[str, ...]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            truth = dict(zip(("deep/i0", "i1", "i2"), maps, strict=False))
            dataset = data_of(
                Path(folder) / "data", maps, names=tuple(truth), splits=("val", "train", "test"), classes=classes
            )
            done = written(dataset, Path(folder) / "out", name)
            assert done.lossless == (not bare or not any((each == 255).any() for each in maps))
            assert done.files == len(maps)
            found = read_back(done.path, name)
            assert found.classes == dataset.table.names == classes
            assert not colors or [*found.colors.items()] == [*zip(classes, dataset.table.colors, strict=True)]
            assert not found.left_out
            assert sorted(each.name for each in found.pictures) == sorted(truth)
            returned = class_maps(found, 255 if bare else 254)
            for each in found.pictures:
                assert each.image is not None
                assert each.size == truth[each.name].shape
                np.testing.assert_array_equal(returned[each.name], truth[each.name])
                within = [
                    split for split, items in dataset.splits.items() if each.name in {item.name for item in items}
                ]
                assert within
                assert not splits or each.split in within

    maps_return()


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
