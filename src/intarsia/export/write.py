"""One file of one model: written aside in any format and precision, held against the model, then put in its place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from intarsia import __version__
from intarsia.classes import ClassTable
from intarsia.engines.card import Card, Precision
from intarsia.engines.engine import Engine, open_engine
from intarsia.engines.files import read_openvino
from intarsia.engines.onnx_file import read_onnx
from intarsia.errors import ConfigError, IntegrityError, SaveError
from intarsia.export import onnx_write, openvino_write, program
from intarsia.export.parity import check_parity, measure_parity
from intarsia.export.traceable import border_rule
from intarsia.images.files import Array
from intarsia.images.preprocess import Preprocess
from intarsia.models.base import SegmentationModel
from intarsia.optional import require

Kind = Literal["onnx", "openvino", "torch-export"]
SUFFIXES: dict[Kind, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
NEEDS: dict[Kind, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "torch-export": (),
}
REFERENCE = "fp32.onnx"
"""Name of the network in float32 beside one in int8, as long as it is made."""


@dataclass(frozen=True)
class Written:
    """A file that was proved."""

    card: Card
    engine: Engine
    """That runs it."""


def check_kind(kind: Kind, precision: Precision) -> None:
    """Whether a format has a precision, and what it needs is installed.

    Raises:
        ConfigError, MissingExtra: no.
    """
    if kind == "onnx" and precision == "bf16":
        raise ConfigError(
            "--precision bf16: onnxruntime computes no bf16 on processors. Take --format openvino, which computes an fp32 file "
            "in bf16 too (intarsia predict FILE IMAGES backend=openvino)."
        )
    if kind == "torch-export" and precision == "int8":
        raise ConfigError("--precision int8: is not written by torch-export. Take --format onnx or openvino.")
    for package in NEEDS[kind]:
        require(package, extra="export")


def card_for(model: SegmentationModel, table: ClassTable, preprocess: Preprocess, weights: str) -> Card:
    """What a file of a model will say of itself, in float32, from normalised images to logits.

    Args:
        weights: their sha256.
    """
    return Card(
        model=model.config.name or type(model).__name__,
        classes=table,
        preprocess=preprocess,
        border=border_rule(model),
        weights=weights,
        version=__version__,
    )


def write_network(
    model: SegmentationModel, card: Card, path: Path, *, kind: Kind, images: Sequence[NDArray[Any]] = ()
) -> Card:
    """Write one file, or the two of OpenVINO, in a folder where others may be left that are needed on the way.

    Args:
        card: whose precision says how.
        images: for int8: batches as the network takes them.

    Returns:
        The card, with `border` and `content`.
    """
    if kind == "torch-export":
        return program.write_program(model, card, path)
    whole = path.with_name(REFERENCE) if kind == "openvino" or card.precision == "int8" else path
    plain = onnx_write.write_onnx(model, card.replace(precision="fp32"), whole)
    card = plain.replace(precision=card.precision)
    if card.precision == "int8":
        from intarsia.export.quantise import quantise

        small = path.with_name("int8.onnx") if kind == "openvino" else path
        card, whole = quantise(whole, card, small, images), small
    return openvino_write.write_openvino(whole, card, path) if kind == "openvino" else card


def open_network(path: Path, card: Card) -> Engine:
    """A written file in the engine that it is made for."""
    return program.Program(path, card) if path.suffix == ".pt2" else open_engine(path, card)


def change_card(path: Path, card: Card) -> Card:
    """Give a written file another card; its network stays."""
    if path.suffix == ".pt2":
        return program.change_card(path, card)
    if path.suffix == ".xml":
        return openvino_write.change_card(path, card)
    onnx_write.change_card(path, card)
    return card


def write_proved(
    model: SegmentationModel,
    card: Card,
    path: Path,
    *,
    kind: Kind,
    pictures: Sequence[Array],
    images: Sequence[NDArray[Any]] = (),
    writer: Callable[..., Card] = write_network,
) -> Written:
    """Write a file and run it beside the model; its card says how they compare.

    Args:
        pictures: (C, H, W) stored values, after the resize by `preprocess.scale`, on which they are compared.
        images: for int8: batches that the network is calibrated on.
        writer: what writes it.

    Raises:
        IntegrityError: it computes something else; the file is removed.
    """
    try:
        card = writer(model, card, path, kind=kind, images=images)
        engine = open_network(path, card)
        parity = measure_parity(model, card, engine, pictures, path)
        check_parity(parity, card, path)
    except BaseException:
        for each in files_of(path):
            each.unlink(missing_ok=True)
        raise
    return Written(change_card(path, card.replace(parity=parity)), engine)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of an exported network, that which it is called by last."""
    return (path.with_suffix(".bin"), path) if path.suffix == ".xml" else (path,)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A place in a new folder beside `path`: what lies there at the end takes its place; after a failure nothing does.

    Raises:
        SaveError: the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", dir=path.parent))
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error.strerror}). Choose another place with --out.") from None
    try:
        try:
            yield folder / path.name
        except (ConfigError, IntegrityError, SaveError) as error:  # told of the place that was asked for
            raise type(error)(str(error).replace(str(folder), str(path.parent))) from None
        if path.suffix == ".xml":
            path.unlink(missing_ok=True)  # so that no network is ever read with the other's weights
        for new, old in zip(files_of(folder / path.name), files_of(path), strict=True):
            new.replace(old)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error.strerror}).") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_place(path: Path, kind: Kind) -> None:
    """Whether a file may be written: nothing is there, or a model that was exported.

    Raises:
        ConfigError: the name has another ending, or a file of somebody's else is there.
    """
    if path.suffix != SUFFIXES[kind]:
        raise ConfigError(
            f"--out {path}: a model of --format {kind} ends in {SUFFIXES[kind]}. Name it {path.stem}{SUFFIXES[kind]}."
        )
    there = [each for each in files_of(path) if each.exists()]
    if there and not _is_ours(path):
        raise ConfigError(
            f"--out {there[0]}: exists and was not exported by intarsia. Choose another name, or move it away."
        )


def _is_ours(path: Path) -> bool:
    read = {".onnx": read_onnx, ".xml": read_openvino, ".pt2": program.read_program}[path.suffix]
    try:
        return read(path)[0] is not None
    except (IntegrityError, OSError):
        return False
