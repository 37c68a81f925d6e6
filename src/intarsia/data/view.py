"""Pictures of a data set for the eye: image, classes over it, and the border weights that a loss would use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from intarsia.data.base import Dataset, Item, evenly
from intarsia.errors import SaveError
from intarsia.images.overlay import Rgb, overlay, with_legend

if TYPE_CHECKING:
    from intarsia.losses.base import Border

SMALLEST, LARGEST = 240, 800
"""Between these the longer side of a panel is brought, in pixels."""
GAP = 8
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Colours from no weight to w0."""
INSIDE = (34, 48, 66)
"""Objects without weight."""


@dataclass(frozen=True)
class View:
    """A picture and what it shows, in words."""

    path: Path
    caption: str


def write_views(
    dataset: Dataset, out: Path, *, split: str = "train", count: int = 4, border: Border | None = None
) -> list[View]:
    """Pictures of `count` items, evenly from the split's first to its last.

    Args:
        out: a folder; made if need be.
        border: also its weights, in colours from 0 to w0.

    Raises:
        ConfigError: no such split, or w0 or sigma is out of range.
        SaveError: a picture cannot be written.
    """
    items = dataset.items(split)
    views = []
    for place in evenly(len(items), count):
        item = items[place]
        picture, caption = _picture(dataset, item, border)
        safe = re.sub(r"[^\w.-]+", "-", item.name).strip("-.")[-60:]
        path = out / f"{split}-{place + 1:04d}-{safe}.png"
        try:
            out.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        except OSError as error:
            raise SaveError(f"{path}: cannot be written ({error.strerror}). Choose a place with --out.") from None
        views.append(View(path, caption))
    return views


def _picture(dataset: Dataset, item: Item, border: Border | None) -> tuple[Rgb, str]:
    photo, mask = dataset.picture(item), dataset.read_mask(item)
    size = _panel_size(item)
    panels = [_resized(photo, size), overlay(_resized(photo, size), _nearest(mask, size), dataset.table)]
    caption = f"{item.height} x {item.width}"
    if border is not None:
        weights, objects = dataset.border_weights(item, border), dataset.read_instances(item)
        numbers = np.unique(objects)
        drawn = "objects" if item.instances else "connected parts of the mask"
        caption += f", {len(numbers[numbers != 0])} {drawn}, border weights {weights.min():.3g} to {weights.max():.3g}"
        panels.append(_resized(heat_map(weights, objects != 0, border.w0), size))
    white = np.full((size[0], GAP, 3), 255, np.uint8)
    strip = np.concatenate([part for panel in panels for part in (panel, white)][:-1], axis=1)
    present = [int(index) for index in np.unique(mask) if index < dataset.table.count]
    picture = with_legend(strip, dataset.table, present)
    if border is not None:
        picture = np.concatenate([picture, _scale(picture.shape[1], caption, border)])
    return picture, caption


def heat_map(weights_HW: NDArray[np.float32], objects_HW: NDArray[np.bool_], top: float) -> Rgb:
    """Weights in colours from 0 to `top`; objects show faintly where they have none."""
    share = np.clip(weights_HW / (top or 1), 0, 1)
    colours = np.stack(
        [np.interp(share, np.linspace(0, 1, len(HEAT)), channel) for channel in zip(*HEAT, strict=True)], -1
    )
    faint = np.asarray(INSIDE) * (objects_HW * (1 - share) ** 2)[..., None]
    heat: Rgb = np.minimum(colours + faint, 255).round().astype(np.uint8)
    return heat


def _scale(width: int, caption: str, border: Border) -> Rgb:
    """A band that tells what the colours of the weights mean: bar and settings above, the caption below."""
    size = max(11, min(22, width // 32))
    settings = f"{border.w0:g}   w0 {border.w0:g}, sigma {border.sigma:g} px"
    bar = np.tile(np.linspace(0, border.w0, 6 * size, dtype=np.float32), (size, 1))
    while size > 8 and ImageFont.load_default(size).getlength(caption) > width - size:
        size -= 1
    font = ImageFont.load_default(size)
    band = Image.new("RGB", (width, len(bar) + 2 * size), (255, 255, 255))
    draw = ImageDraw.Draw(band)
    left, middle = size // 2 + int(font.getlength("0")) + size // 3, len(bar) // 2
    band.paste(Image.fromarray(heat_map(bar, np.zeros(bar.shape, bool), border.w0)), (left, 0))
    draw.text((size // 2, middle), "0", (20, 20, 20), font=font, anchor="lm")
    draw.text((left + bar.shape[1] + size // 2, middle), settings, (20, 20, 20), font=font, anchor="lm")
    draw.text((size // 2, len(bar) + size), caption, (20, 20, 20), font=font, anchor="lm")
    return np.asarray(band)


def _panel_size(item: Item) -> tuple[int, int]:
    longer = max(item.height, item.width)
    factor = min(1.0, LARGEST / longer) if longer >= SMALLEST else -(-SMALLEST // longer)
    return max(1, round(item.height * factor)), max(1, round(item.width * factor))


def _resized(rgb: Rgb, size: tuple[int, int]) -> Rgb:
    enlarged = size[0] > rgb.shape[0]
    return np.asarray(
        Image.fromarray(rgb).resize(size[::-1], Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX)
    )


def _nearest(mask_HW: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(mask_HW).resize(size[::-1], Image.Resampling.NEAREST))
