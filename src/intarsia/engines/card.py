"""What an exported file says of itself: all that prediction needs beside the network, as JSON in the file's metadata.

The network of a file takes `image` and returns `logits`, with free batch, height and width:

    input     normalised   image (N, C, H, W) float32, as `preprocess` makes it
              pixels       image (N, H, W, C) stored values, uint8 if preprocess.value_range is (0, 255), else float32
    output    logits       logits (N, K, H, W) float32; (N, K, H - lost, W - lost) of a network that loses its border
              classes      classes (N, H, W) uint8, the class of the largest logit: probabilities are gone
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from intarsia.classes import ClassTable
from intarsia.config import Config, digest_of
from intarsia.errors import IntegrityError
from intarsia.images.preprocess import Preprocess

KEY = "intarsia"
"""Under which the card stands in a file's metadata."""
FORMAT = 1

Precision = Literal["fp32", "bf16", "int8"]
Margins = tuple[int, int, int, int]
"""Pixels (top, left, bottom, right)."""


class Border(Config):
    """What a network of valid convolutions loses: along each side it takes `first` + n `stride` pixels, and `lost` fewer
    come out."""

    stride: int = Field(ge=1)
    lost: int = Field(ge=1)
    first: int = Field(ge=1)

    def around(self, height: int, width: int) -> Margins:
        """Pixels around (height, width) that the network must see to have logits for all of it."""
        before = self.lost // 2
        after = [self._needed(side) - side - before for side in (height, width)]
        return before, before, after[0], after[1]

    def _needed(self, side: int) -> int:
        """Smallest input whose output covers a side."""
        steps = -(-max(0, side + self.lost - self.first) // self.stride)
        return self.first + steps * self.stride


class Parity(Config):
    """How an exported network was held against the model that it was made of, at sizes other than that of the export."""

    sizes: tuple[tuple[int, int, int], ...]
    """(N, H, W) of each comparison."""
    max_difference: float
    """Largest difference of logits."""
    largest_logit: float
    """Largest logit by absolute value, which says what that difference means."""
    agreement: float
    """Share of pixels of equal class, 0..1."""
    median_difference: float | None = None
    """Of logits, where the model remembers where maxima were, so that a few of them differ between any two programs."""


class Card(Config):
    """Everything about an exported model but its network."""

    format: int = FORMAT
    model: str
    """Preset or family, such as fcn8s_vgg16."""
    classes: ClassTable
    preprocess: Preprocess
    input: Literal["normalised", "pixels"] = "normalised"
    output: Literal["logits", "classes"] = "logits"
    precision: Precision = "fp32"
    border: Border | None = None
    """null: logits have the input's size."""
    weights: str
    """sha256 of the weights (model.safetensors) that were exported."""
    content: str = ""
    """sha256 of the file without this card; of both files of an OpenVINO model."""
    parity: Parity | None = None
    agreement: dict[str, float] = Field(default_factory=dict)
    """Precision to the share (0..1) of validation pixels whose class is that of fp32, where it was measured."""
    mean_iou: dict[str, float] = Field(default_factory=dict)
    """Precision to the mean IoU (0..1) on the validation images, where it was measured."""
    version: str = ""
    """Of intarsia."""

    def stands_for(self, weights: str, precision: Precision = "fp32") -> bool:
        """Whether the file is the whole network with these weights, from normalised images to logits."""
        return (self.weights, self.precision, self.input, self.output) == (weights, precision, "normalised", "logits")


def card_text(card: Card) -> str:
    """A card for a file's metadata: JSON, with a check of itself."""
    values = card.to_dict()
    return json.dumps({**values, "check": digest_of(values)}, ensure_ascii=False)


def card_of(text: str, name: str) -> Card:
    """A card from a file's metadata.

    Args:
        name: of the file, for messages.

    Raises:
        IntegrityError: it is damaged, or of a newer format.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        check = values.pop("check")
        if values["format"] == FORMAT and check == digest_of(values):
            return Card(**values)
        damaged = values["format"] == FORMAT
    except Exception:  # whatever is wrong with it, it is not what was written
        damaged = True
    if damaged:
        raise IntegrityError(f"{name}: its card is damaged. Export the model again.")
    raise IntegrityError(
        f"{name}: its card has format {values['format']}, this intarsia reads {FORMAT}. Update intarsia."
    )
