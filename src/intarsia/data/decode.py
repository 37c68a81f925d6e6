"""An item's files as training samples are cut from them: stored values and class numbers at data.scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from intarsia.data.base import Dataset, Item
from intarsia.images.preprocess import Preprocess
from intarsia.transforms.prepare import resize_image, resize_mask, to_channels
from intarsia.transforms.rare import find_places
from intarsia.transforms.sampling import Loaded

if TYPE_CHECKING:
    from intarsia.losses.base import Border


def decode_item(
    dataset: Dataset, item: Item, preprocess: Preprocess, *, border: Border | None = None, rare: Sequence[int] = ()
) -> Loaded:
    """Image in stored values, mask and weights at data.scale. An image whose channels are all the same (grey, for a network of
    more channels) has one.

    Args:
        border: weights of the borders between objects; distances are counted in the mask's own pixels, before data.scale.
        rare: classes whose places are wanted.

    Raises:
        FileError: a file cannot be used.
    """
    size = preprocess.scaled_size(item.height, item.width)
    image = to_channels(dataset.read_image(item), preprocess.channels)
    image = image[:1] if image.stride(0) == 0 else image
    mask = resize_mask(torch.from_numpy(dataset.read_mask(item)), size)
    weights = None
    if border is not None:
        weights = resize_image(torch.from_numpy(dataset.border_weights(item, border))[None], size)[0]
    return Loaded(resize_image(image, size).contiguous(), mask, weights, find_places(mask, rare) if rare else None)
