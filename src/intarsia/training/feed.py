"""Samples for training: which, in what order, how altered and with which mixed is a pure function of (seed, epoch, index).

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
from intarsia.progress import Progress
from intarsia.training.store import Mode, Store, bytes_of
from intarsia.transforms.pipeline import AugmentConfig
from intarsia.transforms.preprocess import Preprocess
from intarsia.transforms.sample import Sample
from intarsia.transforms.sampling import Loaded, Sampler, classes_looked_for, draw_generator


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
        epoch, place = divmod(position, len(self.items))
        index = int(self._order(epoch)[place])
        sample = self._sampler.draw(index, draw_generator(self.seed, epoch, index))
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
