"""intarsia.json beside the shards: classes, splits, what a scan found in each file, and size, count and sha256 of each shard.

With it a data set of shards is opened without reading the images; without it every image is read once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from intarsia.data.stream.shards import Shard
from intarsia.errors import DataError, IntegrityError
from intarsia.progress import Progress
from intarsia.runs import file_sha256, write_text

NAME = "intarsia.json"
FORMAT = 1
AGAIN = "Copy the shard again, or convert the data again with `intarsia data convert`."


@dataclass(frozen=True)
class Noted:
    """What is said of a shard."""

    name: str
    items: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class NotedItem:
    """What is said of an item."""

    name: str
    split: str
    shard: str
    key: str
    image: dict[str, Any]
    """What a scan found in the image (scan.py); likewise of the mask."""
    mask: dict[str, Any]
    instances: bool


@dataclass(frozen=True)
class Manifest:
    """The content of intarsia.json."""

    kind: str
    """webdataset or litdata."""
    label: str
    classes: dict[str, Any]
    split_source: str
    bands: tuple[int, ...] | None
    """Bands of the images that are taken."""
    scan: int
    """Version of the scan (cache.py); the images are read again where it is another."""
    shards: tuple[Noted, ...]
    items: tuple[NotedItem, ...]

    def write(self, folder: Path) -> None:
        """One line an item."""
        head: dict[str, Any] = {"format": FORMAT, "kind": self.kind, "label": self.label, "classes": self.classes}
        head |= {"split_source": self.split_source, "bands": self.bands, "scan": self.scan}
        text = json.dumps(head, ensure_ascii=False)[:-1]
        for key, values in (("shards", self.shards), ("items", self.items)):
            lines = ",\n".join(json.dumps(vars(value), ensure_ascii=False) for value in values)
            text += f',\n"{key}": [\n{lines}\n]'
        write_text(folder / NAME, text + "}\n")


def read_manifest(folder: Path) -> Manifest | None:
    """What intarsia.json says; None where there is none.

    Raises:
        DataError: it is damaged, or of another format.
    """
    file = folder / NAME
    if not file.is_file():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise DataError(f"{file}: has format {stored['format']}, this intarsia reads {FORMAT}. Update intarsia.")
        manifest = Manifest(
            str(stored["kind"]),
            str(stored["label"]),
            dict(stored["classes"]),
            str(stored["split_source"]),
            tuple(stored["bands"]) if stored["bands"] else None,
            int(stored["scan"]),
            tuple(Noted(**one) for one in stored["shards"]),
            tuple(NotedItem(**one) for one in stored["items"]),
        )
        strange = [one.name for one in manifest.shards if not _lies_below(one.name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{file}: is damaged ({reason}). Copy it again, or convert the data again.") from None
    if strange or manifest.kind not in ("webdataset", "litdata"):
        met = f"a shard named {strange[0]!r}" if strange else f"shards of the kind {manifest.kind!r}"
        raise DataError(f"{file}: says {met}, which is not read. Convert the data again.")
    return manifest


def _lies_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def check_files(folder: Path, manifest: Manifest, progress: Progress, *, verify: bool) -> None:
    """Hold the shards' files against the manifest: there, as large, and with `verify` of the same sha256.

    Raises:
        IntegrityError: one is not.
    """
    for shard in manifest.shards:
        path = folder / shard.name
        if not path.is_file():
            raise IntegrityError(f"{path}: the shard is missing; {NAME} names {len(manifest.shards)}. {AGAIN}")
        if (size := path.stat().st_size) != shard.bytes:
            raise IntegrityError(f"{path}: the shard has {size} bytes, {NAME} says {shard.bytes}. {AGAIN}")
    if not verify:
        return
    with progress.task("verify", len(manifest.shards)) as task:
        for number, shard in enumerate(manifest.shards, 1):
            if file_sha256(folder / shard.name) != shard.sha256:
                raise IntegrityError(f"{folder / shard.name}: the shard's sha256 is not what {NAME} says. {AGAIN}")
            task.update(number, f"{number} of {len(manifest.shards)} shards")


def check_records(folder: Path, manifest: Manifest, shards: Sequence[Shard]) -> None:
    """Hold what the shards hold against the manifest: as many items, those that it lists, each image as large.

    Raises:
        IntegrityError: they do not.
    """
    listed: dict[str, list[NotedItem]] = {shard.name: [] for shard in manifest.shards}
    for item in manifest.items:
        if item.shard not in listed:
            raise IntegrityError(f"{folder / NAME}: {item.name} is said to be in {item.shard}, which is not listed.")
        listed[item.shard].append(item)
    met = {shard.name: shard for shard in shards}
    for noted in manifest.shards:
        path, shard = folder / noted.name, met.get(noted.name)
        records = {record.key: record for record in shard.records} if shard else {}
        counts: Mapping[str, int] = {"holds": len(records), "lists": len(listed[noted.name])}
        if {*counts.values()} != {noted.items}:
            raise IntegrityError(
                f"{path}: the shard holds {counts['holds']} items, {NAME} says {noted.items} and lists "
                f"{counts['lists']}. {AGAIN}"
            )
        for item in listed[noted.name]:
            for kind, facts in (("image", item.image), ("mask", item.mask)):
                member = records[item.key].members.get(kind) if item.key in records else None
                if member is None:
                    raise IntegrityError(f"{path}: the shard holds no {kind} of {item.key}, {NAME} does. {AGAIN}")
                if member.size is not None and member.size != facts["size"]:
                    raise IntegrityError(
                        f"{member.path}: has {member.size} bytes, {NAME} says {facts['size']}. {AGAIN}"
                    )
