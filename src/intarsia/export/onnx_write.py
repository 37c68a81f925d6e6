"""Any model as one ONNX file: batch, height and width free, weights inside, its card in the metadata.

image (N, C, H, W) or (N, H, W, C)  ->  network  ->  logits (N, K, h, w) or classes (N, h, w)
"""

from __future__ import annotations

import gc
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from intarsia import optional
from intarsia.engines.card import KEY, Card, card_text
from intarsia.engines.onnx_file import read_onnx
from intarsia.errors import ConfigError, SaveError
from intarsia.export.traceable import Traceable, border_rule
from intarsia.images.ranges import BYTES
from intarsia.models.base import SegmentationModel
from intarsia.models.encoders.timm import same_padding_in_integers

OPSET = 18
LARGEST = 2**31 - 2**24
"""Bytes of weights that a file can hold, with room for the rest; protobuf ends at 2 GiB."""
EXAMPLE = (2, 225, 307)
"""(N, H, W) that the network is followed at: sides that no stride divides, so that every padding is met."""
LOUD = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
_METADATA_TAG = b"\x72"  # field 14 of ModelProto, bytes
_ESCAPES = re.compile(r"\x1b?\[\d+m")


def write_onnx(model: SegmentationModel, card: Card, path: Path) -> Card:
    """Write the model, as the card says it; nothing is left behind where that fails.

    Returns:
        The card, with `border` and the file's `content`.

    Raises:
        MissingExtra: a package is not installed.
        ConfigError: the model cannot be followed, or is too large.
        SaveError: weights that are not finite, or a disk that does not take the file.
    """
    for package in ("onnx", "onnxscript"):
        optional.require(package, extra="export")
    check_weights(model, path)
    traceable = Traceable(model, card.preprocess, input=card.input, output=card.output)
    program = _program(traceable, example(model, card), card.model)
    _name(program.model, card)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        program.save(aside, external_data=False)
        card = card.replace(border=border_rule(model), content=read_onnx(aside)[1])
        with aside.open("ab") as file:
            file.write(_field(card))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error.strerror}).") from None
    finally:
        aside.unlink(missing_ok=True)
    return card


def change_card(path: Path, card: Card) -> None:
    """Give a file of `write_onnx` another card; its network stays.

    Raises:
        SaveError: the disk does not take it, or the file's card does not stand at its end.
    """
    text, content = read_onnx(path)
    old = _entry(text or "")
    try:
        with path.open("r+b") as file:
            file.seek(-min(len(old), path.stat().st_size), os.SEEK_END)
            start = file.tell()
            if text is None or file.read() != old:
                raise SaveError(
                    f"{path}: its card cannot be changed, another program wrote it. Export the model again."
                )
            file.seek(start)
            file.write(_field(card.replace(content=content)))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error.strerror}).") from None


def check_weights(model: SegmentationModel, path: Path) -> None:
    """Whether a file can hold the weights.

    Raises:
        SaveError: some are not finite.
        ConfigError: they are too large.
    """
    state = model.state_dict()
    bad = [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise SaveError(f"{path}: not written, {len(bad)} tensors hold numbers that are not finite, first {bad[0]}.")
    size = 4 * sum(value.numel() for value in state.values())
    if size > LARGEST:
        raise ConfigError(
            f"{_named(model)} cannot be written as ONNX: weights of {size / 2**30:.1f} GiB, a file holds 2. "
            "Take a smaller model."
        )


def example(model: SegmentationModel, card: Card) -> Tensor:
    """An input of the kind that the card names."""
    num, height, width = EXAMPLE
    height, width = model.input_size(height, width)
    if card.input == "normalised":
        return torch.zeros(num, card.preprocess.channels, height, width)
    kind = torch.uint8 if card.preprocess.value_range == BYTES else torch.float32
    return torch.zeros(num, height, width, card.preprocess.channels, dtype=kind)


def _program(traceable: Traceable, image: Tensor, name: str) -> Any:
    """The network followed, and written down in ONNX's operators.

    Raises:
        ConfigError: with the exporter's reason in one line.
    """
    free = (
        {0: "batch", 2: "height", 3: "width"}
        if traceable.input == "normalised"
        else {0: "batch", 1: "height", 2: "width"}
    )
    try:
        with _silence(), _uncollected(), same_padding_in_integers(), torch.no_grad():
            program = torch.onnx.export(
                traceable,
                (image,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=[traceable.output],
                dynamic_shapes={"image": free},
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever a network makes the exporter raise
        raise ConfigError(f"{name} cannot be written as ONNX: {_reason(error)}") from None
    assert program is not None
    shape = program.model.graph.inputs[0].shape
    fixed = [word for axis, word in free.items() if shape is None or isinstance(shape[axis], int)]
    if fixed:
        raise ConfigError(f"{name} cannot be written as ONNX: its operations fix the {' and '.join(fixed)} of images.")
    _forget_origin(program.model)
    return program


def _forget_origin(network: Any) -> None:
    """Take out where in whose files each operation was written, which the exporter notes down."""
    graph = network.graph
    for each in (network, graph, *graph.inputs, *graph.outputs, *graph.initializers.values()):
        each.metadata_props.clear()
    for node in graph.all_nodes():
        node.doc_string = None
        for each in (node, *node.outputs):
            each.metadata_props.clear()


@contextmanager
def _silence() -> Iterator[None]:
    """Inside, the exporter tells nothing; what goes wrong it raises."""
    loggers = [logging.getLogger(name) for name in LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Inside, objects in circles stay: the exporter makes millions that live on, and looking through them takes its time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at first."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _ESCAPES.sub("", str(error)).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]


def _name(network: Any, card: Card) -> None:
    """What any viewer of the file shows."""
    network.producer_name, network.producer_version = "intarsia", card.version
    network.graph.name = card.model
    range_text = "stored values" if card.input == "pixels" else "normalised values"
    classes = ", ".join(card.classes.names)
    network.graph.doc_string = f"{card.model}: image ({range_text}) to {card.output} of the classes {classes}"


def _field(card: Card) -> bytes:
    return _entry(card_text(card))


def _entry(text: str) -> bytes:
    """The card as an entry of ModelProto.metadata_props, which may stand at the end of a file."""
    key, value = KEY.encode(), text.encode()
    entry = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value
    return _METADATA_TAG + _varint(len(entry)) + entry


def _varint(number: int) -> bytes:
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _named(model: SegmentationModel) -> str:
    return model.config.name or type(model).__name__
