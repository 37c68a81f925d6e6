"""What an exported network is given: planes of an image, laid out and framed as its card says.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.engines.card import Card
from intarsia.errors import DataError
from intarsia.images.files import Array
from intarsia.images.ranges import BYTES


def input_of(planes_NCHW: Array, card: Card, *, framed: bool = False) -> NDArray[Any]:
    """Planes as the network takes them: mirrored beyond the border that it loses, in its layout and kind of number.

    Args:
        planes_NCHW: normalised, or stored values of a network that normalises by itself.
        framed: they have the border already.

    Raises:
        DataError: the network takes 8-bit values, the image has others.
    """
    planes: NDArray[Any] = planes_NCHW
    if card.border is not None and not framed:
        top, left, bottom, right = card.border.around(planes.shape[-2], planes.shape[-1])
        planes = np.pad(planes, ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect")
    if card.input == "normalised":
        return np.ascontiguousarray(planes, np.float32)
    kind = np.uint8 if card.preprocess.value_range == BYTES else np.float32
    if kind == np.uint8 and planes.dtype != np.uint8:
        raise DataError(
            f"the network was exported with --with-pre for 8-bit images, this one has {planes.dtype} numbers. "
            "Export without --with-pre."
        )
    return np.ascontiguousarray(np.moveaxis(planes, 1, -1), kind)


def input_of_stored(stored_NCHW: Array, card: Card) -> NDArray[Any]:
    """The same of stored values, which are normalised first unless the network does it."""
    if card.input == "normalised":
        return input_of(np.stack([card.preprocess.normalise(each) for each in stored_NCHW]), card)
    return input_of(stored_NCHW, card)
