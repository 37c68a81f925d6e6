"""Where the pixels of a prediction go: arrays in memory, or files on disk that a later run can go on with."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE
from intarsia.errors import SaveError
from intarsia.images.files import as_stored
from intarsia.images.source import release
from intarsia.ops.class_map import class_map, class_map_of
from intarsia.ops.pieces import array_of
from intarsia.ops.running_mean import Maps
from intarsia.ops.softmax import softmax_of
from intarsia.ops.tiles import Piece
from intarsia.runs import write_json

PROGRESS = "progress.json"


@dataclass(frozen=True)
class Canvas:
    """Arrays of an image's size that fill up piece by piece."""

    classes: NDArray[np.uint8]
    """(H, W) class numbers; 255 where the image has no value."""
    probabilities: NDArray[Any] | None = None
    """(K, H, W): float32 or float16, or uint8 as 255 p."""
    entropy: NDArray[np.uint8] | None = None
    """(H, W) 255 times the entropy of the probabilities over its largest, ln K."""
    folder: Path | None = None
    """Of the files, if they lie on disk."""

    def put(self, piece: Piece, nodata: NDArray[np.bool_] | None) -> None:
        """A piece of logits as classes, probabilities and entropy."""
        logits = piece.logits
        height, width = logits.shape[1:]
        where = np.s_[piece.top : piece.top + height, piece.left : piece.left + width]
        _put_classes(logits, self.classes[where])
        if nodata is not None:
            self.classes[where][nodata] = IGNORE
        if self.probabilities is not None or self.entropy is not None:
            probabilities = _softmax(logits)
            if self.probabilities is not None:
                self.probabilities[:, *where] = _as(probabilities, self.probabilities.dtype)
            if self.entropy is not None:
                self.entropy[where] = entropy_of(probabilities)

    def finished(self, block: int, rows: int) -> None:
        """Remember on disk that a block of columns is done down to a row."""
        if self.folder is None:
            return
        for array in (self.classes, self.probabilities, self.entropy):
            if isinstance(array, np.memmap):
                array.flush()
                release(array)
        write_json(self.folder / PROGRESS, {**json.loads((self.folder / PROGRESS).read_text()), "at": [block, rows]})

    def done(self) -> tuple[int, int]:
        """Block and row to go on with; (0, 0) from the start."""
        if self.folder is None:
            return 0, 0
        block, rows = json.loads((self.folder / PROGRESS).read_text())["at"]
        return int(block), int(rows)

    def as_stored(self, orientation: int) -> Canvas:
        """In the frame of a file with this orientation."""
        entropy, probabilities = self.entropy, self.probabilities
        if probabilities is not None:
            probabilities = np.moveaxis(as_stored(np.moveaxis(probabilities, 0, -1), orientation), -1, 0)
        return Canvas(
            as_stored(self.classes, orientation),
            probabilities,
            None if entropy is None else as_stored(entropy, orientation),
            self.folder,
        )

    def discard(self) -> None:
        """Remove the files."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _put_classes(logits_KHW: Maps, out_HW: NDArray[np.uint8]) -> None:
    numbers = array_of(logits_KHW)
    if numbers is None:
        out_HW[...] = class_map(logits_KHW.unsqueeze(0))[0].cpu().numpy()
    else:
        class_map_of(numbers[None], out_HW[None])


def _softmax(logits_KHW: Maps) -> NDArray[np.float32]:
    if not isinstance(logits_KHW, np.ndarray):
        of_tensor: NDArray[np.float32] = logits_KHW.softmax(0).cpu().numpy()
        return of_tensor
    return softmax_of(logits_KHW, axis=0)


def entropy_of(probabilities_KHW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) 255 H / ln K, H = - sum p ln p in nats: 0 where the model is sure, 255 where all classes are as likely."""
    count = probabilities_KHW.shape[0]
    logs = np.log(np.maximum(probabilities_KHW, np.finfo(np.float32).tiny))  # 0 ln 0 = 0
    entropy = -(probabilities_KHW * logs).sum(axis=0) / math.log(max(2, count))
    found: NDArray[np.uint8] = np.rint(255 * entropy).clip(0, 255).astype(np.uint8)
    return found


def _as(probabilities: NDArray[np.float32], kind: np.dtype[Any]) -> NDArray[Any]:
    return np.rint(255 * probabilities).astype(np.uint8) if kind == np.uint8 else probabilities.astype(kind)


def canvas_in_memory(size: tuple[int, int], num_classes: int, outputs: Collection[str], numbers: str) -> Canvas:
    """Arrays for the outputs named: probabilities and entropy beside classes."""
    return Canvas(
        np.empty(size, np.uint8),
        np.empty((num_classes, *size), numbers) if "probabilities" in outputs else None,
        np.empty(size, np.uint8) if "entropy" in outputs else None,
    )


def canvas_on_disk(
    folder: Path, size: tuple[int, int], num_classes: int, outputs: Collection[str], numbers: str, key: str
) -> Canvas:
    """The same as files in `folder`; those that an interrupted run with the same key left there are gone on with.

    Args:
        key: stands for image, model and settings.

    Raises:
        SaveError: the disk does not take them.
    """
    try:
        known = json.loads((folder / PROGRESS).read_text())
        mode = "r+" if known["key"] == key else "w+"
    except (OSError, ValueError, KeyError, TypeError):
        mode = "w+"
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        "classes": (np.uint8, size),
        "probabilities": (numbers, (num_classes, *size)),
        "entropy": (np.uint8, size),
    }
    try:
        if mode == "w+":
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        arrays = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", mode=mode, dtype=kind, shape=shape)
            for name, (kind, shape) in shapes.items()
            if name == "classes" or name in outputs
        }
        if mode == "w+":
            write_json(folder / PROGRESS, {"key": key, "at": [0, 0]})
    except (OSError, ValueError) as error:
        raise SaveError(f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error}).") from None
    return Canvas(arrays["classes"], arrays.get("probabilities"), arrays.get("entropy"), folder)
