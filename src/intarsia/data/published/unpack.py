"""Archives unpacked without trust: zip and tar, nothing outside the folder, no links, no devices, no bombs."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from intarsia.errors import FileError, SaveError
from intarsia.progress import Progress

SMALL = 1_000_000
"""Bytes of which the ratio is not asked."""


@dataclass(frozen=True)
class Limits:
    """What an archive may become."""

    bytes: int = 300_000_000_000
    """Of all files together."""
    ratio: float = 100.0
    """Bytes unpacked to bytes packed: of the archive, and of each file in a zip."""
    entries: int = 2_000_000


@dataclass
class _Count:
    """What has been promised by the archive's entries so far."""

    archive: Path
    limits: Limits
    packed: int
    bytes: int = 0
    entries: int = 0

    def add(self, name: str, size: int) -> None:
        """Count an entry.

        Raises:
            FileError: it is too much.
        """
        self.bytes, self.entries = self.bytes + size, self.entries + 1
        if self.entries > self.limits.entries:
            raise refused(self.archive, f"holds more than {self.limits.entries} files")
        if self.bytes > self.limits.bytes:
            raise refused(self.archive, f"unpacks to more than {self.limits.bytes / 1e9:g} GB, at {name}")
        if self.bytes > max(SMALL, self.limits.ratio * self.packed):
            raise refused(self.archive, f"unpacks to more than {self.limits.ratio:g} times its size, at {name}")


def refused(archive: Path, reason: str) -> FileError:
    return FileError(archive, "E_ARCHIVE", f"is not unpacked: it {reason}. Get it again from its source")


def unpack(archive: Path, folder: Path, progress: Progress, limits: Limits | None = None) -> None:
    """Unpack a zip or tar file below `folder`, which is made. What was written before a refusal stays in it.

    Raises:
        FileError: it is damaged, no such archive, too large, or has an entry that is no plain file below the folder.
        SaveError: the disk does not take the files.
    """
    count = _Count(archive, limits or Limits(), archive.stat().st_size)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder, progress, count)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, folder, progress, count)
        else:
            raise refused(archive, "is neither zip nor tar")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        raise refused(archive, f"is damaged or of a form that is not read ({error})") from None


def _unpack_zip(archive: Path, folder: Path, progress: Progress, count: _Count) -> None:
    with zipfile.ZipFile(archive) as file, _disk(folder):
        entries = file.infolist()
        for entry in entries:
            _target(archive, folder, entry.filename)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise refused(archive, f"holds a link or device, {entry.filename!r}")
            if entry.flag_bits & 1:
                raise refused(archive, f"is locked with a password, at {entry.filename!r}")
            if entry.file_size > max(SMALL, count.limits.ratio * entry.compress_size):
                raise refused(archive, f"has a file that unpacks to more than {count.limits.ratio:g} times its size")
            count.add(entry.filename, entry.file_size)
        _room(folder, count.bytes)
        done = 0
        with progress.task("unpack", count.bytes / 1e6) as task:
            for entry in entries:
                target = _target(archive, folder, entry.filename)
                if entry.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(entry) as source, target.open("wb") as out:  # never gives more than file_size bytes
                    shutil.copyfileobj(source, out, 1 << 20)
                done += entry.file_size
                task.update(done / 1e6, f"{archive.name} {done / 1e6:.0f} of {count.bytes / 1e6:.0f} MB")


def _unpack_tar(archive: Path, folder: Path, progress: Progress, count: _Count) -> None:
    """One pass, as a compressed tar has no table: each entry is looked at before it is written."""
    with tarfile.open(archive) as file, _disk(folder), progress.task("unpack", 0) as task:
        for entry in file:
            target = _target(archive, folder, entry.name)
            if not (entry.isreg() or entry.isdir()) or entry.issparse():
                raise refused(archive, f"holds a link, device or sparse file, {entry.name!r}")
            count.add(entry.name, entry.size)
            if entry.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                file.extract(entry, folder, set_attrs=False, filter="data")
            task.update(count.bytes / 1e6, f"{archive.name} {count.bytes / 1e6:.0f} MB")


def _target(archive: Path, folder: Path, name: str) -> Path:
    """Where an entry goes.

    Raises:
        FileError: its name leads out of the folder.
    """
    path = PurePosixPath(name)
    if not name or "\\" in name or "\0" in name or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise refused(archive, f"holds {name!r}, which leads out of its folder")
    return folder.joinpath(*path.parts)


def _room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise SaveError(f"{folder}: {wanted / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free. Make room.")


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Errors of the disk in words."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile):
        raise
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written ({error.strerror or error}). Make room.") from None
