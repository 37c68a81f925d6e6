"""A model as a program of torch.export, one .pt2 file: to be run by torch where intarsia is not, or compiled ahead of time."""

from __future__ import annotations

import hashlib
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from intarsia.engines.card import Card, card_text
from intarsia.engines.engine import Engine
from intarsia.errors import ConfigError, IntegrityError, SaveError, reason_of
from intarsia.export.onnx_write import check_weights, example
from intarsia.export.traceable import Traceable, border_rule
from intarsia.models.base import SegmentationModel
from intarsia.models.encoders.timm import same_padding_in_integers

CARD = "intarsia.json"
"""Extra file of the program that holds the card."""


class InBf16(nn.Module):
    """A network whose convolutions and products are computed in bf16, weights in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found: Tensor = self.model(image)
        return found


def write_program(model: SegmentationModel, card: Card, path: Path) -> Card:
    """Follow the model, as the card says it, with free batch, height and width, and save the program.

    Returns:
        The card, with `border` and `content`.

    Raises:
        ConfigError: torch.export cannot follow the model.
        SaveError: weights that are not finite, or a disk that does not take the file.
    """
    check_weights(model, path)
    traceable: nn.Module = Traceable(model, card.preprocess, input=card.input, output=card.output)
    if card.precision == "bf16":
        traceable = InBf16(traceable)
    free = torch.export.Dim.DYNAMIC
    axes = {0: free, 2: free, 3: free} if card.input == "normalised" else {0: free, 1: free, 2: free}
    try:
        with _silence(), same_padding_in_integers(), torch.no_grad():
            program = torch.export.export(
                traceable.eval(), (example(model, card),), dynamic_shapes={"image": axes}, strict=False
            )
    except Exception as error:  # whatever a network makes it raise
        reason = reason_of(error)
        raise ConfigError(
            f"{card.model} in {card.precision} cannot be followed by torch.export: {reason} Try --format onnx."
        ) from None
    # guards on strides ("is this slice contiguous at this size?") that a program needs no more; with them it would refuse
    # sizes that it computes rightly. What it computes is compared with the model afterwards.
    vars(program).get("_guards_code", []).clear()
    _forget_origin(program)
    return _save(program, card.replace(border=border_rule(model)), path)


def change_card(path: Path, card: Card) -> Card:
    """Give a program another card."""
    with _silence():
        return _save(torch.export.load(path), card, path)


def read_program(path: Path) -> tuple[str | None, str]:
    """The card's text, if there is one, and the sha256 of all else.

    Raises:
        IntegrityError: it is no such file, or damaged.
    """
    digest, text = hashlib.sha256(), None
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                inner = name.partition("/")[2]
                if inner == f"extra/{CARD}":
                    text = archive.read(name).decode()
                elif not inner.startswith(".data/"):  # a number that differs each time it is saved
                    digest.update(inner.encode() + b"\0" + archive.read(name))
    except (zipfile.BadZipFile, UnicodeDecodeError):
        raise IntegrityError(f"{path}: is damaged, or no program of torch.export.") from None
    return text, digest.hexdigest()


class Program(Engine):
    """A .pt2 file run by torch on the processor."""

    name = "torch"

    def _open(self) -> None:
        with _silence():
            self._module = torch.export.load(self.path).module()

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            found: NDArray[Any] = self._module(torch.from_numpy(image)).numpy()
        return found


def _forget_origin(program: Any) -> None:
    """Without the example and without the lines of code that each operation came from, which name this machine's folders."""
    program.example_inputs = None
    for module in program.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, "graph") else ():
            node.meta.pop("stack_trace", None)


def _save(program: Any, card: Card, path: Path) -> Card:
    """Twice, as the card holds the sha256 of the rest."""
    try:
        with _silence():
            torch.export.save(program, path, extra_files={CARD: ""})
            card = card.replace(content=read_program(path)[1])
            torch.export.save(program, path, extra_files={CARD: card_text(card)})
    except (OSError, RuntimeError) as error:
        raise SaveError(f"{path}: cannot be written ({str(error).partition(chr(10))[0]}).") from None
    return card


@contextmanager
def _silence() -> Iterator[None]:
    """Inside, torch.export tells nothing; what goes wrong it raises."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.fx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
