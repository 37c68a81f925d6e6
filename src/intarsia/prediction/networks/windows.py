"""An image as windows that a network computes, whatever it runs on: this loop needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from intarsia.images.files import Array
from intarsia.images.overlay import to_rgb8
from intarsia.images.preprocess import Preprocess
from intarsia.images.source import ArraySource, Source, Window
from intarsia.ops.running_mean import Maps
from intarsia.ops.tiles import Part, TilePlan, assemble
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.networks.ahead import ahead
from intarsia.prediction.networks.tta import View, views_of

AHEAD = 2
"""Batches that are read and prepared while the network computes another."""
LEAST_PROBABILITY = 1e-8

Border = tuple[int, int, int, int]
"""Pixels (top, left, bottom, right)."""


@dataclass(frozen=True)
class Prepared:
    """One window, as each member takes it."""

    inputs: tuple[Any, ...]
    """(C, h, w) of each member, array or tensor; those prepared alike are one."""
    guide: NDArray[np.uint8] | None
    """(h, w, 3) colours of the window, for a CRF."""


class WindowNetwork(ABC):
    """Windows of an image to logits of each of their pixels, by one model or several that are averaged."""

    preprocesses: tuple[Preprocess, ...]
    """Of each model."""
    parallel: int = 1
    """Batches that are computed at the same time."""

    def __init__(self, preprocesses: Sequence[Preprocess], config: PredictConfig | None) -> None:
        self.preprocesses, self.config = tuple(preprocesses), config or PredictConfig()
        self.views = views_of(self.config)
        self.scale = self.preprocesses[0].scale

    @abstractmethod
    def with_config(self, config: PredictConfig) -> Self:
        """The same models with other settings."""

    @abstractmethod
    def borders(self, height: int, width: int) -> set[Border]:
        """Pixels around a window that each model must see to have logits for all of it."""

    @abstractmethod
    def take(self, preprocess: Preprocess, pixels: Array) -> Any:
        """(C, h, w) that a model computes on, of pixels (h, w[, C])."""

    @abstractmethod
    def __call__(self, batch: Sequence[Prepared], size: tuple[int, int], border: Border = (0, 0, 0, 0)) -> Maps:
        """(N, K, h, w) float32 logits of windows of one `size`, which were prepared with this border; or of the network's own
        resolution, if it is plain: `fit` brings them to the size."""

    @contextmanager
    def lend(self, batch: Sequence[Prepared], size: tuple[int, int], border: Border) -> Iterator[Maps]:
        """The same, until the end of the block: they may lie in memory that another call writes to."""
        yield self(batch, size, border)

    @abstractmethod
    def fit(self, logits_NKHW: Maps, size: tuple[int, int]) -> Maps:
        """Logits brought to a size, bilinear."""

    @abstractmethod
    def nothing(self, num_classes: int, size: tuple[int, int]) -> Maps:
        """(K, h, w) zeros, for a window without any value."""

    def for_many(self, count: int) -> Self:
        """The same models, ready to compute so many images; perhaps several at once."""
        return self

    def eval(self) -> None:  # noqa: B027  an engine has no other state
        """Put every model into evaluation, where there is another state."""

    @property
    def is_plain(self) -> bool:
        """Whether there is one model, one view and no refinement."""
        return len(self.preprocesses) == 1 and self.views == (View(),) and self.config.crf is None

    def border(self, height: int, width: int) -> Border:
        """Pixels around a window that models which lose their border are given with it, if all need the same."""
        if any(preprocess.scale != 1 for preprocess in self.preprocesses):
            return 0, 0, 0, 0
        borders = self.borders(height, width)
        return borders.pop() if len(borders) == 1 else (0, 0, 0, 0)

    def plan(self, size: tuple[int, int]) -> TilePlan:
        """The tiles of an image of (height, width)."""
        return self.config.plan(size, self.scale, valid=any(self.border(256, 256)))

    def prepare(self, pixels: Array, inner: tuple[slice, slice] | None = None) -> Prepared:
        """Pixels of a window with its border, (h, w[, C]), as the models take them.

        Args:
            inner: the window without its border.
        """
        done = {each: self.take(each, pixels) for each in dict.fromkeys(self.preprocesses)}
        guide = None
        if self.config.crf is not None:
            guide = to_rgb8(pixels[inner] if inner else pixels, self.preprocesses[0].value_range)
        return Prepared(tuple(done[preprocess] for preprocess in self.preprocesses), guide)

    def of_image(self, pixels: Array) -> Maps:
        """(1, K, h, w) logits of an image in memory; of the network's resolution if it is computed whole by a plain network."""
        source = ArraySource(pixels)
        plan = self.plan(source.size)
        if plan.count > 1:
            return assemble(plan.part(), self.tiles(source, plan.part()))[None]
        border = self.border(*source.size)
        _, framed, inner = _framed(source, (0, 0), source.size, border)
        return self([self.prepare(framed, inner)], source.size, border)

    def tiles(
        self, source: Source, part: Part, seen: Callable[[int, int, Window], None] | None = None, *, classes: int = 0
    ) -> Iterator[Maps]:
        """(K, h, w) logits of each tile of a part, at the image's resolution, in the part's order.

        Windows are read and prepared by another thread.

        Args:
            seen: told row, column and pixels of each tile, before its logits are given.
            classes: K; where it is known, tiles without any value are not computed.
        """
        batches = self._batches(source, part, classes)
        if len(part.tiles()) == 1:  # a thread for one window would only be waited for
            for batch in batches:
                batch.tell(seen)
                if batch.prepared:
                    with self.lend(batch.prepared, batch.size, batch.border) as logits:
                        yield from self.fit(logits, batch.size)
                else:
                    yield from self._computed(batch, classes)
            return
        for batch, found in self._in_turn(ahead(batches, AHEAD), classes):
            batch.tell(seen)
            yield from found

    def _computed(self, batch: _Batch, classes: int) -> Iterable[Maps]:
        """(K, h, w) logits of each tile of a batch."""
        if not batch.prepared:
            return [self.nothing(classes, batch.size) for _ in batch.places]
        fitted: Iterable[Maps] = self.fit(self(batch.prepared, batch.size, batch.border), batch.size)
        return fitted

    def _in_turn(self, batches: Iterator[_Batch], classes: int) -> Iterator[tuple[_Batch, Iterable[Maps]]]:
        """Batches with their logits, in order; as many as may be are computed at the same time."""
        if self.parallel == 1:
            yield from ((batch, self._computed(batch, classes)) for batch in batches)
            return
        with ThreadPoolExecutor(self.parallel, "tiles") as threads:
            waiting: deque[tuple[_Batch, Future[Iterable[Maps]]]] = deque()
            for batch in batches:
                waiting.append((batch, threads.submit(self._computed, batch, classes)))
                if len(waiting) > self.parallel:
                    first, logits = waiting.popleft()
                    yield first, logits.result()
            for first, logits in waiting:
                yield first, logits.result()

    def _batches(self, source: Source, part: Part, classes: int) -> Iterator[_Batch]:
        rows, columns = part.plan.rows.spans, part.plan.columns.spans

        def size_of(place: tuple[int, int]) -> tuple[int, int]:
            (top, bottom), (left, right) = rows[place[0]], columns[place[1]]
            return bottom - top, right - left

        for size, run in groupby(part.tiles(), size_of):
            border = self.border(*size)
            waiting = _Batch(size, border, [], [], [])
            for place in run:
                start = rows[place[0]][0], columns[place[1]][0]
                window, pixels, inner = _framed(source, start, size, border)
                if classes and window.nodata is not None and window.nodata.all():
                    if waiting.places:
                        yield waiting
                    yield _Batch(size, border, [place], [window], [])
                    waiting = _Batch(size, border, [], [], [])
                    continue
                waiting.places.append(place)
                waiting.windows.append(window)
                waiting.prepared.append(self.prepare(pixels, inner))
                if len(waiting.places) == self.config.batch:
                    yield waiting
                    waiting = _Batch(size, border, [], [], [])
            if waiting.places:
                yield waiting


