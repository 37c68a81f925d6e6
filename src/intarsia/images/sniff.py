"""What a file is by its bytes, where its name or a decoder does not tell."""

from __future__ import annotations

import struct
from pathlib import Path

_KINDS = (
    (b"<svg", "SVG, a drawing"),
    (b"<", "HTML or XML"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript or EPS"),
    (b"\xc5\xd0\xd3\xc6", "PostScript or EPS"),
    (b"PK", "a zip archive"),
    (b"{", "JSON"),
    (b"\x93NUMPY", "NumPy data"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x89HDF", "HDF5 data"),
)
_ENDINGS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
}
_LAST = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
"""The bytes that end a file of a format."""
_SAMPLES_PER_PIXEL = 277


def kind_of(path: Path) -> str:
    """What a file that is no image seems to be, in words."""
    with path.open("rb") as file:
        start = file.read(65536)
    if start[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(start)
    if b"<svg" in start[:1024]:
        return "it is SVG, a drawing"
    for magic, kind in _KINDS:
        if start.lstrip().startswith(magic):
            return f"it is {kind}"
    try:
        start[:512].decode("utf-8")
    except UnicodeDecodeError:
        return "its content is unknown"
    return "it is a text file"


def _tiff(start: bytes) -> str:
    """Why a TIFF is not read: its bands and their depth."""
    order = "<" if start[:2] == b"II" else ">"
    try:
        (place,) = struct.unpack_from(order + "I", start, 4)
        (count,) = struct.unpack_from(order + "H", start, place)
        bands = 1
        for at in range(place + 2, place + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", start, at) == (_SAMPLES_PER_PIXEL,):
                (bands,) = struct.unpack_from(order + "H", start, at + 8)
    except struct.error:
        return "it is a TIFF whose description is damaged or far from its start"
    return f"it is a TIFF of {bands} bands in a form that is not read; save 1 or 3 bands of 8 bits, or 1 of 16"


def is_without_area(path: Path) -> bool:
    """Whether a PNG says that a side has no pixel."""
    with path.open("rb") as file:
        start = file.read(24)
    return start[:8] == b"\x89PNG\r\n\x1a\n" and len(start) == 24 and 0 in struct.unpack(">II", start[16:24])


def true_ending(fmt: str) -> str:
    """The ending that a format's files have: ".png"."""
    return _ENDINGS[fmt][0]


def notes_on(path: Path, fmt: str) -> list[str]:
    """What a person should know of a file that decodes well."""
    notes = []
    if path.suffix.lower() not in _ENDINGS.get(fmt, (path.suffix.lower(),)):
        notes.append(f"{fmt} under another format's ending")
    if junk_after(path, fmt):
        notes.append("bytes after the end of the image")
    return notes


def junk_after(path: Path, fmt: str) -> int:
    """How many bytes follow the end of a PNG or JPEG; padding with zeros and line ends is none."""
    last = _LAST.get(fmt)
    if last is None:
        return 0
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - len(last)))
        if file.read() == last:
            return 0
        file.seek(0)
        content = file.read().rstrip(b"\0\r\n ")
    end = content.rfind(last)
    return 0 if end < 0 else len(content) - end - len(last)
