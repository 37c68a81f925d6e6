"""Several data sets as one.

    data:
      name: combined
      parts:
        - {name: cityscapes, path: /data/cityscapes, class_map: {rider: person}}
        - {name: folder, path: ours/, class_map: {street: road, "*": ignore}}

Each part keeps its own split; classes of one name are one class. Masks stay as they are: each is read by its own part's table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from intarsia.data.assemble import Entry, Reading, SourceConfig, mapped, split_reading, with_classes
from intarsia.data.base import DATASETS, SPLITS, DataConfig
from intarsia.data.classmap import merged_table, numbers
from intarsia.data.layout import read_splits
from intarsia.errors import ConfigError, DataError
from intarsia.progress import Progress
from intarsia.registry import did_you_mean


def _resolved(parts: Any) -> Any:
    """Each part as a config, with whole paths, so that a recipe can be read from anywhere."""
    if isinstance(parts, str | Mapping) or not isinstance(parts, Sequence):
        raise ValueError("must be a list of data sets, such as [{name: folder, path: a/}, {name: camvid, path: b/}]")
    configs = []
    for part in parts:
        config = DATASETS.resolve({"name": "folder", **part} if isinstance(part, Mapping) else part)
        path = config.to_dict().get("path")
        configs.append(config.replace({"path": os.path.abspath(os.path.expanduser(path))}) if path else config)
    return tuple(configs)


@DATASETS.family("combined")
class CombinedConfig(SourceConfig):
    """Several data sets as one, their classes joined by name."""

    parts: Annotated[tuple[SerializeAsAny[DataConfig], ...], BeforeValidator(_resolved)] = ()
    """The data sets: a list of settings, each with its name, path and perhaps class_map."""
    names: tuple[str, ...] = ()
    """Order of the classes; empty: as they appear, part by part."""
    splits: str | None = None
    """File of names, {train: [...], val: [...], test: [...]}, as a run writes it; null: each part's own."""

    def read(self, progress: Progress) -> Reading:
        if not self.parts:
            raise ConfigError("data.parts: is empty; list the data sets, such as [{name: folder, path: a/}].")
        readings = [self._part(number, part, progress) for number, part in enumerate(self.parts)]
        table = merged_table([(reading.table, reading.table.names) for reading in readings], self.names)
        depths = {entry.image["depth"] for reading in readings for entry in reading.entries}
        if len(depths) > 1:
            raise DataError(
                "data.parts: 8-bit, 16-bit or floating-point images are mixed; their values cannot be compared."
            )
        bands = {reading.channels for reading in readings}
        if len(bands) > 1 and bands != {1, 3}:
            met = ", ".join(f"{reading.label} {reading.channels}" for reading in readings)
            raise DataError(
                f"data.parts: the images have different bands ({met}); take the same of each with its `bands`."
            )
        labels = [reading.label for reading in readings]
        entries: list[Entry] = []
        for number, (reading, label) in enumerate(zip(readings, labels, strict=True)):
            prefix = label if labels.count(label) == 1 else f"{label}-{number}"
            joined = with_classes(reading, table, numbers(reading.table.names, table))
            entries += [replace(e, item=replace(e.item, name=f"{prefix}/{e.item.name}")) for e in joined.entries]
        notes = [f"{label}: {note}" for reading, label in zip(readings, labels, strict=True) for note in reading.notes]
        combined = Reading(
            label="+".join(labels),
            root=Path(os.path.commonpath([reading.root.resolve() for reading in readings])),
            entries=tuple(entries),
            table=table,
            table_source=", ".join(f"{reading.label}: {reading.table_source}" for reading in readings),
            split_source="; ".join(f"{reading.label}: {reading.split_source}" for reading in readings),
            channels=max(reading.channels for reading in readings),
            notes=tuple(notes),
        )
        return _relisted(combined, Path(self.splits).expanduser()) if self.splits else combined

    def _part(self, number: int, part: DataConfig, progress: Progress) -> Reading:
        """A part, with its class map and its split."""
        if not isinstance(part, SourceConfig):
            raise ConfigError(f"data.parts: number {number} ({part.name}) cannot be combined.")
        reading = part.read(progress)
        if part.class_map:
            reading = mapped(reading, part.class_map)
        splits, source, notes = split_reading(reading, part)
        where: dict[str, str] = {}
        for split in SPLITS:
            for item in splits[split]:
                where.setdefault(item.name, split)
        entries = tuple(replace(e, split=where[e.item.name]) for e in reading.entries if e.item.name in where)
        return replace(reading, entries=entries, split_source=source, notes=(*reading.notes, *notes))


def _relisted(reading: Reading, file: Path) -> Reading:
    """The images that a file lists, in its split.

    Raises:
        DataError: it is no file of lists, or names an image that is not there.
    """
    where = read_splits(file)
    known = {entry.item.name for entry in reading.entries}
    if missing := sorted(where.keys() - known):
        hint = did_you_mean(missing[0], known)
        raise DataError(f"{file}: lists {len(missing)} names without an image, first {missing[0]!r}.{hint}")
    entries = tuple(replace(e, split=where[e.item.name]) for e in reading.entries if e.item.name in where)
    return replace(reading, entries=entries, split_source=file.name)
