"""From images by number to training samples: a sample of one image, at times with parts of others, all from one generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import Tensor

from intarsia.transforms.mix import copy_paste, cutmix, mosaic
from intarsia.transforms.pipeline import AugmentConfig, augment
from intarsia.transforms.preprocess import Preprocess
from intarsia.transforms.rare import rare_classes
from intarsia.transforms.sample import Sample


class Loaded(NamedTuple):
    """A whole image as it was read, at data.scale, and what belongs to its pixels."""

    image: Tensor
    """(C, H, W) stored values, uint8 or float32."""
    mask: Tensor
    """(H, W) uint8, 255 ignored."""
    weights: Tensor | None = None
    """(H, W) float32"""
    places: Tensor | None = None
    """(n, 3) int32 class, row, column of pixels of rare classes, where somebody looks for them."""


def draw_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample: Philox(seed, epoch, index)."""
    return np.random.Generator(np.random.Philox(key=[seed, (epoch + 1) << 32 | index]))


def classes_looked_for(config: AugmentConfig, pixels: np.typing.ArrayLike) -> tuple[int, ...]:
    """Rare classes whose places must be known; none where no window and no paste asks for them."""
    return rare_classes(pixels) if config.focus or config.copy_paste else ()


@dataclass(frozen=True)
class Sampler:
    """Samples of images 0 to `count` - 1. A sample is a function of its image's number and its generator alone."""

    load: Callable[[int], Loaded]
    count: int
    size: tuple[int, int]
    config: AugmentConfig
    preprocess: Preprocess
    rare: tuple[int, ...] = ()

    def draw(self, index: int, rng: np.random.Generator) -> Sample:
        """A sample of an image, on the 0..1 scale. Without mixes nothing more is drawn than `augment` draws."""
        sample = self._one(index, rng, self.config)
        if not self.config.mixes:
            return sample
        u = rng.random() - self.config.cutmix
        if u < 0:
            return cutmix(sample, self._other(index, rng, self.config), rng)
        u -= self.config.mosaic
        if u < 0:
            return mosaic([sample, *(self._other(index, rng, self.config) for _ in range(3))], rng)
        if u < self.config.copy_paste:
            return copy_paste(sample, self._other(index, rng, self._looking), self.rare, rng)
        return sample

    def _one(self, index: int, rng: np.random.Generator, config: AugmentConfig) -> Sample:
        image, mask, weights, places = self.load(index)
        return augment(image, mask, self.size, config, self.preprocess, rng, weights, places)

    def _other(self, index: int, rng: np.random.Generator, config: AugmentConfig) -> Sample:
        """A sample of another image, if there is another."""
        away = 1 + int(rng.integers(self.count - 1)) if self.count > 1 else 0
        return self._one((index + away) % self.count, rng, config)

    @cached_property
    def _looking(self) -> AugmentConfig:
        """Of a partner whose rare class is to be pasted: its window looks at one."""
        return self.config.replace(focus=1.0)
