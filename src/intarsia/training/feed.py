"""Samples for training: which, in what order, and how altered is a pure function of (seed, epoch, index).

Threads read ahead; because nothing depends on their timing, the batches are the same with any number of them and after
any restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intarsia.data.base import Dataset, Item
from intarsia.devices import available_memory
from intarsia.losses.base import Border
from intarsia.transforms.pipeline import AugmentConfig, Sample, augment
from intarsia.transforms.preprocess import Preprocess, resize_image, resize_mask, to_channels


class Batch(NamedTuple):
    """What a step is computed from."""

    image: Tensor
    """(N, C, h, w), normalised."""
    mask: Tensor
    """(N, h, w) uint8, 255 ignored."""
    weights: Tensor | None = None
    """(N, h, w) float32 weights of the pixels, where the loss asks for a border."""


def draw_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Order of an epoch: a permutation of range(count) from Philox(seed, epoch)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def draw_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample: Philox(seed, epoch, index)."""
    return np.random.Generator(np.random.Philox(key=[seed, (epoch + 1) << 32 | index]))


@dataclass
class Feeder:
    """Training batches by number. Batch b holds positions b*batch ... of the endless sequence of epochs, so every image
    is seen once an epoch, and no batch is short."""

    dataset: Dataset
    items: tuple[Item, ...]
    size: tuple[int, int]
    augment: AugmentConfig
    preprocess: Preprocess
    batch: int
    seed: int
    workers: int
    border: Border | None = None
    """Weights of borders between objects that samples bring along."""
    _kept: dict[str, Sample] = field(default_factory=dict, repr=False)
    _room: int = 0

    def __post_init__(self) -> None:
        self._room = available_memory() // 4
        self._order = lru_cache(4)(lambda epoch: draw_order(self.seed, epoch, len(self.items)))

    def load(self, item: Item) -> Sample:
        """Image in stored values, mask and weights at data.scale; kept in memory while a quarter of it is free.

        Distances between objects are counted in the mask's own pixels, before data.scale.
        """
        if item.name in self._kept:
            return self._kept[item.name]
        pixels, mask = self.dataset.read_image(item), torch.from_numpy(self.dataset.read_mask(item))
        size = self.preprocess.scaled_size(item.height, item.width)
        image = resize_image(to_channels(pixels, self.preprocess.channels), size).contiguous()
        weights = None
        if self.border is not None:
            weights = resize_image(torch.from_numpy(self.dataset.border_weights(item, self.border))[None], size)[0]
        loaded = Sample(image, resize_mask(mask, size), weights)
        self._room -= sum(part.numel() * part.element_size() for part in loaded if part is not None)
        if self._room > 0:
            self._kept[item.name] = loaded
        return loaded

    def sample(self, position: int) -> Sample:
        """The sample at a position of the endless sequence, its image normalised; weights, if there is a border."""
        epoch, place = divmod(position, len(self.items))
        index = int(self._order(epoch)[place])
        image, mask, weights = self.load(self.items[index])
        rng = draw_generator(self.seed, epoch, index)
        sample = augment(image, mask, self.size, self.augment, self.preprocess, rng, weights)
        return sample._replace(image=self.preprocess.normalise(sample.image))

    def batches(self, first: int) -> Iterator[Batch]:
        """Batch `first`, `first` + 1, ... without end."""
        position = first * self.batch
        if self.workers == 0:
            while True:
                yield stack([self.sample(position + index) for index in range(self.batch)])
                position += self.batch
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[Future[Sample]] = deque()
            try:
                while True:
                    while len(waiting) < 3 * self.batch:
                        waiting.append(pool.submit(self.sample, position))
                        position += 1
                    yield stack([waiting.popleft().result() for _ in range(self.batch)])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def stack(samples: Sequence[Sample]) -> Batch:
    """Samples as a batch."""
    weights = [sample.weights for sample in samples if sample.weights is not None]
    return Batch(
        torch.stack([sample.image for sample in samples]),
        torch.stack([sample.mask for sample in samples]),
        torch.stack(weights) if weights else None,
    )
