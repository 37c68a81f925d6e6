"""Files against the hashes that a folder lists: `SHA256SUMS`, as `sha256sum images/* masks/* > SHA256SUMS` writes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from intarsia.data.checks import Findings
from intarsia.data.scan import ScannedPair
from intarsia.errors import DataError

NAMES = ("SHA256SUMS", "SHA256SUMS.txt", "sha256sums.txt")
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")


def check_hashes(found: Findings, scanned: Sequence[ScannedPair], root: Path) -> None:
    """Add the images and masks that are not what the list says; a file that is not listed is passed over.

    Raises:
        DataError: the list cannot be read.
    """
    file = next((root / name for name in NAMES if (root / name).is_file()), None)
    if file is None:
        return
    listed = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if not match and line.strip():
            raise DataError(f"{file}: line {number} is no sha256 and path. Write it with: sha256sum images/* masks/*")
        if match:
            listed[root / match[2]] = match[1].lower()
    other = [
        found.name(path)
        for one in scanned
        for path, facts in ((one.pair.image, one.image), (one.pair.mask, one.mask))
        if path in listed and facts and facts.get("sha256", listed[path]) != listed[path]
    ]
    found.add(
        "E_HASH",
        f"file is not what {file.name} says",
        other,
        f"copy it again from its source; if the change was meant, write {file.name} anew",
    )
