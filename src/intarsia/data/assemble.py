"""From files that were read to a `Dataset`: what every kind of data set shares once its images and masks are paired.

A config finds its pairs (`read`) and says what the values in masks mean; the rest is here: class map, split, statistics.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from intarsia.classes import IGNORE, ClassTable
from intarsia.data.base import SPLITS, Bands, DataConfig, Dataset, Item, MaskDecoder
from intarsia.data.checks import Findings
from intarsia.data.classmap import merged_table, numbers, renamed
from intarsia.data.layout import Layout
from intarsia.data.scan import ScannedPair
from intarsia.data.splits import complete_splits
from intarsia.errors import DataError
from intarsia.images.ranges import BYTES, ValueRange
from intarsia.progress import Progress


@dataclass(frozen=True)
class Entry:
    """An item with what its files hold."""

    item: Item
    split: str | None
    image: Mapping[str, Any]
    mask: Mapping[str, Any]
    decoder: MaskDecoder


@dataclass(frozen=True)
class Reading:
    """Everything that was found and read, before it is split."""

    label: str
    root: Path
    entries: tuple[Entry, ...]
    table: ClassTable
    table_source: str
    split_source: str
    """Where the split came from, in words; "" where nobody said."""
    channels: int
    notes: tuple[str, ...]


class SourceConfig(DataConfig):
    """Settings of every data set that is read from files."""

    class_map: dict[str, str] | None = None
    """Old class name to new name: renames and merges classes; 'ignore' leaves one out; "*" stands for all others."""
    val_share: float = Field(0.15, ge=0, lt=1)
    """Share of images drawn for validation where no split is given."""
    test_share: float = Field(0.15, ge=0, lt=1)
    """Share of images drawn for the test where no split is given."""
    split_seed: int = Field(0, ge=0)
    """Seed of that draw."""
    group: str | None = None
    """Regular expression on the images' names: images with an equal match (its first group) stay on one side of the split."""
    stratify: bool = False
    """Draw so that each side gets its share of the images that hold each class."""
    folds: int | None = Field(None, ge=2)
    """Deal all but the test images to so many folds."""
    fold: int = Field(0, ge=0)
    """The fold that validates, from 0."""

    @field_validator("group")
    @classmethod
    def _pattern(cls, group: str | None) -> str | None:
        try:
            re.compile(group or "")
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        return group

    @model_validator(mode="after")
    def _fold_exists(self) -> SourceConfig:
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds}), got {self.fold}")
        return self

    def of_run(self, folder: Path) -> Self:
        file = folder / "splits.json"  # every kind of source has the setting `splits`
        return self.replace({"splits": str(file), "folds": None, "group": None} if file.is_file() else {})

    def read(self, progress: Progress) -> Reading:
        """Find, read and check every file.

        Raises:
            DataError: something cannot be used; the message lists what, where, and what mends it.
        """
        raise NotImplementedError

    def open(self, progress: Progress) -> Dataset:
        reading = self.read(progress)
        if self.class_map:
            reading = mapped(reading, self.class_map)
        return assemble(reading, self)


def reading_of(
    root: Path,
    layout: Layout,
    scanned: Sequence[ScannedPair],
    bands: Bands,
    table: ClassTable,
    source: str,
    notes: Sequence[str],
) -> Reading:
    """The reading of one folder; images without mask are left out.

    Raises:
        DataError: no image has a mask.
    """
    entries, decoder = [], MaskDecoder(table)
    for one in scanned:
        if one.pair.image is None or one.pair.mask is None or one.image is None:
            continue
        name = f"{one.pair.split}/{one.pair.name}" if layout.split_source == "folders" else one.pair.name
        item = Item(
            name,
            one.pair.image,
            one.pair.mask,
            one.image["height"],
            one.image["width"],
            one.pair.instances,
            bands,
            one.image["nodata"] > 0,
        )
        entries.append(Entry(item, one.pair.split, one.image, one.mask or {}, decoder))
    if not entries:
        raise DataError(f"{root}: holds no image that has a mask.")
    channels = max(one.image["channels"] for one in scanned if one.image and "channels" in one.image)
    label = root.resolve().name
    return Reading(label, root, tuple(entries), table, source, layout.split_source, channels, tuple(notes))


