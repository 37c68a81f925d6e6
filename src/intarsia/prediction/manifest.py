"""`manifest.jsonl` of a folder of predictions: a line for each input, with the hashes that make it repeatable and checkable.

A line is appended when all results of an input lie under their names; a later line on the same input replaces an earlier
one. An input whose line says "done" for the same content, model and settings, and whose results are still what was written,
needs no second prediction.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from intarsia.config import digest_of
from intarsia.errors import SaveError
from intarsia.runs import file_sha256

NAME = "manifest.jsonl"
Record = dict[str, Any]


def content_sha256(path: Path) -> str:
    """sha256 of a file, or of the names and contents of all files of a folder."""
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        if each.is_file():
            digest.update(f"{each.relative_to(path).as_posix()}\0{file_sha256(each)}\n".encode())
    return digest.hexdigest()


def key_of(content: str, model: str, settings: Mapping[str, Any]) -> str:
    """Stands for what a result depends on: the input's content, the model's weights, the settings."""
    return digest_of([content, model, settings])


class Manifest:
    """The records of an output folder.

    Raises:
        SaveError: a line cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        self.records: dict[str, Record] = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    self.records[record["image"]] = record
                except (ValueError, KeyError, TypeError):
                    continue  # a line that a kill cut off: its input is predicted again

    def is_done(self, image: Path, key: str) -> bool:
        """Whether the results of an input lie there, unchanged."""
        record = self.records.get(str(image), {})
        if record.get("status") != "done" or record.get("key") != key:
            return False
        return all(self._is_whole(name, digest) for name, digest in record["outputs"].items())

    def _is_whole(self, name: str, digest: str) -> bool:
        path = self.folder / name
        return path.exists() and content_sha256(path) == digest

    def add(self, record: Record) -> None:
        """Append a line, flushed to disk."""
        self.records[record["image"]] = record
        text = json.dumps({**record, "at": datetime.now(UTC).isoformat(timespec="seconds")}, ensure_ascii=False)
        try:
            with self.path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    text = text if file.read(1) == b"\n" else "\n" + text  # a kill cut the last line off
                file.write(f"{text}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SaveError(f"{self.path}: cannot be written ({error.strerror}).") from None


def digests(folder: Path, outputs: Iterable[Path]) -> dict[str, str]:
    """File names below `folder` to sha256."""
    return {path.relative_to(folder).as_posix(): content_sha256(path) for path in outputs}
