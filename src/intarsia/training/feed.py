"""Samples for training: which, in what order, and how altered is a pure function of (seed, epoch, index).

Threads read ahead; because nothing depends on their timing, the batches are the same with any number of them and after
any restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intarsia.data.base import Dataset, Item
from intarsia.devices import available_memory
from intarsia.transforms.pipeline import AugmentConfig, augment
from intarsia.transforms.preprocess import Preprocess, resize_image, resize_mask, to_channels

Batch = tuple[Tensor, Tensor]


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
    _kept: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _room: int = 0

    def __post_init__(self) -> None:
        self._room = available_memory() // 4
        self._order = lru_cache(4)(lambda epoch: draw_order(self.seed, epoch, len(self.items)))

    def load(self, item: Item) -> tuple[Tensor, Tensor]:
        """Image (C, h, w) in stored values and mask (h, w) at data.scale; kept in memory while a quarter of it is free."""
        if item.name in self._kept:
            return self._kept[item.name]
        pixels, mask = self.dataset.read_image(item), torch.from_numpy(self.dataset.read_mask(item))
        size = self.preprocess.scaled_size(item.height, item.width)
        image = resize_image(to_channels(pixels, self.preprocess.channels), size).contiguous()
        mask = resize_mask(mask, size)
        self._room -= image.numel() * image.element_size() + mask.numel()
        if self._room > 0:
            self._kept[item.name] = image, mask
        return image, mask

    def sample(self, position: int) -> Batch:
        """The sample at a position of the endless sequence: normalised image (C, h, w), mask (h, w)."""
        epoch, place = divmod(position, len(self.items))
        index = int(self._order(epoch)[place])
        image, mask = self.load(self.items[index])
        rng = draw_generator(self.seed, epoch, index)
        unit, mask = augment(image, mask, self.size, self.augment, self.preprocess, rng)
        return self.preprocess.normalise(unit), mask

    def batches(self, first: int) -> Iterator[Batch]:
        """Batch `first`, `first` + 1, ... without end: images (N, C, h, w), masks (N, h, w) uint8."""
        position = first * self.batch
        if self.workers == 0:
            while True:
                yield _stack([self.sample(position + index) for index in range(self.batch)])
                position += self.batch
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                while True:
                    while len(waiting) < 3 * self.batch:
                        waiting.append(pool.submit(self.sample, position))
                        position += 1
                    yield _stack([waiting.popleft().result() for _ in range(self.batch)])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _stack(samples: list[Batch]) -> Batch:
    return torch.stack([image for image, _ in samples]), torch.stack([mask for _, mask in samples])
