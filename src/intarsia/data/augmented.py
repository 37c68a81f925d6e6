"""What augmentation makes of images: the image as it is, and samples drawn from it, with the classes over them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from intarsia.data.base import Dataset, Item, evenly
from intarsia.data.sheet import Section, Tile, draw_sheet, present_in, small_map, small_photo, tile_of
from intarsia.images.overlay import overlay_of_sample
from intarsia.transforms.pipeline import AugmentConfig, augment
from intarsia.transforms.preprocess import Preprocess, median_size, resize_image, resize_mask, to_channels

STREAM = 0x5EE
"""The second word of the Philox key."""


def sheet_of_samples(
    dataset: Dataset,
    config: AugmentConfig,
    split: str,
    count: int,
    *,
    size: tuple[int, int] | None = None,
    scale: float = 1.0,
    seed: int = 0,
    columns: int = 6,
) -> NDArray[np.uint8]:
    """A row for each of `count` items, evenly over the split: the item, then samples of it; what is ignored is dark.

    Args:
        config: what is drawn.
        size: (height, width) of a sample, after scaling; None: the median image's, at most 512.
        scale: factor on both sides of the image first, as `data.scale`.
        seed: of the draws; the same gives the same sheet.
    """
    items = dataset.items(split)
    if size is None:
        size = median_size([(item.height, item.width) for item in items], scale)
    tiles = []
    for place in evenly(len(items), count):
        item = items[place]
        tiles.append(tile_of(dataset, item, item.name))
        tiles += _samples(dataset, item, config, size, scale, seed=seed + place, count=columns - 1)
    words = config.name or "settings of its own"
    heading = f"{dataset.label}: augmentation {words}, samples of {size[0]} x {size[1]}; first the image as it is"
    return draw_sheet([Section(heading, tiles)], dataset.table, present_in(dataset, (split,)), columns=columns)


def _samples(
    dataset: Dataset, item: Item, config: AugmentConfig, size: tuple[int, int], scale: float, *, seed: int, count: int
) -> list[Tile]:
    preprocess = Preprocess(
        channels=dataset.channels,
        value_range=dataset.value_range,
        mean=(0.5,) * dataset.channels,
        std=(0.5,) * dataset.channels,
        scale=scale,
    )
    small = preprocess.scaled_size(item.height, item.width)
    image = resize_image(to_channels(dataset.read_image(item), dataset.channels), small)
    mask = resize_mask(torch.from_numpy(dataset.read_mask(item)), small)
    tiles = []
    for number in range(count):
        rng = np.random.Generator(np.random.Philox(key=[seed << 16 | number, STREAM]))
        sample = augment(image, mask, size, config, preprocess, rng)
        unit = sample.image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
        photo = small_photo((unit * 255).round().astype(np.uint8))
        classes = small_map(sample.mask.numpy(), photo.shape)
        tiles.append(Tile(overlay_of_sample(photo, classes, dataset.table), f"sample {number + 1}"))
    return tiles
