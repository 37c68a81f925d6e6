"""Where things are kept between runs: what a scan found in each file, keyed by size, time of change and content hash."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from intarsia.downloads import cache_folder
from intarsia.runs import file_sha256

VERSION = 3
SAVE_SECONDS = 20.0
"""A long scan is saved so often, and when it is stopped."""


class ScanCache:
    """What is known of the files below a folder. An unreadable or old cache is as none; one that cannot be written is lost
    without harm."""

    def __init__(self, root: Path) -> None:
        digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:24]
        self.path = cache_folder() / "scans" / f"{digest}.json"
        self.records: dict[str, dict[str, Any]] = {}
        self.changed, self.saved = False, time.monotonic()
        self.lock = threading.Lock()
        try:
            stored = json.loads(self.path.read_text())
            if stored.get("version") == VERSION:
                self.records = stored["files"]
        except (OSError, ValueError, KeyError, AttributeError):
            pass

    def get(self, path: Path, kind: str) -> dict[str, Any] | None:
        """The record of a file that has not changed since: same size and time, or same content."""
        record = self.records.get(f"{kind}:{path}")
        if record is None:
            return None
        stat = path.stat()
        if record["size"] != stat.st_size:
            return None
        if record["time"] != stat.st_mtime_ns:
            if record["sha256"] != file_sha256(path):
                return None
            record["time"], self.changed = stat.st_mtime_ns, True
        return record

    def put(self, path: Path, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Remember what was found in a file."""
        stat = path.stat()
        record = {"size": stat.st_size, "time": stat.st_mtime_ns, "sha256": file_sha256(path), **facts}
        with self.lock:  # a save on the way walks through the records
            self.records[f"{kind}:{path}"], self.changed = record, True
        return record

    def save_now_and_then(self) -> None:
        """`save`, if the last one is long ago."""
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write aside, then rename, so that a reader never meets half a file."""
        if not self.changed:
            return
        with self.lock:
            text, self.changed, self.saved = (
                json.dumps({"version": VERSION, "files": self.records}),
                False,
                time.monotonic(),
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside = self.path.with_suffix(f".{os.getpid()}.tmp")
            aside.write_text(text)
            aside.replace(self.path)
        except OSError:
            pass
