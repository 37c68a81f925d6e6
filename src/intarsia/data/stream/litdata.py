"""litdata: folders of index.json and chunk-*.bin, one folder a split, whose items are {image, mask, instances, name}.

All are bytes: the first three those of files, empty where there is none, the name in UTF-8. litdata's own reader reads them, so
that what it knows (compression, later formats) is read as well; it is asked from one thread at a time.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from intarsia.data.stream.shards import KINDS, Member, Record, Shard
from intarsia.errors import FileError
from intarsia.optional import need

INDEX = "index.json"


class Reader:
    """The items of one folder by number."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock = folder, threading.Lock()
        self._opened: Any = None

    def field(self, number: int, kind: str, path: Path) -> bytes:
        """The bytes of an item.

        Raises:
            FileError: the chunk is damaged, or the item holds no such bytes.
            MissingExtra: litdata is not installed.
        """
        litdata = need("litdata", extra="stream")
        try:
            with self._lock:
                if self._opened is None:
                    self._opened = litdata.StreamingDataset(str(self.folder), shuffle=False)
                return bytes(self._opened[number][kind])
        except Exception as error:  # its reader raises all sorts over damage
            reason = f"cannot be read ({type(error).__name__}: {error}); copy the shard again"
            raise FileError(path, "E_CORRUPT", reason) from None

    def holds(self, number: int, kind: str, path: Path) -> bool:
        """Whether an item has such bytes."""
        try:
            return bool(self.field(number, kind, path))
        except FileError as error:
            if "KeyError" in error.reason:
                return False
            raise


def read_shards(root: Path, folder: Path, split: str | None, instances: Mapping[int, bool] | None) -> list[Shard]:
    """The chunks of a folder, in order.

    Args:
        instances: number of an item to whether it has single objects; None: nobody knows, all items are asked.

    Raises:
        FileError: index.json is missing or damaged, or a chunk is not as index.json says.
        MissingExtra: litdata is not installed.
    """
    need("litdata", extra="stream")
    reader, first, shards = Reader(folder), 0, []
    for chunk in _chunks(folder / INDEX):
        path = folder / chunk["filename"]
        count = int(chunk["chunk_size"])
        _check(path, count, int(chunk["chunk_bytes"]))
        records = []
        for number in range(first, first + count):
            members = {}
            for kind in KINDS:
                place = path / f"{number}-{kind}"
                known = True if kind != "instances" else None if instances is None else instances.get(number, False)
                if known or (known is None and reader.holds(number, kind, place)):
                    members[kind] = Member(place, partial(reader.field, number, kind, place))
            records.append(Record(str(number), members))
        shards.append(Shard(path.relative_to(root).as_posix(), path, split, tuple(records)))
        first += count
    return shards


def _chunks(index: Path) -> list[dict[str, Any]]:
    try:
        chunks: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))["chunks"]
        if all(Path(c["filename"]).name == c["filename"] and c["chunk_size"] + c["chunk_bytes"] > 0 for c in chunks):
            return chunks
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise FileError(index, "E_CORRUPT", "is missing or damaged; copy it again from its source")


def _check(path: Path, count: int, size: int) -> None:
    """The chunk against index.json: bytes, and the number of items that it begins with."""
    if not path.is_file():
        raise FileError(path, "E_MISSING", f"is missing; {INDEX} names it. Copy the shard again")
    if (met := path.stat().st_size) != size:
        raise FileError(path, "E_TRUNCATED", f"has {met} bytes, {INDEX} says {size}; copy the shard again")
    with path.open("rb") as file:
        start = file.read(4)
    if (
        path.suffix == ".bin"
        and ".zstd" not in path.name
        and len(start) == 4
        and struct.unpack("<I", start)[0] != count
    ):
        raise FileError(
            path,
            "E_CORRUPT",
            f"begins with {struct.unpack('<I', start)[0]} items, {INDEX} says {count}; copy the shard again",
        )


class Writer:
    """Writes chunks of about `most` bytes into the folder SPLIT.

    Raises:
        MissingExtra: litdata is not installed.
    """

    def __init__(self, folder: Path, split: str, most: int) -> None:
        need("litdata", extra="stream")
        cache = need("litdata.streaming", extra="stream").Cache
        self.folder, self.split = folder / split, split
        self.folder.mkdir()
        self.cache = cache(str(self.folder), chunk_bytes=most)
        self.counts: dict[str, int] = {}
        """Name of a shard to its records."""
        self.keys: list[tuple[str, str]] = []
        """Shard and key of each record, in the order in which they came."""
        self._added = 0

    def add(self, name: str, contents: Mapping[str, tuple[str, bytes]]) -> None:
        """A record: kind to ending and bytes."""
        self.cache[self._added] = {kind: contents.get(kind, ("", b""))[1] for kind in KINDS} | {"name": name.encode()}
        self._added += 1

    def close(self) -> None:
        """Write the last chunk and the index."""
        self.cache.done()
        self.cache.merge()
        for chunk in _chunks(self.folder / INDEX):
            shard = f"{self.split}/{chunk['filename']}"
            self.counts[shard] = int(chunk["chunk_size"])
            self.keys += [(shard, str(len(self.keys) + number)) for number in range(self.counts[shard])]
