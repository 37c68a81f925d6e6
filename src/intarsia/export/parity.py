"""An exported network held against the model that it was made of, at sizes and batches other than that of the export.

Shapes: N batch, C channels, H height, W width; K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intarsia.engines.card import Card, Parity, Precision
from intarsia.engines.inputs import input_of_stored
from intarsia.errors import IntegrityError
from intarsia.images.files import Array
from intarsia.images.preprocess import Preprocess, resize_planes
from intarsia.images.ranges import BYTES
from intarsia.models.base import SegmentationModel, resize_logits

LEAST_AGREEMENT: dict[Precision, float] = {"fp32": 0.9999, "bf16": 0.95, "int8": 0.8}
"""Share of pixels of equal class below which a file is not kept."""
LARGEST_DIFFERENCE = 1e-3
"""Of logits in fp32, as a share of the largest logit."""
MADE = (192, 272)
"""(H, W) of made pictures."""
LARGEST_SIDE = 768
SAMPLES = 4
"""Pictures that are compared."""
MEDIAN_DIFFERENCE = 1e-4
"""Of logits in fp32, as a share of the largest logit, of a model that remembers where maxima were."""
FLIPPED = 0.995
"""Share of pixels of equal class that such a model must keep in fp32."""
Run = Callable[[NDArray[Any]], NDArray[Any]]


def made_pictures(preprocess: Preprocess, size: tuple[int, int] = MADE, *, count: int = SAMPLES) -> list[Array]:
    """(C, H, W) stored values: waves of several lengths, edges, and noise that is smooth, the same for ever.

    White noise would not do: on it trained networks hover between classes.
    """
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(*(np.linspace(0, 1, side) for side in size), indexing="ij")
    low, high = (np.asarray(bound, np.float32).reshape(-1, 1, 1) for bound in preprocess.value_range)
    pictures: list[Array] = []
    for _ in range(count):
        planes = []
        for _ in range(preprocess.channels):
            angle, length, phase = rng.uniform(0, math.pi), rng.uniform(1, 6), rng.uniform(0, 2 * math.pi)
            wave = np.sin(2 * math.pi * length * (x * np.cos(angle) + y * np.sin(angle)) + phase)
            coarse = rng.normal(size=(1, 6, 8)).astype(np.float32)
            smooth = resize_planes(coarse, size)[0]
            edge = np.where(x * np.cos(3 * angle) + y * np.sin(3 * angle) > rng.uniform(0, 0.5), 0.5, -0.5)
            planes.append(np.clip(0.5 + 0.2 * wave + 0.2 * smooth + 0.2 * edge, 0, 1))
        values = low + (high - low) * np.stack(planes).astype(np.float32)
        pictures.append(values.round().astype(np.uint8) if preprocess.value_range == BYTES else values)
    return pictures


def batches_of(pictures: Sequence[Array]) -> Iterator[Array]:
    """(N, C, H, W) stored values to compare on: each picture alone; three of odd sides; two of sides that strides divide."""
    for picture in pictures[:SAMPLES]:
        yield _cut(picture, (LARGEST_SIDE, LARGEST_SIDE), 0.5)[None]
    height, width = (min(side, LARGEST_SIDE) for side in np.min([each.shape[-2:] for each in pictures], axis=0))
    for count, sides in ((3, (_odd(height), _odd(width))), (2, (_even(height), _even(width)))):
        places = np.linspace(0, 1, count)
        cut = [_cut(pictures[number % len(pictures)], sides, place) for number, place in enumerate(places)]
        yield cast(Array, np.stack(cut))


def _cut(picture: Array, size: tuple[int, int], place: float) -> Array:
    """At most `size` of a picture, from its start (place 0) to its end (1)."""
    height, width = (min(side, most) for side, most in zip(picture.shape[-2:], size, strict=True))
    top, left = round((picture.shape[-2] - height) * place), round((picture.shape[-1] - width) * place)
    return picture[..., top : top + height, left : left + width]


def _odd(side: int) -> int:
    """About two thirds, and odd."""
    return min(side, side * 2 // 3 | 1)


def _even(side: int) -> int:
    """A multiple of 64, where the side has as much."""
    return side // 64 * 64 or side


def measure_parity(model: SegmentationModel, card: Card, run: Run, pictures: Sequence[Array], path: Path) -> Parity:
    """Run both on the same pictures.

    Args:
        model: on the processor, in evaluation, in float32.
        run: the exported network.
        pictures: (C, H, W) stored values, after the resize by `preprocess.scale`.
        path: of the exported file, for messages.

    Raises:
        IntegrityError: outputs are not finite, or of another shape.
    """
    sizes: dict[tuple[int, int, int], None] = {}
    differences: list[NDArray[np.float32]] = []
    difference = largest = 0.0
    pixels = equal = 0
    for planes_NCHW in batches_of(pictures):
        image = input_of_stored(planes_NCHW, card)
        logits, found = _reference(model, card, image), run(image)
        sizes[planes_NCHW.shape[0], planes_NCHW.shape[-2], planes_NCHW.shape[-1]] = None
        expected = logits.shape if card.output == "logits" else (logits.shape[0], *logits.shape[2:])
        if found.shape != expected:
            raise IntegrityError(
                f"{path}: gives {found.shape} for an input of {image.shape}, the model {tuple(expected)}. It is removed."
            )
        if not np.isfinite(logits).all() or not np.isfinite(found).all():
            whose = "exported network's" if np.isfinite(logits).all() else "model's"
            raise IntegrityError(f"{path}: the {whose} outputs are not finite. It is removed; train the model again.")
        largest = max(largest, float(np.abs(logits).max()))
        if card.output == "logits":
            apart = np.abs(logits - found)
            difference = max(difference, float(apart.max()))
            if model.remembers_maxima:
                differences.append(apart.ravel())
            found = found.argmax(1)
        same = logits.argmax(1) == found
        pixels, equal = pixels + same.size, equal + int(same.sum())
    return Parity(
        sizes=tuple(sizes),
        max_difference=difference,
        largest_logit=largest,
        agreement=equal / pixels,
        median_difference=float(np.median(np.concatenate(differences))) if differences else None,
    )


def check_parity(parity: Parity, card: Card, path: Path) -> None:
    """Raise IntegrityError, with the numbers, if an exported network is too far from its model."""
    least, allowed = LEAST_AGREEMENT[card.precision], LARGEST_DIFFERENCE * parity.largest_logit
    difference, which = parity.max_difference, "logits differ by up to"
    if parity.median_difference is not None:
        least, allowed = min(least, FLIPPED), MEDIAN_DIFFERENCE * parity.largest_logit
        difference, which = parity.median_difference, "half of the logits differ by more than"
    reasons = []
    if parity.agreement < least:
        reasons.append(f"{100 * parity.agreement:.3f} % of pixels have the model's class, {100 * least:g} % must")
    if card.precision == "fp32" and difference > allowed:
        reasons.append(f"{which} {difference:.2g}, allowed is {allowed:.2g}")
    if reasons:
        advice = "Please report it" if card.precision == "fp32" else "Export with --precision fp32"
        raise IntegrityError(
            f"{path}: computes something else than the model: {'; '.join(reasons)}. It is removed. {advice}."
        )


@torch.no_grad()
def _reference(model: SegmentationModel, card: Card, image: NDArray[Any]) -> NDArray[np.float32]:
    """(N, K, h, w) logits of the model itself for an input of the exported network."""
    if card.input == "pixels":
        image = np.stack([card.preprocess.normalise(np.moveaxis(each, -1, 0)) for each in image])
    logits_NKHW: Tensor = model(torch.from_numpy(image)).float()
    if card.border is None:
        logits_NKHW = resize_logits(logits_NKHW, (image.shape[-2], image.shape[-1]))
    found: NDArray[np.float32] = logits_NKHW.numpy()
    return found