@dataclass(frozen=True)
class _Batch:
    """Tiles of one size."""

    size: tuple[int, int]
    border: Border
    places: list[tuple[int, int]]
    windows: list[Window]
    prepared: list[Prepared]
    """Empty if there is nothing to compute."""

    def tell(self, seen: Callable[[int, int, Window], None] | None) -> None:
        """Row, column and pixels of each tile."""
        if seen:
            for (row, column), window in zip(self.places, self.windows, strict=True):
                seen(row, column, window)


def _framed(
    source: Source, start: tuple[int, int], size: tuple[int, int], border: Border
) -> tuple[Window, Array, tuple[slice, slice]]:
    """A window, its pixels with a border, mirrored where the image ends, and where it lies in them."""
    inner = slice(border[0], border[0] + size[0]), slice(border[1], border[1] + size[1])
    if not any(border):
        window = source.read(*start, *size)
        return window, window.pixels, inner
    places: list[NDArray[np.intp]] = []
    for first, length, side, before, after in zip(start, size, source.size, border[:2], border[2:], strict=True):
        mirrored = _mirrored(side, max(0, before - first), max(0, first + length + after - side))
        skipped = max(0, first - before)
        places.append(mirrored[skipped : skipped + before + length + after])
    (rows, columns), (top, left) = places, (int(places[0].min()), int(places[1].min()))
    wide = source.read(top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
    pixels: Array = wide.pixels[rows - top][:, columns - left]
    nodata = None if wide.nodata is None else wide.nodata[rows - top][:, columns - left][inner]
    return Window(pixels[inner], nodata), pixels, inner


def _mirrored(side: int, before: int, after: int) -> NDArray[np.intp]:
    """Indices of a side extended by mirroring at its first and last pixel, as often as needed (ops/pad.py's `mirror_index`)."""
    position = np.arange(-before, side + after) % max(1, 2 * (side - 1))
    return np.minimum(position, 2 * (side - 1) - position)
