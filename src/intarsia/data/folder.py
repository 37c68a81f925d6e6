"""Any folder of images and masks as a data set; `layout.py` says how files are found, `checks.py` what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from intarsia.classes import ClassTable, find_class_file, read_class_table
from intarsia.config import read_yaml
from intarsia.data.base import DATASETS, SPLITS, DataConfig, Dataset, Item, MaskDecoder
from intarsia.data.checks import Findings, FolderProblems, check_files, check_values, infer_table
from intarsia.data.layout import Layout, find_pairs
from intarsia.data.scan import ScannedPair, scan
from intarsia.data.splits import complete_splits
from intarsia.errors import ConfigError, DataError
from intarsia.progress import Progress


@DATASETS.family("folder")
class FolderConfig(DataConfig):
    """A folder: images/ and masks/, with or without train, val and test, and perhaps a classes.yaml."""

    path: str = ""
    """The folder."""
    classes: str | None = None
    """Class table (YAML or JSON); null: classes.yaml or classes.json in the folder, else inferred from the masks."""
    splits: str | None = None
    """File of names, {train: [...], val: [...], test: [...]}; null: splits.json in the folder, else its train/, val/ and
    test/, else drawn."""
    unlabelled: Literal["fail", "skip"] = "fail"
    """Images without mask: refuse the folder, or leave them out (and say how many)."""
    val_share: float = Field(0.15, ge=0, lt=1)
    """Share of images drawn for validation where no split is given."""
    test_share: float = Field(0.15, ge=0, lt=1)
    """Share of images drawn for the test where no split is given."""
    split_seed: int = Field(0, ge=0)
    """Seed of that draw."""

    def of_run(self, folder: Path) -> Self:
        changes = {"classes": str(file)} if (file := folder / "classes.yaml").is_file() else {}
        if (file := folder / "splits.json").is_file() and read_yaml(file).get("source") != "folders":
            changes["splits"] = str(file)
        return self.replace(changes)

    def open(self, progress: Progress) -> Dataset:
        if not self.path:
            raise ConfigError("data.path: is not set; give the folder, such as data.path=cells/.")
        root = Path(self.path).expanduser()
        layout = find_pairs(root, Path(self.splits).expanduser() if self.splits else None)
        scanned = scan(root, layout.pairs, progress)
        found = check_files(layout, scanned, root, skip_unlabelled=self.unlabelled == "skip")
        table, source, notes = self._table(root, found, scanned)
        if found.problems or table is None:
            raise FolderProblems(root, _counts(layout), found.problems)
        notes = [*layout.notes, *notes, *_notes(layout, scanned, found)]
        return _assemble(self, root, layout, scanned, table, source, notes)

    def _table(
        self, root: Path, found: Findings, scanned: Sequence[ScannedPair]
    ) -> tuple[ClassTable | None, str, list[str]]:
        """The class table, where it came from, and notes; problems go to `found`."""
        file = Path(self.classes).expanduser() if self.classes else find_class_file(root)
        if file is None:
            table = infer_table(found, scanned)
            return table, "inferred from the masks", []
        if not file.is_file():
            raise DataError(f"data.classes: {file} does not exist.")
        table, notes = read_class_table(file)
        check_values(found, scanned, table)
        return table, file.name, notes


def _counts(layout: Layout) -> str:
    images, masks = sum(1 for p in layout.pairs if p.image), sum(1 for p in layout.pairs if p.mask)
    return f"{images} image{'s' * (images != 1)}, {masks} mask{'s' * (masks != 1)}"


def _notes(layout: Layout, scanned: Sequence[ScannedPair], found: Findings) -> list[str]:
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


def _assemble(
    config: FolderConfig,
    root: Path,
    layout: Layout,
    scanned: Sequence[ScannedPair],
    table: ClassTable,
    source: str,
    notes: list[str],
) -> Dataset:
    given: dict[str | None, list[Item]] = {}
    facts: dict[str, ScannedPair] = {}
    for one in scanned:
        if one.pair.image is None or one.pair.mask is None or one.image is None:
            continue
        name = f"{one.pair.split}/{one.pair.name}" if layout.split_source == "folders" else one.pair.name
        item = Item(name, one.pair.image, one.pair.mask, one.image["height"], one.image["width"], one.pair.instances)
        given.setdefault(one.pair.split, []).append(item)
        facts[name] = one
    if not given:
        raise DataError(f"{root}: holds no image that has a mask.")
    splits, drawn = complete_splits(
        given,
        val_share=config.val_share,
        test_share=config.test_share,
        seed=config.split_seed,
        label=str(root),
    )
    training = [facts[item.name] for item in splits["train"]]
    channels = max(one.image["channels"] for one in scanned if one.image and "channels" in one.image)
    value_range = _value_range(training)
    mean, std = _statistics(training, channels, value_range)
    decoder = MaskDecoder(table)
    class_pixels = {
        split: [_class_pixels(facts[item.name], decoder) for item in splits[split]] for split in SPLITS if splits[split]
    }
    return Dataset(
        label=root.resolve().name,
        root=root,
        table=table,
        table_source=source,
        splits=splits,
        split_source=layout.split_source or f"drawn with seed {config.split_seed}",
        channels=channels,
        value_range=value_range,
        mean=mean,
        std=std,
        class_pixels={split: sum(counts, _none(table)) for split, counts in class_pixels.items()},
        holding_pixels={split: _holding(counts, splits[split], table) for split, counts in class_pixels.items()},
        notes=(*notes, *drawn),
    )


def _value_range(training: Sequence[ScannedPair]) -> tuple[float, float]:
    """(0, 255) for 8-bit images; the training set's 0.5 to 99.5 percentiles for 16-bit ones."""
    images = [one.image for one in training if one.image]
    if all(image["depth"] == 8 for image in images):
        return 0.0, 255.0
    low, high = min(image["low"] for image in images), max(image["high"] for image in images)
    return float(low), float(max(high, low + 1))


def _statistics(
    training: Sequence[ScannedPair], channels: int, value_range: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all training pixels, on the 0..1 scale."""
    pixels, sums, squares = 0, np.zeros(channels), np.zeros(channels)
    for one in training:
        image = one.image or {}
        pixels += image["height"] * image["width"]
        sums += np.asarray(image["sum"])  # a grey image counts for every channel
        squares += np.asarray(image["sum_of_squares"])
    low, high = value_range
    mean = sums / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0)) / (high - low)
    unit = (mean - low) / (high - low)
    return tuple(round(float(v), 6) for v in unit), tuple(round(max(float(v), 1e-3), 6) for v in std)


def _class_pixels(one: ScannedPair, decoder: MaskDecoder) -> NDArray[np.int64]:
    """(K,) pixels of each class in one mask."""
    totals, mask = np.zeros(256, np.int64), one.mask or {}
    values = np.asarray(mask["values"], np.int64).reshape(-1, 2)
    classes = decoder.of_colours(values[:, 0].astype(np.int32)) if mask["coloured"] else decoder.values[values[:, 0]]
    np.add.at(totals, classes, values[:, 1])
    return totals[: decoder.table.count]


def _none(table: ClassTable) -> NDArray[np.int64]:
    return np.zeros(table.count, np.int64)


def _holding(counts: Sequence[NDArray[np.int64]], items: Sequence[Item], table: ClassTable) -> NDArray[np.int64]:
    """(K,) pixels of the images that hold each class."""
    return sum(
        (np.where(count > 0, item.height * item.width, 0) for count, item in zip(counts, items, strict=True)),
        _none(table),
    )
