"""An ONNX file as OpenVINO's own two: the network and its card in NAME.xml, the weights in NAME.bin beside it."""

from __future__ import annotations

import html
from pathlib import Path

from intarsia.engines.card import KEY, Card, card_text
from intarsia.engines.files import read_openvino
from intarsia.errors import ConfigError, SaveError, reason_of
from intarsia.optional import need
from intarsia.runs import write_bytes

_END = "</rt_info>"


def write_openvino(onnx: Path, card: Card, path: Path) -> Card:
    """Convert a file of `write_onnx`, quantised or not; weights stay float32 where they are not quantised.

    Args:
        path: of the .xml.

    Returns:
        The card, with the `content` of both files.

    Raises:
        MissingExtra: OpenVINO is not installed.
        ConfigError: OpenVINO cannot convert the network.
        SaveError: the disk does not take the files.
    """
    openvino = need("openvino", extra="export")
    try:
        network = openvino.convert_model(str(onnx))
        openvino.save_model(network, str(path), compress_to_fp16=False)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error.strerror}).") from None
    except Exception as error:  # RuntimeError of many words
        reason = reason_of(error, line=-1)
        raise ConfigError(f"{card.model} cannot be written for OpenVINO: {reason}") from None
    _put(path, _without_origin(path.read_bytes().decode()))
    return change_card(path, card)


def change_card(path: Path, card: Card) -> Card:
    """Give an .xml a card, or another one; the network stays.

    Returns:
        The card, with `content`.
    """
    old, content = read_openvino(path)
    card = card.replace(content=content)
    text = path.read_bytes().decode()
    if old is not None:
        start = text.rindex(f"<{KEY} value=")
        head, tail = text[:start].rstrip(), text[text.index("/>", start) + len("/>") :]
    else:
        end = text.rindex(_END)
        head, tail = text[:end].rstrip(), text[len(text[:end].rstrip()) :]
    _put(path, f'{head}\n\t\t<{KEY} value="{html.escape(card_text(card))}" />{tail}')
    return card


def _without_origin(text: str) -> str:
    """The text without what it repeats of the ONNX file's metadata, the card among it; with a place for ours."""
    start, end = text.find("<framework>"), text.rfind("</framework>")
    if start >= 0 and end > start and not text[end:].count("<layer"):
        text = text[:start].rstrip() + text[end + len("</framework>") :]
    tail = text[text.rindex("</edges>") if "</edges>" in text else 0 :]
    return text if _END in tail else text.replace("</net>", f"\t<rt_info>\n\t{_END}\n</net>")


def _put(path: Path, text: str) -> None:
    write_bytes(path, text.encode())
