"""Data sets of drawn class maps, and class maps of what importers read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from intarsia.data.base import Dataset
from intarsia.data.folder import FolderConfig
from intarsia.importers.base import FORMATS, Files, Project, find_format
from intarsia.importers.rasterize import render
from intarsia.progress import Silent
from tests.conftest import write

NAMES = ("background", "cell", "wall: outer", "tv/monitor")

CLASS_MAPS = st.lists(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 3, 255])),
    min_size=1,
    max_size=3,
)


def dataset_of(
    root: Path, maps: Sequence[NDArray[np.uint8]], objects: Sequence[NDArray[np.uint8]] = (), names: Sequence[str] = ()
) -> Dataset:
    """A folder of noise with these class maps, opened: b0 validates, the others train."""
    rng = np.random.default_rng(0)
    known = [name or f"b{index}" for index, name in enumerate(names or [""] * len(maps))]
    for index, classes in enumerate(maps):
        image = rng.integers(0, 256, (*classes.shape, 3), dtype=np.uint8)
        write(root / "images" / f"{known[index]}.png", image)
        write(root / "masks" / f"{known[index]}.png", classes)
        if objects:
            write(root / "instances" / f"{known[index]}.png", objects[index])
    quoted = "\n".join(f'  - "{name}"' for name in NAMES)
    (root / "classes.yaml").write_text(f"names:\n{quoted}\nignore_index: 255\n")
    train, val = (known[1:], known[:1]) if len(known) > 1 else (known, [])
    (root / "splits.yaml").write_text(f"train: {train}\nval: {val}\n".replace("'", '"'))
    return FolderConfig(path=str(root)).open(Silent())


def written(dataset: Dataset, target: Path, name: str) -> Path:
    """The data set in a format."""
    write_ = FORMATS[name].write
    assert write_ is not None
    assert write_(dataset, target, Silent()).path == target
    return target


def read_back(root: Path) -> Project:
    """An export, its format found by content."""
    read = find_format(Files(root)).read
    assert read is not None
    return read(Files(root))


def class_maps(project: Project) -> dict[str, NDArray[np.uint8]]:
    """Class map of each picture by its name."""
    found = {}
    for picture in project.pictures:
        assert picture.size is not None
        found[picture.name] = render(picture.shapes, picture.size, project.classes).classes
    return found
