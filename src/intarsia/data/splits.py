"""Training, validation and test: seeded where nobody said, and always written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from intarsia.data.base import SPLITS, Item
from intarsia.errors import DataError


def complete_splits(
    given: Mapping[str | None, Sequence[Item]], *, val_share: float, test_share: float, seed: int, label: str
) -> tuple[dict[str, tuple[Item, ...]], list[str]]:
    """All three splits from what was given, and notes on what was drawn.

    Nothing given (`given[None]`): drawn at random. No validation given: drawn from training. No test given beside
    training: there is none.

    Raises:
        DataError: there is nothing to train on.
    """
    notes: list[str] = []
    splits = {split: tuple(given.get(split, ())) for split in SPLITS}
    loose = list(given.get(None, ()))
    if loose:
        order = _order(len(loose), seed)
        num_test = _part(len(loose), test_share) if len(loose) >= 3 else 0
        num_val = _part(len(loose), val_share) if len(loose) >= 2 else 0
        drawn = [loose[index] for index in order]
        splits["test"] = tuple(_sorted(drawn[:num_test]))
        splits["val"] = tuple(_sorted(drawn[num_test : num_test + num_val]))
        splits["train"] = tuple(_sorted(drawn[num_test + num_val :]))
        notes.append(
            f"no split given: drawn with seed {seed}, {len(splits['train'])} train, {len(splits['val'])} val, "
            f"{len(splits['test'])} test; images of one patient, place or video may be on both sides"
        )
    elif splits["train"] and not splits["val"] and len(splits["train"]) >= 2:
        order = _order(len(splits["train"]), seed)
        num_val = _part(len(splits["train"]), val_share)
        chosen = set(order[:num_val])
        training = splits["train"]
        splits["val"] = tuple(item for index, item in enumerate(training) if index in chosen)
        splits["train"] = tuple(item for index, item in enumerate(training) if index not in chosen)
        notes.append(f"no validation split given: {num_val} training images drawn for it with seed {seed}")
    if not splits["train"]:
        raise DataError(f"{label}: has no training images. There are: {', '.join(s for s in SPLITS if splits[s])}.")
    if not splits["val"]:
        splits["val"] = splits["train"]
        notes.append("one image only: validation is done on the training image and says nothing of new images")
    return splits, notes


def _order(count: int, seed: int) -> list[int]:
    return [int(index) for index in np.random.Generator(np.random.Philox(key=[seed, 0x5917])).permutation(count)]


def _part(count: int, share: float) -> int:
    return 0 if share == 0 else max(1, round(count * share))


def _sorted(items: Sequence[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.name)
