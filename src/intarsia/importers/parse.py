"""JSON and XML of others, bounded: by size, by depth, without entities, without numbers that are none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from intarsia.errors import FileError

MOST_BYTES = 2 << 30
"""Of an annotation file."""
MOST_DEPTH = 64
"""Of brackets within brackets in JSON."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
"""A string of JSON, so that what stands in it is passed over; or a bracket."""


def read_json(path: Path) -> Any:
    """JSON, bounded.

    Raises:
        FileError: E_JSON, with the place. A key that stands twice with two values is refused, since one would be lost.
    """
    text = _text(path)
    depth = most = 0
    for token in _TOKEN.finditer(
        text if len(text) < 1 << 16 else ""
    ):  # of a large file the parser's own limit is relied on
        if (letter := token[0]) in ("[", "{"):
            depth += 1
            most = max(most, depth)
        elif letter in ("]", "}"):
            depth -= 1
    if most > MOST_DEPTH:
        raise FileError(path, "E_JSON", f"nests brackets more than {MOST_DEPTH} deep")
    try:
        return json.loads(text, parse_constant=_refused, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FileError(path, "E_JSON", f"is no JSON that is read ({str(error)[:100]})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for key, value in pairs:
            if found[key] != value:
                raise ValueError(f"the key {key[:60]!r} stands twice, with two values")
    return found


def _refused(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _text(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES:
        raise FileError(path, "E_TOO_LARGE", f"has more than {MOST_BYTES >> 20} MB")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(path, "E_JSON", f"is not UTF-8 (byte {error.start})") from None


def read_xml(path: Path) -> Element:
    """XML without entities.

    Raises:
        FileError: E_XML.
    """
    import defusedxml
    import defusedxml.ElementTree as SafeTree

    if path.stat().st_size > MOST_BYTES:
        raise FileError(path, "E_TOO_LARGE", f"has more than {MOST_BYTES >> 20} MB")
    try:
        root: Element | None = SafeTree.parse(path).getroot()
    except (ParseError, defusedxml.DefusedXmlException, ValueError, UnicodeError) as error:
        raise FileError(path, "E_XML", f"is no XML that is read ({str(error)[:100] or type(error).__name__})") from None
    if root is None:
        raise FileError(path, "E_XML", "is XML without an element")
    return root
