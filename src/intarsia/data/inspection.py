"""What a person should look at in a data set that can be used: nothing here refuses it, unless `--strict` says so.

| code | met |
|---|---|
| W_LEAK | a file of val or test is also in train, byte for byte |
| W_ALIKE | an image of val or test looks like one of train (see duplicates.py) |
| W_TWICE | two equal images within a split |
| W_CONTRADICTION | equal images whose masks differ |
| W_IGNORED | a mask in which no pixel counts |
| W_EMPTY | a mask that holds nothing but the background |
| W_ABSENT | a class that a split does not hold |
| W_CONSTANT | an image of one value |
| W_LINK | a file that is a link out of the folder |
| W_MASK_FILE | a mask file that was read, but is odd |
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intarsia.classes import IGNORE, UNKNOWN
from intarsia.data.base import Dataset, Item, MaskDecoder
from intarsia.data.checks import SHOWN, Problem
from intarsia.data.duplicates import alike
from intarsia.data.layout import Pair
from intarsia.data.scan import scan
from intarsia.images.overlay import is_background
from intarsia.progress import Progress


@dataclass(frozen=True)
class Finding(Problem):
    """A problem that keeps nobody from using the data, with the items it is about."""

    items: tuple[Item, ...] = ()
    beside: tuple[Item | None, ...] = ()
    """For each item the one that it equals or is like; None: there is no such."""


@dataclass(frozen=True)
class _Seen:
    """An item, its split, and what its files hold."""

    split: str
    item: Item
    image: dict[str, Any]
    mask: dict[str, Any]
    classes: frozenset[int] | None
    """Class numbers in the mask, `IGNORE` among them; None: the table does not know all its values."""


def inspect_dataset(dataset: Dataset, progress: Progress) -> list[Finding]:
    """Everything worth a look, the gravest first. Files that were read before come from the cache."""
    seen = _seen(dataset, progress)
    found = _Collected(dataset.root)
    _duplicates(found, seen)
    _masks(found, seen, dataset)
    _absent(found, dataset)
    found.add(
        "W_CONSTANT",
        "images of one value: there is nothing to see in them",
        [(one.item, None) for one in seen if one.image.get("constant")],
        "look at them; leave them out if they were not meant",
    )
    _files(found, seen, dataset.root)
    return found.findings


class _Collected:
    def __init__(self, root: Path) -> None:
        self.root, self.findings = root, list[Finding]()

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def add(
        self,
        code: str,
        title: str,
        met: Sequence[tuple[Item, Item | None]],
        advice: str,
        *,
        mask: bool = False,
        of: str = "",
    ) -> None:
        """A finding on items, each perhaps with another beside it.

        Args:
            mask: name the items by their masks.
            of: what an item is to the one beside it.
        """
        if met:
            lines = [
                self.name((item.mask if mask else None) or item.image)
                + (f" {of} {self.name(other.image)}" if other else "")
                for item, other in met[:SHOWN]
            ]
            items, beside = zip(*met, strict=True)
            self.findings.append(Finding(code, title, tuple(lines), len(met), advice, items, beside))


def _seen(dataset: Dataset, progress: Progress) -> list[_Seen]:
    where = {
        (item.image, item.mask): (split, item)
        for split in reversed(list(dataset.splits))
        for item in dataset.splits[split]
    }
    pairs = [Pair(item.name, split, item.image, item.mask) for split, item in where.values()]
    bands = [item.bands for _, item in where.values()]
    general = MaskDecoder(dataset.table)
    seen = []
    for (split, item), one in zip(where.values(), scan(dataset.root, pairs, progress, bands), strict=True):
        image, mask = ({} if facts is None or "error" in facts else facts for facts in (one.image, one.mask))
        seen.append(_Seen(split, item, image, mask, _classes(mask, dataset.decoders.get(item.name, general))))
    return sorted(seen, key=lambda one: (list(dataset.splits).index(one.split), one.item.name))


def _classes(mask: dict[str, Any], decoder: MaskDecoder) -> frozenset[int] | None:
    if not mask:
        return None
    classes, _ = decoder.of_scanned(mask)
    return None if (classes == UNKNOWN).any() else frozenset(int(number) for number in classes)


def _duplicates(found: _Collected, seen: Sequence[_Seen]) -> None:
    training = [one for one in seen if one.split == "train"]
    others = [one for one in seen if one.split != "train"]
    first = {one.image["sha256"]: one for one in reversed(training) if one.image}
    leaks = [one for one in others if one.image and one.image["sha256"] in first]
    found.add(
        "W_LEAK",
        "images of val and test are also in train, byte for byte: scores will be too good",
        [(one.item, first[one.image["sha256"]].item) for one in leaks],
        "take them out of one side; --fix DIR takes them out of train",
        of="=",
    )
    leaked = {id(one) for one in leaks}
    rest = [one for one in others if id(one) not in leaked]
    near = alike([one.image.get("look", "") for one in rest], [one.image.get("look", "") for one in training])
    near = list({here: (here, there) for here, there in reversed(near)}.values())[::-1]
    found.add(
        "W_ALIKE",
        "images of val and test look like images of train",
        [(rest[here].item, training[there].item) for here, there in near],
        "look at the pairs: copies, crops or neighbouring frames belong on one side",
        of="like",
    )
    equal: dict[str, list[_Seen]] = defaultdict(list)
    for one in seen:
        if one.image:
            equal[one.image["sha256"]].append(one)
    groups = [group for group in equal.values() if len(group) > 1]
    found.add(
        "W_CONTRADICTION",
        "equal images whose masks differ",
        [
            (other.item, group[0].item)
            for group in groups
            for other in group[1:]
            if other.mask and group[0].mask and other.mask["values"] != group[0].mask["values"]
        ],
        "one of the two masks is wrong: keep the right one",
        of="=",
    )
    twice = [
        (other.item, one.item)
        for group in groups
        for one, other in itertools.pairwise(group)
        if one.split == other.split
    ]
    found.add("W_TWICE", "equal images within a split: they count twice", twice, "keep one of each", of="=")


def _masks(found: _Collected, seen: Sequence[_Seen], dataset: Dataset) -> None:
    found.add(
        "W_IGNORED",
        "masks in which no pixel counts: nothing is learned or scored on them",
        [(one.item, None) for one in seen if one.classes == frozenset({IGNORE})],
        "draw their classes, or leave these images out",
        mask=True,
    )
    if is_background(dataset.table):
        found.add(
            "W_EMPTY",
            f"masks that hold nothing but {dataset.table.names[0]}",
            [(one.item, None) for one in seen if one.classes is not None and one.classes - {IGNORE} == frozenset({0})],
            "right, if nothing of interest is in the images; wrong, if they were never drawn",
            mask=True,
        )


def _absent(found: _Collected, dataset: Dataset) -> None:
    lines = []
    for split, pixels in dataset.class_pixels.items():
        if missing := [name for name, count in zip(dataset.table.names, pixels, strict=True) if count == 0]:
            lines.append(f"{split}: {', '.join(missing)}")
    if lines:
        found.findings.append(
            Finding(
                "W_ABSENT",
                "classes that a split does not hold",
                tuple(lines),
                len(lines),
                "without it in train a class is never learned; without it in val or test its score is not defined and "
                "left out of the mean",
            )
        )


def _files(found: _Collected, seen: Sequence[_Seen], root: Path) -> None:
    inside = root.resolve()
    links = [
        one.item for one in seen if one.item.image.is_symlink() and not one.item.image.resolve().is_relative_to(inside)
    ]
    first = f"first to {links[0].image.resolve()}; " if links else ""
    found.add(
        "W_LINK",
        "files that are links out of the folder",
        [(item, None) for item in links],
        f"{first}copy the folder with their content to pass it on",
    )
    told = Counter(note for one in seen for note in one.mask.get("notes", ()))
    for note, _ in sorted(told.items()):
        found.add(
            "W_MASK_FILE",
            f"mask files: {note}",
            [(one.item, None) for one in seen if note in one.mask.get("notes", ())],
            "they are read by their content; --fix DIR writes them anew",
            mask=True,
        )
