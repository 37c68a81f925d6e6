"""From images by number to training samples: a sample of one image, at times with parts of others, all from one generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import Tensor

from intarsia.images.preprocess import Preprocess
from intarsia.transforms.mix import copy_paste, cutmix, mosaic
from intarsia.transforms.pipeline import AugmentConfig, Part, apply_plans, draw_plan
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


class Planned(NamedTuple):
    """A sample before it is computed."""

    parts: list[Part]
    finish: Callable[[list[Sample]], Sample]
    """The sample of what its parts became."""


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
        return self.draw_all([self.plan(index, rng)])[0]

    def draw_all(self, planned: Sequence[Planned]) -> list[Sample]:
        """Several samples, computed together."""
        parts = [part for each in planned for part in each.parts]
        made = iter(apply_plans(parts, self.size, self.config, self.preprocess))
        return [each.finish([next(made) for _ in each.parts]) for each in planned]

    def plan(self, index: int, rng: np.random.Generator) -> Planned:
        """What a sample is made of; its generator belongs to it from now on."""
        own = self._part(index, rng, self.config)
        if not self.config.mixes:
            return Planned([own], lambda made: made[0])
        u = rng.random() - self.config.cutmix
        if u < 0:
            return Planned([own, self._other(index, rng, self.config)], lambda made: cutmix(made[0], made[1], rng))
        u -= self.config.mosaic
        if u < 0:
            others = [self._other(index, rng, self.config) for _ in range(3)]
            return Planned([own, *others], lambda made: mosaic(made, rng))
        if u < self.config.copy_paste:
            other = self._other(index, rng, self._looking)
            return Planned([own, other], lambda made: copy_paste(made[0], made[1], self.rare, rng))
        return Planned([own], lambda made: made[0])

    def _part(self, index: int, rng: np.random.Generator, config: AugmentConfig) -> Part:
        image, mask, weights, places = self.load(index)
        return Part(image, mask, weights, draw_plan((image.shape[0], *mask.shape), self.size, config, rng, places))

    def _other(self, index: int, rng: np.random.Generator, config: AugmentConfig) -> Part:
        """A part of another image, if there is another."""
        away = 1 + int(rng.integers(self.count - 1)) if self.count > 1 else 0
        return self._part((index + away) % self.count, rng, config)

    @cached_property
    def _looking(self) -> AugmentConfig:
        """Of a partner whose rare class is to be pasted: its window looks at one."""
        return self.config.replace(focus=1.0)
