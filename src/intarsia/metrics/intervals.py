"""Bootstrap intervals over images: how far a score could lie from this by the choice of images alone.

Images are drawn with replacement, as many as there are, `rounds` times; the interval runs between the percentiles of the
scores of the draws (the percentile bootstrap: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Images
are drawn and never pixels, since pixels of one image are not independent. What the interval does not hold: another training
run, or images of another kind. With few images (below about 20) it is too narrow.

A draw that lacks a class has no score for it (NaN) and is left out for that score. Fewer than 2 images have no interval (NaN).
The draws are Philox(seed): the same seed and number of images give the same interval, anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intarsia.errors import ConfigError, DataError

Floats = NDArray[np.float64]
Score = Callable[[NDArray[Any]], ArrayLike]
"""A number, or an array of them, of the summed counts of images: a (K, K) confusion matrix, or counts of another shape."""

ROUNDS = 2000
LEVEL = 0.95
STREAM = 0xB007
"""The second word of the Philox key, so that the draws are not those of another use of the seed."""


@dataclass(frozen=True)
class Difference:
    """What the first model scores more than the second, on the same images; each is () or as the score."""

    value: Floats
    low: Floats
    high: Floats

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Whether 0 is outside the interval."""
        return np.asarray((self.low > 0) | (self.high < 0))


def interval(
    data: ArrayLike, score: Score | None = None, *, rounds: int = ROUNDS, seed: int = 0, level: float = LEVEL
) -> tuple[Floats, Floats]:
    """(low, high) of a score of the images.

    Args:
        data: with a score, (I, K, K) confusion matrices, one an image, or other counts that add; without, (I, ...) values
            of each image, whose mean is meant, NaN left out.
        score: of the sum over images, such as `lambda counts: overlap_scores(counts).mean_iou`; may return an array.
        rounds: number of draws.
        seed: of the draws.
        level: share of the draws between low and high.

    >>> low, high = interval([0.5, 0.7, 0.6, 0.9, np.nan])
    >>> round(float(low), 3), round(float(high), 3)
    (0.54, 0.833)
    """
    values = _data(data, score)
    drawn = _drawn(values, score, rounds, seed)
    return _percentiles(np.where(_enough(values, score), drawn, np.nan), level)


def paired_difference(
    first: Mapping[str, ArrayLike],
    second: Mapping[str, ArrayLike],
    score: Score | None = None,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    level: float = LEVEL,
) -> Difference:
    """Score of the first less that of the second, with its interval: both are scored on the same draws.

    Args:
        first: image name to its confusion matrix (with a score) or values (without), of one model.
        second: the same images, of the other.
        score: see `interval`, as are the others.
    """
    names = _same_images(first, second)
    pair = [_data([np.asarray(side[name]) for name in names], score) for side in (first, second)]
    if pair[0].shape != pair[1].shape:
        raise DataError(
            f"the two models have data of shapes {pair[0].shape} and {pair[1].shape}; they must be the same."
        )
    if score is not None and names and pair[0].ndim == 3 and pair[0].shape[1] == pair[0].shape[2]:
        truths = [values.sum(2) for values in pair]
        for place in np.flatnonzero((truths[0] != truths[1]).any(1))[:1]:
            raise DataError(f"{names[place]}: the two models were scored on different masks. Score both on the same.")
    enough = _enough(pair[0], score) & _enough(pair[1], score)
    drawn = _drawn(pair[0], score, rounds, seed) - _drawn(pair[1], score, rounds, seed)
    low, high = _percentiles(np.where(enough, drawn, np.nan), level)
    once = np.ones((1, len(names)))
    return Difference(_scored(once, pair[0], score)[0] - _scored(once, pair[1], score)[0], low, high)


def draws(images: int, rounds: int = ROUNDS, seed: int = 0) -> Iterator[Floats]:
    """How often each image is in each draw, in blocks of (rounds, I): multinomial, each row sums to I."""
    if rounds < 1:
        raise ConfigError(f"rounds must be at least 1, got {rounds}.")
    rng = np.random.Generator(np.random.Philox(key=[seed, STREAM]))
    step = max(1, (1 << 20) // max(images, 1))
    for start in range(0, rounds, step):
        count = min(step, rounds - start)
        places = rng.integers(0, images, (count, images)) + np.arange(count)[:, None] * images
        yield np.bincount(places.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)


def _data(data: ArrayLike, score: Score | None) -> Floats:
    values = np.asarray(data, np.float64)  # multiplies many times faster than int64, and holds every count below 2^53
    if score is not None and values.ndim == 1 and values.size:
        raise DataError(
            f"a score needs counts of each image, such as (images, K, K) confusion matrices, got {values.shape}. "
            "For values leave `score` out."
        )
    if values.ndim == 0:
        raise DataError("an interval is over images, and this is one number. Give one value an image.")
    return values


def _drawn(values: Floats, score: Score | None, rounds: int, seed: int) -> Floats:
    """(rounds, ...) score of each draw."""
    if not len(values):
        return np.full((rounds, *(values.shape[1:] if score is None else ())), np.nan)
    return np.concatenate([_scored(weights, values, score) for weights in draws(len(values), rounds, seed)])


def _scored(weights_BI: Floats, values: Floats, score: Score | None) -> Floats:
    """(B, ...) score of each row of weights."""
    if not len(values):
        return np.full((len(weights_BI), *values.shape[1:]), np.nan)
    if score is None:
        there = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            means: Floats = _product(weights_BI, np.where(there, values, 0.0)) / _product(weights_BI, there)
        return means
    blocks, whole = [], bool((values == np.rint(values)).all())
    step = max(1, (1 << 22) // values[0].size)
    for start in range(0, len(weights_BI), step):
        counts_B = _product(weights_BI[start : start + step], values)
        counts_B = counts_B.astype(np.int64) if whole else counts_B
        blocks += [np.asarray(score(counts), np.float64) for counts in counts_B]
    return np.stack(blocks)


def _product(weights_BI: Floats, values: Floats) -> Floats:
    flat = weights_BI @ values.reshape(len(values), -1)
    return flat.reshape(len(weights_BI), *values.shape[1:])


def _enough(values: Floats, score: Score | None) -> NDArray[np.bool_]:
    """Whether at least 2 images say something."""
    if score is None:
        return np.asarray((~np.isnan(values)).sum(0) >= 2)
    return np.asarray(values.reshape(len(values), -1).any(1).sum() >= 2) if len(values) else np.asarray(False)


def _percentiles(drawn: Floats, level: float) -> tuple[Floats, Floats]:
    if not 0 < level < 1:
        raise ConfigError(f"level must be between 0 and 1, got {level}. 95 % is 0.95.")
    low, high = (np.full(drawn.shape[1:], np.nan) for _ in range(2))
    for place in np.ndindex(drawn.shape[1:]):
        found = drawn[(slice(None), *place)]
        found = found[~np.isnan(found)]
        if found.size:
            low[place], high[place] = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return low, high


def _same_images(first: Mapping[str, ArrayLike], second: Mapping[str, ArrayLike]) -> list[str]:
    """The names, in order."""
    different = sorted(set(first) ^ set(second))
    if different:
        side = "first" if different[0] in first else "second"
        raise DataError(
            f"the two models were scored on different images: {len(different)} are on one side only, such as "
            f"{different[0]} ({side}). Score both on the same."
        )
    return sorted(first)
