"""Which targets of a command are annotation exports."""

from __future__ import annotations

from pathlib import Path

from intarsia.data.layout import find_places, is_laid_out
from intarsia.errors import DataError
from intarsia.importers.base import Files, find_format, formats_of

EXPORTS = frozenset({".json", ".xml", ".geojson"})
"""Endings of files that may be a whole export."""


def is_export(path: Path) -> bool:
    """Whether there is an annotation export at a path; not, where images and masks lie as in a data folder of ours."""
    if not path.exists() or (path.is_dir() and is_laid_out(path)):
        return False
    return bool(formats_of(Files(path)))


def refuse_unknown(path: Path) -> None:
    """Raise DataError over a folder that is neither laid out as ours nor an export; it says what was tried."""
    try:
        find_places(path)
    except DataError as error:
        try:
            find_format(Files(path))
        except DataError as other:
            raise DataError(f"{error} {other}") from None
