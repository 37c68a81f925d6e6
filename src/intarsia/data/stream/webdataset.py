"""WebDataset: tar files whose members NAME.png and NAME.mask.png belong together.

A name ends at the first dot of its last part, as in WebDataset. The image's ending is png, jpg, jpeg, tif, tiff, webp or bmp;
the mask's is mask.png or seg.png (tif, tiff, bmp and gif are read as well), and instances.png may hold single objects. Members
of other endings are passed over. A tar file says where each member begins, so that each is read by itself, in any order.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from intarsia.data.stream.shards import Member, Record, Shard, described
from intarsia.errors import FileError
from intarsia.images.files import IMAGE_SUFFIXES, MASK_SUFFIXES
from intarsia.optional import need

_BLOCK = 512
_NAME = re.compile(r"^((?:.*/|)[^.]+)\.([^/]+)$")
_WORDS = {"mask": "mask", "seg": "mask", "instances": "instances"}


def read_shard(path: Path, name: str, split: str | None) -> Shard:
    """The records of a tar file; its headers are read, its content is not.

    Raises:
        FileError: the file is no tar file, damaged, or cut off; says at which byte.
    """
    found: dict[str, dict[str, Member]] = {}
    over: Counter[str] = Counter()
    notes: list[str] = []
    for info in _members(path, notes):
        match = _NAME.match(info.name)
        kind = _kind(match[2].lower()) if match and info.isreg() and not info.issparse() else None
        if match is None or kind is None:
            over[f".{match[2]}" if match else info.name] += not info.isdir()
            continue
        members = found.setdefault(match[1], {})
        if kind in members:
            notes.append(f"{name}: holds more than one {kind} of {match[1]}; {members[kind].path.name} is taken")
            continue
        read = partial(_read, path, info.name, info.offset_data, info.size)
        members[kind] = Member(described(path, info.name), read, info.size)
    if passed := +over:
        notes.append(f"{name}: {passed.total()} members are passed over, such as {', '.join(sorted(passed)[:3])}")
    return Shard(name, path, split, tuple(Record(key, members) for key, members in found.items()), tuple(notes))


def _kind(ending: str) -> str | None:
    word, dot, last = ending.rpartition(".")
    if not dot:
        return "image" if f".{last}" in IMAGE_SUFFIXES else None
    return _WORDS.get(word) if f".{last}" in MASK_SUFFIXES else None


def _members(path: Path, notes: list[str]) -> Iterable[tarfile.TarInfo]:
    """The headers, up to the mark at the end."""
    at = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                at = info.offset
                yield info
            at = archive.offset
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        code, what = ("E_TRUNCATED", "is cut off") if "end of data" in str(error) else ("E_CORRUPT", "is damaged")
        raise FileError(path, code, f"{what} at byte {at} ({error}); copy the shard again") from None
    with path.open("rb") as file:
        file.seek(at)
        mark = file.read(_BLOCK)
    if any(mark):  # tarfile ends without a word at what is no header
        raise FileError(path, "E_CORRUPT", f"is damaged at byte {at} (no tar header there); copy the shard again")
    if len(mark) < _BLOCK:
        notes.append(f"{path.name}: has no mark at its end; it may be cut off")


def _read(path: Path, name: str, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise FileError(described(path, name), "E_MISSING", f"cannot be read ({error.strerror})") from None
    if len(content) < size:
        raise FileError(
            described(path, name),
            "E_TRUNCATED",
            f"is cut off: {len(content)} of {size} bytes from byte {offset} on are there; copy the shard again",
        )
    return content


class Writer:
    """Writes tar files of at most `most` bytes (one record at least), SPLIT-000000.tar and so on.

    Raises:
        MissingExtra: webdataset is not installed.
    """

    def __init__(self, folder: Path, split: str, most: int) -> None:
        self.folder, self.split, self.most = folder, split, most
        self.tar = need("webdataset", extra="stream").TarWriter
        self.counts: dict[str, int] = {}
        """Name of a shard to its records."""
        self.keys: list[tuple[str, str]] = []
        """Shard and key of each record, in the order in which they came."""
        self._used: set[str] = set()
        self._bytes = 0
        self._open: tuple[IO[bytes], Any] | None = None

    def add(self, name: str, contents: Mapping[str, tuple[str, bytes]]) -> None:
        """A record: kind to ending and bytes."""
        size = sum(len(content) + 2 * _BLOCK for _, content in contents.values())
        if self._open is None or self._bytes + size > self.most:
            self._start()
        key = self._key(name)
        words = {"image": "", "mask": "mask", "instances": "instances"}
        parts = {f"{words[kind]}{ending}".lstrip("."): content for kind, (ending, content) in contents.items()}
        assert self._open is not None
        self._open[1].write({"__key__": key, **parts})
        shard = f"{self.split}-{len(self.counts) - 1:06d}.tar"
        self.counts[shard] += 1
        self.keys.append((shard, key))
        self._bytes += size

    def close(self) -> None:
        """Finish the last shard."""
        if self._open is not None:
            stream, tar = self._open
            tar.close()
            stream.close()
        self._open = None

    def _start(self) -> None:
        self.close()
        shard = f"{self.split}-{len(self.counts):06d}.tar"
        stream = (self.folder / shard).open("wb")
        self._open = stream, self.tar(stream, encoder=False, user="", group="", mtime=0)
        self.counts[shard], self._bytes = 0, 0

    def _key(self, name: str) -> str:
        """The name without dots in its last part, which would end it."""
        parent, slash, last = name.rpartition("/")
        plain = parent + slash + last.replace(".", "_")
        key, number = plain, 1
        while key in self._used:
            number += 1
            key = f"{plain}-{number}"
        self._used.add(key)
        return key