def mapped(reading: Reading, class_map: Mapping[str, str]) -> Reading:
    """The same images with other classes.

    Raises:
        ConfigError: the map names what is no class, or leaves nothing.
    """
    new = renamed(reading.table, class_map)
    table = merged_table([(reading.table, new)])
    done = with_classes(reading, table, numbers(new, table))
    return replace(done, table_source=f"{reading.table_source}, by data.class_map")


def with_classes(reading: Reading, table: ClassTable, to: Sequence[int]) -> Reading:
    """The same images, class k of which becomes class `to[k]` of `table`."""
    decoders: dict[int, MaskDecoder] = {}
    for old in (entry.decoder for entry in reading.entries):
        if id(old) not in decoders:
            before = range(old.table.count) if old.to is None else old.to
            decoders[id(old)] = MaskDecoder(old.table, [IGNORE if k == IGNORE else to[k] for k in before])
    entries = tuple(replace(entry, decoder=decoders[id(entry.decoder)]) for entry in reading.entries)
    return replace(reading, entries=entries, table=table)


def split_reading(reading: Reading, config: SourceConfig) -> tuple[dict[str, tuple[Item, ...]], str, list[str]]:
    """The split, where it came from in words, and notes."""
    given: dict[str | None, list[Item]] = {}
    for entry in reading.entries:
        given.setdefault(entry.split, []).append(entry.item)
    of_name = {entry.item.name: entry for entry in reading.entries}

    def classes_of(item: Item) -> NDArray[np.int64]:
        return class_pixels(of_name[item.name], reading.table)

    splits, notes = complete_splits(
        given,
        val_share=config.val_share,
        test_share=config.test_share,
        seed=config.split_seed,
        label=str(reading.root),
        group=config.group,
        classes_of=classes_of if config.stratify else None,
        folds=config.folds,
        fold=config.fold,
    )
    drawn = f"drawn with seed {config.split_seed}"
    if config.folds is not None:
        return splits, f"fold {config.fold} of {config.folds}, {drawn}", notes
    return splits, reading.split_source or drawn, notes


def assemble(reading: Reading, config: SourceConfig) -> Dataset:
    """Split, count, and measure the training images."""
    splits, split_source, drawn = split_reading(reading, config)
    of_name = {entry.item.name: entry for entry in reading.entries}
    table = reading.table
    training = [of_name[item.name].image for item in splits["train"]]
    value_range = _value_range(training, reading.channels)
    mean, std = _statistics(training, reading.channels, value_range)
    counts = {
        split: [class_pixels(of_name[item.name], table) for item in splits[split]] for split in SPLITS if splits[split]
    }
    return Dataset(
        label=reading.label,
        root=reading.root,
        table=table,
        table_source=reading.table_source,
        splits=splits,
        split_source=split_source,
        channels=reading.channels,
        value_range=value_range,
        mean=mean,
        std=std,
        class_pixels={split: sum(each, _none(table)) for split, each in counts.items()},
        holding_pixels={split: _holding(each, splits[split], table) for split, each in counts.items()},
        notes=(*reading.notes, *drawn),
        decoders={entry.item.name: entry.decoder for entry in reading.entries},
    )


def class_pixels(entry: Entry, table: ClassTable) -> NDArray[np.int64]:
    """(K,) pixels of each class in one mask."""
    totals = np.zeros(256, np.int64)
    np.add.at(totals, *entry.decoder.of_scanned(entry.mask))
    return totals[: table.count]


