"""Class maps made visible: in colour, over the image, with a legend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from intarsia.classes import IGNORE, ClassTable
from intarsia.images.files import Array
from intarsia.images.ranges import ValueRange

Rgb = NDArray[np.uint8]


def to_rgb8(image: Array, value_range: ValueRange | None = None) -> Rgb:
    """(H, W) or (H, W, C) of any depth as (H, W, 3) uint8 for the eye: the first three bands, or the first if there are two.

    8-bit values stay; others are stretched over `value_range`, or over the image's own.
    """
    shown: NDArray[Any] = image
    if image.dtype != np.uint8:
        low, high = (np.asarray(bound, np.float32) for bound in value_range or (image.min(), image.max()))
        span = np.maximum(high - low, np.float32(1e-12))
        shown = np.clip((image.astype(np.float32) - low) / span * 255, 0, 255).astype(np.uint8)
    if shown.ndim == 3 and shown.shape[2] < 3:
        shown = shown[..., 0]
    return np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else np.ascontiguousarray(shown[..., :3])


def unit_to_rgb8(unit_CHW: NDArray[np.float32]) -> Rgb:
    """(C, H, W) on the 0..1 scale as (H, W, 3) uint8 for the eye, with the bands of `to_rgb8`."""
    bands = unit_CHW[:3] if len(unit_CHW) >= 3 else np.repeat(unit_CHW[:1], 3, axis=0)
    picture: Rgb = (bands.clip(0, 1).transpose(1, 2, 0) * 255).round().astype(np.uint8)
    return picture


def colorize(classes_HW: NDArray[np.uint8], table: ClassTable) -> Rgb:
    """(H, W, 3) class colours; ignored pixels grey."""
    return np.asarray(table.palette(), np.uint8).reshape(256, 3)[classes_HW]


def overlay(image: Rgb, classes_HW: NDArray[np.uint8], table: ClassTable, *, opacity: float = 0.5) -> Rgb:
    """The image with class colours over it and class borders drawn; class 0 stays clear if it is the background.

    Args:
        image: (H, W, 3) uint8.
        classes_HW: (H, W) class numbers.
        opacity: of the colours, 0..1.
    """
    colors = colorize(classes_HW, table).astype(np.float32)
    share = np.full(classes_HW.shape, opacity, np.float32)
    share[classes_HW == IGNORE] = 0
    if is_background(table):
        share[classes_HW == 0] = 0
    edge = np.zeros(classes_HW.shape, bool)
    edge[:, 1:] |= classes_HW[:, 1:] != classes_HW[:, :-1]
    edge[1:, :] |= classes_HW[1:, :] != classes_HW[:-1, :]
    share[edge] = np.minimum(1.0, share[edge] + 0.4)
    mixed = image.astype(np.float32) * (1 - share[..., None]) + colors * share[..., None]
    return mixed.round().astype(np.uint8)


def overlay_of_sample(image: Rgb, classes_HW: NDArray[np.uint8], table: ClassTable) -> Rgb:
    """The overlay of a training sample; what is ignored, such as what lies outside the image, is dark."""
    shaded = overlay(image, classes_HW, table)
    shaded[classes_HW == IGNORE] //= 3
    return shaded


def is_background(table: ClassTable) -> bool:
    """Whether class 0 means "nothing of interest"."""
    return table.names[0].strip(" _").lower() in ("background", "bg", "void", "none", "other")


def with_legend(image: Rgb, table: ClassTable, present: list[int], size: int | None = None) -> Rgb:
    """The image with a band below that names the classes present, each beside its colour.

    Args:
        size: of the letters, in pixels; None: by the width of the image.
    """
    height, width = image.shape[:2]
    size = size or max(11, min(22, width // 32))
    font = ImageFont.load_default(size)
    box, gap, entries, x, y = size, size // 2, [], size // 2, size // 2
    for index in present:
        length = box + gap // 2 + int(font.getlength(table.names[index])) + gap
        if x > gap and x + length > width:
            x, y = gap, y + box + gap
        entries.append((x, y, index))
        x += length
    band = Image.new("RGB", (width, y + box + gap), (255, 255, 255))
    draw = ImageDraw.Draw(band)
    for left, top, index in entries:
        draw.rectangle((left, top, left + box, top + box), fill=table.colors[index], outline=(90, 90, 90))
        draw.text((left + box + gap // 2, top + box / 2), table.names[index], (20, 20, 20), font=font, anchor="lm")
    return np.concatenate([image, np.asarray(band)]) if height else image
