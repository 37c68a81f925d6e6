"""Published data sets fetched: what is open is downloaded, unpacked and opened; for the rest the steps are said.

A download lies in DIR/.archives until everything is unpacked and opens. The sha256 of each archive is recorded in
DIR/.archives/sha256.json; where none is known here, what is recorded holds from then on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from intarsia.data.base import DATASETS, Dataset
from intarsia.data.published.base import Published
from intarsia.data.published.sheet import Archive, Sheet
from intarsia.data.published.unpack import Limits, unpack
from intarsia.downloads import fetch
from intarsia.errors import DataError, IntegrityError, SaveError, UnknownName, UsageError
from intarsia.progress import Progress
from intarsia.registry import did_you_mean
from intarsia.runs import file_sha256


def published(name: str) -> Published:
    """The data set of a name.

    Raises:
        UnknownName: no published data set has it.
    """
    if name not in DATASETS or not isinstance(known := DATASETS[name], Published):
        hint = did_you_mean(name, published_names())
        raise UnknownName(f"data: there is no published data set {name!r}.{hint} `intarsia data list` shows them.")
    return known


def published_names() -> list[str]:
    """Names of all published data sets."""
    return [name for name in DATASETS.names() if isinstance(DATASETS[name], Published)]


def steps(name: str) -> str:
    """How one gets a data set, a step a line, with its licence and source."""
    sheet = published(name).sheet
    lines = [f"{sheet.title}. Licence: {sheet.licence}. {sheet.source}"]
    if sheet.open:
        lines.append(f"Open to download: `intarsia data download {name}` fetches {_size(sheet)}.")
    told = [*sheet.steps, f"Check it:  intarsia data download {name} --to DIR", f"Use it:  data={name} data.path=DIR"]
    lines += [f"{number}. {step}" for number, step in enumerate(told, 1)]
    lines.append(f"Expected below DIR: {sheet.layout}.")
    return "\n".join(lines)


def _size(sheet: Sheet) -> str:
    total = sum(archive.megabytes for archive in sheet.archives)
    known = all(archive.megabytes for archive in sheet.archives)
    return f"{len(sheet.archives)} files" + (f", about {total / 1000:.1f} GB" if known else ", many GB")


def download(name: str, folder: Path, progress: Progress, limits: Limits | None = None) -> Dataset:
    """The data set in `folder`, opened; downloaded and unpacked first if it is open and not there yet.

    Raises:
        UnknownName: no published data set has this name.
        DataError: what lies there is not the data set; for one that is not open, with the steps.
        DownloadError, IntegrityError, SaveError: an archive could not be fetched, is another one, or there is no room.
    """
    config = published(name)
    folder = folder.expanduser()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file. Give a folder with --to.")
    if _holds_something(folder):
        return _opened(config, folder, progress)
    if not config.sheet.open:
        raise DataError(
            f"{folder}: holds nothing, and {config.sheet.title} cannot be downloaded openly.\n{steps(name)}"
        )
    archives, unpacked = folder / ".archives", folder / ".unpacking"
    files = [(archive, _fetched(archive, archives, progress)) for archive in config.sheet.archives]
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        for archive, file in files:
            unpack(file, unpacked / archive.into, progress, limits)
        for child in sorted(unpacked.iterdir()):
            child.rename(folder / child.name)
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written ({error.strerror or error}). Make room.") from None
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    dataset = _opened(config, folder, progress)
    for _, file in files:
        file.unlink(missing_ok=True)
    return dataset


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(not child.name.startswith(".") for child in folder.iterdir())


def _opened(config: Published, folder: Path, progress: Progress) -> Dataset:
    progress.note(f"{folder}: opening it as {config.name}")
    return config.replace({"path": str(folder)}).open(progress)


def _fetched(archive: Archive, folder: Path, progress: Progress) -> Path:
    """The archive's file, held against what is known of it; its sha256 is recorded."""
    record = folder / "sha256.json"
    recorded = _recorded(record)
    known = archive.sha256 or recorded.get(archive.url)
    path = fetch(archive.url, folder / archive.file_name, sha256=known, progress=progress)
    if archive.md5 and (got := _md5(path)) != archive.md5:
        path.unlink()
        raise IntegrityError(
            f"{path.name}: what came from {archive.url} is not the published file (md5 expected {archive.md5}, got {got}); "
            f"it was removed. Try again, or put the file into {folder} by hand."
        )
    if known is None:
        recorded[archive.url] = file_sha256(path)
        record.write_text(json.dumps(recorded, indent=1))
    return path


def _recorded(record: Path) -> dict[str, str]:
    try:
        content = json.loads(record.read_text())
    except (OSError, ValueError):
        return {}
    return {str(url): str(digits) for url, digits in content.items()} if isinstance(content, dict) else {}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
