"""What formats say of an image: its name, cleaned and unique; its file, found on disk; its size, its split; and of colours."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import ImageColor

from intarsia.errors import FileError
from intarsia.images.files import IMAGE_SUFFIXES, max_pixels
from intarsia.importers.base import Files, number

IGNORED = "__ignore__"
"""Label of the pixels that count for nothing, as labelme calls it; for formats that have no word of their own."""
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(name: object) -> str | None:
    """train, val or test; None if the tool's name for a part of its images says nothing of the kind."""
    return _SPLITS.get(str(name or "").strip().lower())


def size_of(path: Path, what: str, height: Any, width: Any) -> tuple[int, int] | None:
    """Height and width as a file says them; None where it does not.

    Raises:
        FileError: they are no size of an image, or one of too many pixels.
    """
    if height is None or width is None:
        return None
    size = int(number(height, path, f"the height of {what}")), int(number(width, path, f"the width of {what}"))
    if min(size) < 1:
        raise FileError(path, "E_DIM", f"{what} is said to be {size[1]} by {size[0]} pixels")
    if size[0] * size[1] > max_pixels():
        reason = f"{what} is said to be {size[1]} by {size[0]} pixels, more than the limit of {max_pixels()}"
        raise FileError(path, "E_TOO_LARGE", reason)
    return size


def color_of(text: str | None) -> tuple[int, int, int] | None:
    """A colour as the web writes it: a name, #rrggbb, rgb(...) or rgba(...); None if it is none."""
    try:
        red, green, blue, *_ = ImageColor.getrgb((text or "").strip())
    except ValueError:
        return None
    return red, green, blue


def name_of(text: str) -> str:
    """A relative path without an image's ending: no drive, no "..", no empty part."""
    parts = [part.strip("\0 ") for part in text.replace("\\", "/").split("/")]
    kept = [part.replace(":", "_") for part in parts if part not in ("", ".", "..") and not part.endswith(":")]
    path = PurePosixPath(*kept) if kept else PurePosixPath("image")
    return (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES and path.stem else path).as_posix()


def unique(names: Sequence[str], prefixes: Sequence[str]) -> list[str]:
    """The names; of equal ones each with its prefix as a folder, then with a number where that is not enough.

    Args:
        prefixes: what tells equal names apart, such as the subset; "" if nothing does.
    """
    doubled = {name for name, count in Counter(names).items() if count > 1}
    wanted = [
        name_of(f"{prefix}/{name}") if name in doubled and prefix else name
        for name, prefix in zip(names, prefixes, strict=True)
    ]
    taken = {name for name in wanted if name not in doubled}
    seen: set[str] = set()
    found = []
    for name in wanted:
        free, number = name, 2
        while free in seen or (free != name and free in taken):
            free, number = f"{name}_{number}", number + 1
        seen.add(free)
        found.append(free)
    return found


def nearest(files: Files, beside: Path, names: Iterable[str], *, anywhere: bool = True) -> Path | None:
    """The first image that is there: below the folder of a file under one of the names, else anywhere in the export.

    Args:
        anywhere: whether an image is taken by its file name alone; wrong where several images have that name.
    """
    cleaned = [name.replace("\\", "/").strip().removeprefix("./") for name in names]
    usable = [name for name in cleaned if name and "\0" not in name]
    for name in usable:
        if not name.startswith("/") and ".." not in name.split("/"):
            near = beside.parent / name
            if near.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(near):
                return near
    for name in usable:
        found = files.image(name) if anywhere else files.images.get(name)
        if found is not None:
            return found
    return None
