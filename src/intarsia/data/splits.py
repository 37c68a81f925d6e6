"""Training, validation and test: seeded where nobody said, and always written down.

Units are single images, or groups of images that must stay together (one patient, one video). Units are dealt to parts so
that each part gets its share of images; stratified, so that it gets its share of the images that hold each class (Sechidis,
Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from intarsia.data.base import SPLITS, Item
from intarsia.errors import ConfigError, DataError

Unit = list[Item]
Given = Mapping[str | None, Sequence[Item]]
ClassesOf = Callable[[Item], NDArray[np.int64]]
"""(K,) pixels of each class in an item's mask."""


def complete_splits(
    given: Given,
    *,
    val_share: float,
    test_share: float,
    seed: int,
    label: str,
    group: str | None = None,
    classes_of: ClassesOf | None = None,
    folds: int | None = None,
    fold: int = 0,
) -> tuple[dict[str, tuple[Item, ...]], list[str]]:
    """All three splits from what was given, and notes on what was drawn.

    Nothing given (`given[None]`): drawn at random. No validation given: drawn from training. No test given beside
    training: there is none. With folds, all but the test images are dealt to folds, and one of them is validation.

    Args:
        given: items by split; None for those of which nobody said.
        val_share: share of images drawn for validation, where none is given and there are no folds.
        test_share: share of images drawn for the test, where no split is given.
        seed: of every draw.
        label: the data set's name in messages.
        group: regular expression on the names; images with an equal match (its first group, if it has one) stay together.
        classes_of: pixels of each class of an item, to stratify by the classes that an image holds; None: not stratified.
        folds: number of folds.
        fold: the one that validates, from 0.

    Raises:
        DataError: there is nothing to train on, or there are fewer units than folds.
        ConfigError: names that the group's pattern does not match.
    """
    notes: list[str] = []
    splits = {split: tuple(given.get(split, ())) for split in SPLITS}
    loose = list(given.get(None, ()))
    plain = group is None and classes_of is None
    if group is not None and not loose:
        notes += _torn(splits, group)
    if folds is not None:
        splits, notes = _folded(splits, loose, test_share, seed, label, group, classes_of, folds, fold)
    elif loose:
        splits = (_drawn_plainly if plain else _drawn)(loose, val_share, test_share, seed, group, classes_of, label)
        notes.append(
            f"no split given: drawn with seed {seed}{_how(group, classes_of)}, {len(splits['train'])} train, "
            f"{len(splits['val'])} val, {len(splits['test'])} test"
            + ("" if group else "; images of one patient, place or video may be on both sides")
        )
    elif splits["train"] and not splits["val"] and len(splits["train"]) >= 2:
        splits["train"], splits["val"] = _validation(splits["train"], val_share, seed, group, classes_of, label)
        notes.append(
            f"no validation split given: {len(splits['val'])} training images drawn for it with seed {seed}"
            + _how(group, classes_of)
        )
    if not splits["train"]:
        raise DataError(f"{label}: has no training images. There are: {', '.join(s for s in SPLITS if splits[s])}.")
    if not splits["val"]:
        splits["val"] = splits["train"]
        alone = "one image only" if len(splits["train"]) == 1 else "no validation images"
        notes.append(f"{alone}: validation is done on the training image and says nothing of new images")
    return splits, notes


def _how(group: str | None, classes_of: ClassesOf | None) -> str:
    return (f", grouped by {group}" if group else "") + (", stratified" if classes_of else "")


def _drawn_plainly(
    loose: Sequence[Item], val_share: float, test_share: float, seed: int, *_: object
) -> dict[str, tuple[Item, ...]]:
    """Single images in a random order: the first are test, the next validation."""
    drawn = [loose[index] for index in _order(len(loose), seed)]
    num_test = _part(len(loose), test_share) if len(loose) >= 3 else 0
    num_val = _part(len(loose), val_share) if len(loose) >= 2 else 0
    return {
        "train": tuple(_sorted(drawn[num_test + num_val :])),
        "val": tuple(_sorted(drawn[num_test : num_test + num_val])),
        "test": tuple(_sorted(drawn[:num_test])),
    }


def _drawn(
    loose: Sequence[Item],
    val_share: float,
    test_share: float,
    seed: int,
    group: str | None,
    classes_of: ClassesOf | None,
    label: str,
) -> dict[str, tuple[Item, ...]]:
    units = _units(loose, group)
    _enough(units, 2 if val_share else 1, label, group)
    shares = [max(0.0, 1 - val_share - test_share), val_share, test_share]
    parts = _deal(units, shares, seed, classes_of)
    return {split: tuple(_sorted(part)) for split, part in zip(("train", "val", "test"), parts, strict=True)}


