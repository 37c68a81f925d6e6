"""What both kinds of shards are to the rest: named pieces of bytes, read one by one wherever they lie.

Nothing is unpacked. A member's path, SHARD/NAME, says where it is and is never opened; decoders, which take files, get its
bytes in a file of our own naming, in memory where the system has a folder there, for as long as they read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from intarsia.errors import DataError, FileError

KINDS = ("image", "mask", "instances")
MEMORY = Path("/dev/shm")
"""A folder in memory, on Linux."""
_STARTS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"BM": ".bmp",
    b"GIF8": ".gif",
}


@dataclass(frozen=True)
class Member:
    """A file in a shard."""

    path: Path
    """SHARD/NAME, for people; unique in a data set."""
    read: Callable[[], bytes]
    """
    Raises:
        FileError: the shard is not what it was when it was opened.
    """
    size: int | None = None
    """Bytes, where the shard says it without being read."""


@dataclass(frozen=True)
class Record:
    """An image and what belongs to it."""

    key: str
    """Its name within the shard."""
    members: Mapping[str, Member]
    """Kind, one of `KINDS`, to member."""


@dataclass(frozen=True)
class Shard:
    """A file of records."""

    name: str
    """Its path below the data set's folder."""
    path: Path
    split: str | None
    """What its name says: train, val or test."""
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def described(shard: Path, name: str) -> Path:
    """SHARD/NAME; what would lead out of the shard is left out of the name."""
    return shard.joinpath(*(part for part in PurePosixPath(name).parts if part not in ("/", ".", "..")))


@contextmanager
def as_file(member: Member) -> Iterator[Path]:
    """The member's bytes as a file; errors that name the file name the member instead.

    Raises:
        FileError: the member cannot be read.
    """
    content = member.read()
    file = _written(content, member.path.suffix or _ending(content))
    try:
        yield file
    except FileError as error:
        raise FileError(member.path if error.path == file else error.path, error.code, error.reason) from None
    except DataError as error:
        raise DataError(str(error).replace(str(file), str(member.path))) from None
    finally:
        file.unlink(missing_ok=True)


def _written(content: bytes, suffix: str) -> Path:
    """A new file that holds the bytes."""
    last: OSError | None = None
    for folder in (str(MEMORY) if os.access(MEMORY, os.W_OK) else None, None):  # the second time: memory was full
        try:
            handle, name = tempfile.mkstemp(suffix=suffix, prefix="intarsia-", dir=folder)
        except OSError as error:
            last = error
            continue
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            return Path(name)
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            last = error
    raise DataError(f"{tempfile.gettempdir()}: takes no file of {len(content)} bytes ({last}). Make room there.")


def _ending(content: bytes) -> str:
    """The ending of a picture, by its first bytes."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    return next((ending for start, ending in _STARTS.items() if content.startswith(start)), "")
