"""An ONNX file read as protobuf, as far as its card, its content and its safety need: no package is imported for it.

Field numbers are those of onnx.proto (ModelProto, GraphProto, TensorProto, NodeProto).
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

from intarsia.engines.card import KEY
from intarsia.errors import IntegrityError

_METADATA, _GRAPH, _OPSETS = 14, 7, 8
_INITIALIZER, _EXTERNAL = 5, 13
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Sets of operators that the engines have; a file with others is not run."""


def read_onnx(path: Path) -> tuple[str | None, str]:
    """The card's text, if there is one, and the sha256 of all but the metadata.

    Raises:
        IntegrityError: the file is cut short or no ONNX, or it asks for other files or for operators of its own.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,
        ):
            return _read(data, path)
    except ValueError:  # an empty file cannot be mapped
        raise IntegrityError(f"{path}: is empty.") from None


def _read(data: memoryview, path: Path) -> tuple[str | None, str]:
    digest, card, graphs = hashlib.sha256(), None, 0
    try:
        for number, start, body, end in _fields(data, 0, len(data)):
            if number == _METADATA:
                key, value = _entry(data, body, end)
                card = value if key == KEY else card
                continue
            digest.update(data[start:end])
            if number == _OPSETS:
                _check_domain(data, body, end, path)
            if number == _GRAPH:
                graphs += 1
                _check_inside(data, body, end, path)
    except (IndexError, UnicodeDecodeError):
        raise IntegrityError(f"{path}: is cut short or damaged; it is no ONNX file that can be read.") from None
    if not graphs:
        raise IntegrityError(f"{path}: is no ONNX file (it holds no network).")
    return card, digest.hexdigest()


def _fields(data: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, start of the field, start of its content, end) of each field of a message.

    Raises:
        IndexError: a field goes beyond the message.
    """
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            length, at = _varint(data, at, end)
        elif kind == _VARINT:
            body = at
            _, at = _varint(data, at, end)
            yield number, start, body, at
            continue
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise IndexError
        if at + length > end:
            raise IndexError
        yield number, start, at, at + length
        at += length


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise IndexError
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _entry(data: memoryview, at: int, end: int) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    texts = {number: bytes(data[body:stop]).decode() for number, _, body, stop in _fields(data, at, end)}
    return texts.get(1, ""), texts.get(2, "")


def _check_domain(data: memoryview, at: int, end: int, path: Path) -> None:
    for number, _, body, stop in _fields(data, at, end):
        domain = bytes(data[body:stop]).decode() if number == 1 else ""
        if domain not in DOMAINS and not domain.startswith("pkg."):
            raise IntegrityError(f"{path}: needs operators of {domain!r}, which are not run. Known: ONNX's own.")


def _check_inside(data: memoryview, at: int, end: int, path: Path) -> None:
    for number, _, body, stop in _fields(data, at, end):
        if number == _INITIALIZER and any(inner == _EXTERNAL for inner, *_ in _fields(data, body, stop)):
            raise IntegrityError(
                f"{path}: keeps weights in another file, which is not read. Save the model with its weights inside."
            )
