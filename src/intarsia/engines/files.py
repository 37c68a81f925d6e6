"""Exported files: which there are, their cards, and whether they are what was written."""

from __future__ import annotations

import hashlib
import re
from html import unescape
from pathlib import Path

from intarsia.engines.card import KEY, Card, card_of
from intarsia.engines.onnx_file import read_onnx
from intarsia.errors import ConfigError, IntegrityError

SUFFIXES = (".onnx", ".xml")
"""Of ONNX, and of OpenVINO, whose weights lie beside it in a .bin file."""
_CARD = re.compile(rf'\s*<{KEY} value="([^"]*)"\s*/>')


def is_exported(path: Path) -> bool:
    """Whether a path names an exported file by its suffix."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def read_card(path: Path) -> Card:
    """The card of an exported file, after the file was held against it.

    Raises:
        ConfigError: the file is not there, or is not one of ours.
        IntegrityError: it is damaged.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: does not exist.")
    try:
        text, content = read_openvino(path) if path.suffix.lower() == ".xml" else read_onnx(path)
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read ({error.strerror}).") from None
    if text is None:
        raise ConfigError(
            f"{path}: has no card of intarsia, so classes and normalisation are unknown. Make it by  intarsia export RUN"
        )
    card = card_of(text, str(path))
    if card.content != content:
        raise IntegrityError(f"{path}: is not the file that was exported (sha256 differs). Copy it again.")
    return card


def read_openvino(path: Path) -> tuple[str | None, str]:
    """The card's text in a .xml, if there is one, and the sha256 of all else and of the .bin beside it.

    Raises:
        IntegrityError: one of the two is missing or is no such file.
    """
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise IntegrityError(f"{weights}: is missing; an OpenVINO model is two files, {path.name} and {weights.name}.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise IntegrityError(f"{path}: is no text; it is damaged, or no OpenVINO model.") from None
    found = _CARD.search(text)
    digest = hashlib.sha256(_CARD.sub("", text, count=1).encode())
    with weights.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return unescape(found[1]) if found else None, digest.hexdigest()