def counts_in_words(layout: Layout) -> str:
    """ "3 images, 2 masks" """
    images, masks = sum(1 for p in layout.pairs if p.image), sum(1 for p in layout.pairs if p.mask)
    return f"{images} image{'s' * (images != 1)}, {masks} mask{'s' * (masks != 1)}"


def notes_on(layout: Layout, scanned: Sequence[ScannedPair], found: Findings) -> list[str]:
    """What a person should know of the files, one line each."""
    notes = []
    if unlabelled := [pair for pair in layout.pairs if pair.image and not pair.mask]:
        notes.append(f"{len(unlabelled)} images without mask are left out (data.unlabelled=skip)")
    if layout.passed_over:
        first = found.name(layout.passed_over[0])
        notes.append(f"{len(layout.passed_over)} files that are no images are passed over, first {first}")
    told = Counter(note for one in scanned for note in (one.image or {}).get("notes", ()))
    notes += [f"{note} in {count} images" for note, count in sorted(told.items())]
    if turned := sum(1 for one in scanned if (one.image or {}).get("turned")):
        notes.append(f"{turned} images are turned upright by their EXIF orientation")
    if without := [count for one in scanned if (count := (one.image or {}).get("nodata", 0))]:
        pixels = f"{sum(without)} pixels of {len(without)} images"
        notes.append(f"{pixels} have no value (NaN, infinite, or the file's nodata): they are ignored")
    modes = {(one.image or {}).get("channels") for one in scanned} - {None}
    if len(modes) > 1:
        notes.append("grey and colour images are mixed: grey ones are repeated to three channels")
    notes += _leaks(scanned)
    return notes


def _leaks(scanned: Sequence[ScannedPair]) -> list[str]:
    """Equal files on both sides of a split that was given."""
    training = {(one.image or {}).get("sha256") for one in scanned if one.pair.split == "train"} - {None}
    leaked = [
        one for one in scanned if one.pair.split in ("val", "test") and (one.image or {}).get("sha256") in training
    ]
    first = f", first {leaked[0].pair.name}" if leaked else ""
    return [f"{len(leaked)} images of val and test are also in train, file for file{first}"] if leaked else []


def _value_range(images: Sequence[Mapping[str, Any]], channels: int) -> ValueRange:
    """(0, 255) for 8-bit images; else the training set's 0.5 to 99.5 percentiles, of each band where they are not colours."""
    if all(image["depth"] == 8 for image in images):
        return BYTES
    lows, highs = (np.array([np.broadcast_to(image[key], channels) for image in images]) for key in ("low", "high"))
    low, high = lows.min(0), highs.max(0)
    least = 1 if all(image["depth"] == 16 for image in images) else 1e-6
    if channels in (1, 3):
        return float(low.min()), max(float(high.max()), float(low.min()) + least)
    return tuple(map(float, low)), tuple(map(float, np.maximum(high, low + least)))


def _statistics(
    images: Sequence[Mapping[str, Any]], channels: int, value_range: ValueRange
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all training pixels, on the 0..1 scale."""
    pixels, sums, squares = 0, np.zeros(channels), np.zeros(channels)
    for image in images:
        pixels += image["pixels"]
        sums += np.asarray(image["sum"])  # a grey image counts for every channel
        squares += np.asarray(image["sum_of_squares"])
    low, high = (np.asarray(bound, np.float64) for bound in value_range)
    mean = sums / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0)) / (high - low)
    unit = (mean - low) / (high - low)
    return tuple(round(float(v), 6) for v in unit), tuple(round(max(float(v), 1e-3), 6) for v in std)


def _none(table: ClassTable) -> NDArray[np.int64]:
    return np.zeros(table.count, np.int64)


def _holding(counts: Sequence[NDArray[np.int64]], items: Sequence[Item], table: ClassTable) -> NDArray[np.int64]:
    """(K,) pixels of the images that hold each class."""
    return sum(
        (np.where(count > 0, item.height * item.width, 0) for count, item in zip(counts, items, strict=True)),
        _none(table),
    )
