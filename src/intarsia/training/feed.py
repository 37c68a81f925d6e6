"""Samples for training: which, in what order, how altered and with which mixed is a pure function of (seed, epoch, index).

Threads read ahead; because nothing depends on their timing, the batches are the same with any number of them and after
any restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intarsia.data.base import Dataset, Item
from intarsia.devices import available_memory
from intarsia.images.preprocess import Preprocess
from intarsia.losses.base import Border
from intarsia.progress import Progress
from intarsia.training.store import Mode, Store, bytes_of
from intarsia.transforms.pipeline import AugmentConfig
from intarsia.transforms.prepare import normalise
from intarsia.transforms.sample import Sample
from intarsia.transforms.sampling import Loaded, Planned, Sampler, classes_looked_for, draw_generator

AHEAD = 3
"""Batches that threads work on ahead."""


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
    device: str = "cpu"
    """Where samples are cut and altered."""
    cache: Mode = "auto"
    """Where decoded images are kept (training/store.py)."""
    progress: Progress | None = None
    store: Store = field(init=False, repr=False)
    _moved: dict[str, Loaded] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        rare = classes_looked_for(self.augment, self.dataset.class_pixels["train"])
        self.store = Store(
            self.dataset,
            self.items,
            self.preprocess,
            border=self.border,
            rare=rare,
            mode=self.cache,
            progress=self.progress,
        )
        self._sampler = Sampler(
            lambda index: self.load(self.items[index]), len(self.items), self.size, self.augment, self.preprocess, rare
        )
        self._room = available_memory(self.device) // 4
        self._order = lru_cache(4)(lambda epoch: draw_order(self.seed, epoch, len(self.items)))

    def load(self, item: Item) -> Loaded:
        """Image in stored values, mask and weights at data.scale, from memory or a file if they were decoded before; those of
        the network's device stay there while there is room."""
        if self.device == "cpu":
            return self.store.load(item)
        moved = self._moved.get(item.name)
        if moved is None:
            image, mask, weights, places = self.store.load(item)
            moved = Loaded(
                image.to(self.device),
                mask.to(self.device),
                None if weights is None else weights.to(self.device),
                places,
            )
            if bytes_of(moved) < self._room:
                self._room -= bytes_of(moved)
                self._moved[item.name] = moved
        return moved

    def sample(self, position: int) -> Sample:
        """The sample at a position of the endless sequence, its image normalised; weights, if there is a border."""
        sample = self._drawn(position)
        return sample._replace(image=normalise(self.preprocess, sample.image))

    def _drawn(self, position: int) -> Sample:
        """The same on the 0..1 scale."""
        return self._sampler.draw_all([self._planned(position)])[0]

    def _planned(self, position: int) -> Planned:
        epoch, place = divmod(position, len(self.items))
        index = int(self._order(epoch)[place])
        return self._sampler.plan(index, draw_generator(self.seed, epoch, index))

    def batches(self, first: int) -> Iterator[Batch]:
        """Batch `first`, `first` + 1, ... without end."""
        number = first
        if self.workers == 0:
            while True:
                yield self.at(number)
                number += 1
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[Callable[[], Batch]] = deque()
            try:
                while True:
                    while len(waiting) < AHEAD:
                        waiting.append(self._begun(pool, number))
                        number += 1
                    yield waiting.popleft()()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _begun(self, pool: ThreadPoolExecutor, number: int) -> Callable[[], Batch]:
        """A batch that threads work on; the call waits for it."""
        if self.device != "cpu":
            return pool.submit(self.at, number).result
        batch = self._empty()
        parts = [pool.submit(self._put, batch, index, number) for index in range(self.batch)]

        def wait() -> Batch:
            for part in parts:
                part.result()
            return batch

        return wait

    def at(self, number: int) -> Batch:
        """A batch by its number."""
        batch = self._empty()
        if self.device == "cpu":
            for index in range(self.batch):
                self._put(batch, index, number)
            return batch
        planned = [self._planned(number * self.batch + index) for index in range(self.batch)]
        for index, sample in enumerate(self._sampler.draw_all(planned)):  # each call costs there, so all are one
            self._fill(batch, index, sample)
        return batch

    def _empty(self) -> Batch:
        """A batch that is not filled yet."""
        size = (self.batch, *self.size)
        weights = None if self.border is None else torch.empty(size, device=self.device)
        image = torch.empty(self.batch, self.preprocess.channels, *self.size, device=self.device)
        return Batch(image, torch.empty(size, dtype=torch.uint8, device=self.device), weights)

    def _put(self, batch: Batch, index: int, number: int) -> None:
        """A sample of batch `number` into its place."""
        self._fill(batch, index, self._drawn(number * self.batch + index))

    def _fill(self, batch: Batch, index: int, sample: Sample) -> None:
        normalise(self.preprocess, sample.image, out=batch.image[index])
        batch.mask[index] = sample.mask
        if batch.weights is not None and sample.weights is not None:
            batch.weights[index] = sample.weights
