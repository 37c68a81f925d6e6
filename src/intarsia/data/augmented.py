"""What augmentation makes of images: the image as it is, and the samples that training cuts from it, with the classes over
them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from intarsia.data.base import Dataset, evenly
from intarsia.data.decode import decode_item
from intarsia.data.sheet import Section, Tile, draw_sheet, present_in, small_map, small_photo, tile_of
from intarsia.images.overlay import overlay_of_sample, unit_to_rgb8
from intarsia.images.preprocess import Preprocess, median_size
from intarsia.transforms.pipeline import AUGMENTS, AugmentConfig
from intarsia.transforms.sample import Sample
from intarsia.transforms.sampling import Loaded, Sampler, classes_looked_for, draw_generator

DECODED = 16
"""Images that are kept decoded, since one is cut several times."""


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
    """A row for each of `count` items, evenly over the split: the item, then its samples of the first epochs of a training
    with this seed; what is ignored is dark.

    Args:
        config: what is drawn.
        size: (height, width) of a sample, after scaling; None: the median image's, at most 512.
        scale: factor on both sides of the image first, as `data.scale`.
        seed: of the draws, as `train.seed`; the same gives the same sheet.
    """
    items = dataset.items(split)
    size = size or median_size([(item.height, item.width) for item in items], scale)
    sampler = _sampler(dataset, split, config, size, scale)
    tiles = []
    for place in evenly(len(items), count):
        tiles.append(tile_of(dataset, items[place], items[place].name))
        for epoch in range(columns - 1):
            sample = sampler.draw(place, draw_generator(seed, epoch, place))
            tiles.append(Tile(_picture(sample, dataset), f"epoch {epoch + 1}"))
    heading = (
        f"{dataset.label}: augmentation {_words(config)}, samples of {size[0]} x {size[1]}; first the image as it is"
    )
    return draw_sheet([Section(heading, tiles)], dataset.table, present_in(dataset, (split,)), columns=columns)


def _words(config: AugmentConfig) -> str:
    """The preset's name, and what is not as the preset has it."""
    if config.name not in AUGMENTS:
        return "by settings of its own"
    usual = AUGMENTS[config.name].to_dict()
    other = [f"{key}={value}" for key, value in config.to_dict().items() if value != usual[key]]
    return " with ".join([config.name, *([", ".join(other)] if other else [])])


def _sampler(dataset: Dataset, split: str, config: AugmentConfig, size: tuple[int, int], scale: float) -> Sampler:
    """As training's, for the channels that the data has."""
    preprocess = Preprocess(
        channels=dataset.channels,
        bands=dataset.bands,
        value_range=dataset.value_range,
        mean=(0.5,) * dataset.channels,
        std=(0.5,) * dataset.channels,
        scale=scale,
    )
    items = dataset.items(split)
    rare = classes_looked_for(config, dataset.class_pixels["train"])

    @lru_cache(DECODED)
    def load(index: int) -> Loaded:
        return decode_item(dataset, items[index], preprocess, rare=rare)

    return Sampler(load, len(items), size, config, preprocess, rare)


def _picture(sample: Sample, dataset: Dataset) -> NDArray[np.uint8]:
    photo = small_photo(unit_to_rgb8(sample.image.numpy()))
    return overlay_of_sample(photo, small_map(sample.mask.numpy(), photo.shape), dataset.table)
