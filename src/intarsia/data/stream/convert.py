"""Any data set that lies in files, written as shards."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from intarsia.classes import ClassTable
from intarsia.data.assemble import Entry, SourceConfig, mapped, split_reading
from intarsia.data.base import SPLITS
from intarsia.data.cache import VERSION
from intarsia.data.scan import mask_facts
from intarsia.data.stream import litdata, webdataset
from intarsia.data.stream.manifest import Manifest, Noted, NotedItem
from intarsia.errors import ConfigError, SaveError
from intarsia.images.files import read_mask, write_class_map
from intarsia.progress import Progress
from intarsia.runs import file_sha256, replace_folder

Kind = Literal["webdataset", "litdata"]


@dataclass(frozen=True)
class Converted:
    """What was written."""

    folder: Path
    items: dict[str, int]
    """Split to images."""
    shards: int
    bytes: int

    def text(self) -> str:
        counts = " · ".join(f"{count} {split}" for split, count in self.items.items())
        return f"{self.folder}: {counts} in {self.shards} shards, {self.bytes / 2**20:.1f} MiB"


def convert(source: SourceConfig, folder: Path, kind: Kind, progress: Progress, *, most: int = 256 << 20) -> Converted:
    """Write a data set, split as it is, as shards and intarsia.json.

    Files go in as they are. Only masks whose values mean other than the class table says, as after a class_map, are written
    anew, as palette PNG of class numbers.

    Args:
        folder: where to; must not exist, or be empty.
        most: bytes of a shard; one item at least.

    Raises:
        ConfigError: the folder holds something.
        DataError: the data cannot be used.
        MissingExtra: the package that writes such shards is not installed.
        SaveError: the disk does not take them.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists and is not empty; shards are written into a new folder. Give another.")
    reading = source.read(progress)
    if source.class_map:
        reading = mapped(reading, source.class_map)
    splits, split_source, _ = split_reading(reading, source)
    of_name = {entry.item.name: entry for entry in reading.entries}
    where: dict[str, str] = {}
    for split in SPLITS:
        for item in splits[split]:
            where.setdefault(item.name, split)
    plain = all(entry.decoder.meaning == reading.table.to_text() for entry in reading.entries)
    table = reading.table if plain else ClassTable(names=reading.table.names, colors=reading.table.colors)
    bands = {entry.item.bands for entry in reading.entries}
    if len(bands) > 1:
        raise ConfigError("data.bands: differ between the parts; shards have the same of all. Convert each by itself.")
    aside = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        shards, items = _packed(aside, kind, most, of_name, where, None if plain else table, progress)
        noted = tuple(
            Noted(name, count, (aside / name).stat().st_size, file_sha256(aside / name))
            for name, count in shards.items()
        )
        written = Manifest(
            kind, reading.label, table.to_dict(), split_source, bands.pop(), VERSION, noted, tuple(items)
        )
        written.write(aside)
        if folder.is_dir():
            folder.rmdir()
        replace_folder(aside, folder)
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written ({error.strerror or error}). Choose another place.") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    counts = {split: sum(of == split for of in where.values()) for split in SPLITS if split in where.values()}
    return Converted(folder, counts, len(noted), sum(one.bytes for one in noted))


def _packed(
    folder: Path,
    kind: Kind,
    most: int,
    of_name: Mapping[str, Entry],
    where: Mapping[str, str],
    table: ClassTable | None,
    progress: Progress,
) -> tuple[dict[str, int], list[NotedItem]]:
    """The shards of every split: images in each, and each item's place. With a table masks are written anew."""
    shards: dict[str, int] = {}
    items: list[NotedItem] = []
    with progress.task("convert", len(where)) as task:
        for split in SPLITS:
            entries = [of_name[name] for name, of in where.items() if of == split]
            if not entries:
                continue
            writer = (webdataset if kind == "webdataset" else litdata).Writer(folder, split, most)
            facts = []
            for entry in entries:
                contents, mask = _contents(entry, table)
                writer.add(entry.item.name, contents)
                facts.append(mask)
                task.update(len(items) + len(facts), f"{len(items) + len(facts)} of {len(where)} images and masks")
            writer.close()
            shards |= writer.counts
            items += [
                NotedItem(e.item.name, split, at[0], at[1], _kept(e.image), _kept(mask), e.item.instances is not None)
                for e, at, mask in zip(entries, writer.keys, facts, strict=True)
            ]
    return shards, items


def _contents(entry: Entry, table: ClassTable | None) -> tuple[dict[str, tuple[str, bytes]], dict[str, Any]]:
    """Kind to ending and bytes, and what a scan finds in the mask; with a table the mask is written anew."""
    item = entry.item
    files = {"image": item.image, "mask": item.mask, "instances": item.instances}
    contents = {kind: (file.suffix.lower(), file.read_bytes()) for kind, file in files.items() if file}
    if table is None or item.mask is None:
        return contents, dict(entry.mask)
    classes = entry.decoder(item.mask, read_mask(item.mask))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mask.png"
        write_class_map(file, classes, table)
        content = file.read_bytes()
        facts = {**mask_facts(file), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {**contents, "mask": (".png", content)}, facts


def _kept(facts: Any) -> dict[str, Any]:
    """Facts without the time of a file that is not there any more."""
    return {key: value for key, value in facts.items() if key != "time"}