def _validation(
    training: Sequence[Item],
    val_share: float,
    seed: int,
    group: str | None,
    classes_of: ClassesOf | None,
    label: str,
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Training and validation, drawn from what was given as training."""
    if group is None and classes_of is None:
        chosen = set(_order(len(training), seed)[: _part(len(training), val_share)])
        numbered = list(enumerate(training))
        return tuple(i for n, i in numbered if n not in chosen), tuple(i for n, i in numbered if n in chosen)
    units = _units(training, group)
    _enough(units, 2 if val_share else 1, label, group)
    kept, taken = _deal(units, [1 - val_share, val_share], seed, classes_of)
    return tuple(_sorted(kept)), tuple(_sorted(taken))


def _folded(
    splits: Mapping[str, tuple[Item, ...]],
    loose: Sequence[Item],
    test_share: float,
    seed: int,
    label: str,
    group: str | None,
    classes_of: ClassesOf | None,
    folds: int,
    fold: int,
) -> tuple[dict[str, tuple[Item, ...]], list[str]]:
    """Everything but the test images dealt to folds; the test images do not depend on the fold."""
    pool, test = [*splits["train"], *splits["val"], *loose], list(splits["test"])
    units = _units(pool, group)
    if loose and not test and test_share:
        _enough(units, folds + 1, label, group)
        pool, test = _deal(units, [1 - test_share, test_share], seed, classes_of)
        units = _units(_sorted(pool), group)
    _enough(units, folds, label, group)
    parts = _deal(units, [1 / folds] * folds, seed + 1, classes_of)
    training = [item for number, part in enumerate(parts) if number != fold for item in part]
    done = {"train": tuple(_sorted(training)), "val": tuple(_sorted(parts[fold])), "test": tuple(_sorted(test))}
    told = "; the validation split that was given is dealt again" if splits["val"] else ""
    sizes = ", ".join(str(len(part)) for part in parts)
    return done, [
        f"fold {fold} of {folds} validates (folds of {sizes} images, seed {seed}{_how(group, classes_of)}){told}"
    ]


def _units(items: Sequence[Item], group: str | None) -> list[Unit]:
    """Items that stay together, in order of their names."""
    if group is None:
        return [[item] for item in items]
    keys = _keys(items, group)
    together: dict[str, Unit] = {}
    for item in _sorted(items):
        together.setdefault(keys[item.name], []).append(item)
    return [together[key] for key in sorted(together)]


def _keys(items: Sequence[Item], group: str) -> dict[str, str]:
    pattern = re.compile(group)
    found = {item.name: pattern.search(item.name) for item in items}
    if missed := sorted(name for name, match in found.items() if match is None):
        raise ConfigError(
            f"data.group: {group!r} does not match {len(missed)} of {len(items)} names, first {missed[0]!r}."
        )
    return {name: str(match[1] if pattern.groups else match[0]) for name, match in found.items() if match}


def _torn(splits: Mapping[str, Sequence[Item]], group: str) -> list[str]:
    """A note on groups that a given split has on both sides."""
    sides = [{*_keys(splits[split], group).values()} for split in SPLITS]
    torn = sorted((sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2]))
    return [f"{len(torn)} groups of data.group are in more than one split, first {torn[0]}"] if torn else []


def _enough(units: Sequence[Unit], wanted: int, label: str, group: str | None) -> None:
    if len(units) < wanted:
        kind = "groups of data.group" if group else "images"
        raise DataError(
            f"{label}: has {len(units)} {kind}, and {wanted} are needed to split them. Ask for less folds or shares."
        )


def _deal(units: Sequence[Unit], shares: Sequence[float], seed: int, classes_of: ClassesOf | None) -> list[list[Item]]:
    """Units dealt to parts, large ones first, each to the part that lacks most; no part that has a share stays empty."""
    shuffled = [units[index] for index in _order(len(units), seed)]
    total = sum(map(len, units))
    lacks = np.array([share * total for share in shares])
    parts: list[list[Unit]] = [[] for _ in shares]
    if classes_of is None:
        for unit in sorted(shuffled, key=len, reverse=True):
            _give(unit, int(np.argmax(lacks)), parts, lacks)
    else:
        _deal_by_class(shuffled, shares, classes_of, parts, lacks)
    for number, share in enumerate(shares):
        if share > 0 and not parts[number]:
            richest = max(parts, key=len)
            if len(richest) >= 2:
                parts[number].append(richest.pop(min(range(len(richest)), key=lambda i: len(richest[i]))))
    return [[item for unit in part for item in unit] for part in parts]


def _give(unit: Unit, number: int, parts: list[list[Unit]], lacks: NDArray[np.float64]) -> None:
    parts[number].append(unit)
    lacks[number] -= len(unit)


def _deal_by_class(
    units: Sequence[Unit],
    shares: Sequence[float],
    classes_of: ClassesOf,
    parts: list[list[Unit]],
    lacks: NDArray[np.float64],
) -> None:
    """Iterative stratification: the rarest class first, its units to the part that lacks that class most."""
    holds = np.array([sum((classes_of(item) > 0).astype(np.int64) for item in unit) for unit in units])  # (units, K)
    wanted = np.outer(shares, holds.sum(axis=0)).astype(np.float64)  # (parts, K)
    left = list(range(len(units)))
    while left:
        open_units = (holds[left] > 0).sum(axis=0)
        if not open_units.any():
            for index in left:
                _give(units[index], int(np.argmax(lacks)), parts, lacks)
            return
        rarest = int(np.argmin(np.where(open_units > 0, open_units, np.iinfo(np.int64).max)))
        for index in [index for index in left if holds[index, rarest] > 0]:
            most = np.flatnonzero(wanted[:, rarest] >= wanted[:, rarest].max() - 1e-9)
            number = int(most[np.argmax(lacks[most])])
            _give(units[index], number, parts, lacks)
            wanted[number] -= holds[index]
            left.remove(index)


def _order(count: int, seed: int) -> list[int]:
    return [int(index) for index in np.random.Generator(np.random.Philox(key=[seed, 0x5917])).permutation(count)]


def _part(count: int, share: float) -> int:
    return 0 if share == 0 else max(1, round(count * share))


def _sorted(items: Sequence[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.name)
