"""What computes the logits of an image by an engine that runs exported files: no torch, but for a CRF."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from intarsia.devices import cores
from intarsia.engines.card import Card
from intarsia.engines.engine import Engine
from intarsia.engines.inputs import input_of
from intarsia.errors import ConfigError
from intarsia.images.files import Array
from intarsia.images.preprocess import Preprocess, resize_planes
from intarsia.ops.resize import resize_maps
from intarsia.ops.softmax import softmax_of
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.networks.windows import LEAST_PROBABILITY, Border, Prepared, WindowNetwork

Floats = NDArray[np.float32]
MANY = 4
"""Images for each core that are worth an engine which computes several at once."""
MOST_STREAMS = 8
"""Images that are computed at once."""


class EngineNetwork(WindowNetwork):
    """Windows of an image to logits of each of their pixels, float32 arrays.

    Args:
        engines: whose results are averaged.
    """

    def __init__(self, engines: Sequence[Engine], config: PredictConfig | None = None) -> None:
        super().__init__([engine.card.preprocess for engine in engines], config)
        self.engines, self.parallel = tuple(engines), min(engine.streams for engine in engines)
        kinds = {engine.card.input for engine in engines}
        if len(kinds) > 1:
            raise ConfigError("models exported with and without --with-pre cannot be averaged; export them alike.")
        self._normalised = kinds == {"normalised"}
        wanted = {"probabilities", "entropy"} & set(self.config.outputs)
        if wanted and any(engine.card.output == "classes" for engine in engines):
            raise ConfigError(f"outputs: {', '.join(sorted(wanted))} went with --with-argmax; export without it.")

    def with_config(self, config: PredictConfig) -> Self:
        """The same engines with other settings."""
        return type(self)(self.engines, config)

    def for_many(self, count: int) -> Self:
        """Several images at once, on a core each, if there are enough of them: all cores on one image wait for each other."""
        streams = min(cores(), MOST_STREAMS)
        if count < MANY * streams or streams == self.parallel:
            return self
        return type(self)([engine.with_streams(streams) for engine in self.engines], self.config)

    def borders(self, height: int, width: int) -> set[Border]:
        found = (engine.card.border for engine in self.engines)
        return {(0, 0, 0, 0) if border is None else border.around(height, width) for border in found}

    def take(self, preprocess: Preprocess, pixels: Array) -> Array:
        return preprocess(pixels) if self._normalised else preprocess.resized(pixels)

    def fit(self, logits_NKHW: Floats, size: tuple[int, int]) -> Floats:
        return resize_maps(logits_NKHW, size)

    def nothing(self, num_classes: int, size: tuple[int, int]) -> Floats:
        return np.zeros((num_classes, *size), np.float32)

    def __call__(self, batch: Sequence[Prepared], size: tuple[int, int], border: Border = (0, 0, 0, 0)) -> Floats:
        seen = (logits for place in range(len(self.engines)) for logits in self._views(batch, place, size, border))
        if self.is_plain:
            return next(seen)
        logits = self._mean(resize_maps(each, size) for each in seen)
        if self.config.crf is None:
            return logits
        import torch

        from intarsia.prediction.networks.torch_network import refined

        found: Floats = refined(torch.from_numpy(logits), batch, self.config).numpy()
        return found

    @contextmanager
    def lend(self, batch: Sequence[Prepared], size: tuple[int, int], border: Border) -> Iterator[Floats]:
        """Logits in the engine's own memory, if it is one engine and one view."""
        engine = self.engines[0]
        if not self.is_plain or engine.card.output == "classes":
            yield self(batch, size, border)
            return
        image = _stacked([prepared.inputs[0] for prepared in batch])
        with engine.lend(input_of(image, engine.card, framed=any(border))) as found:
            yield found[..., : size[0], : size[1]] if engine.card.border is not None else found

    def _views(self, batch: Sequence[Prepared], place: int, size: tuple[int, int], border: Border) -> Iterator[Floats]:
        """(N, K, h, w) logits of each view of an engine."""
        image = _stacked([prepared.inputs[place] for prepared in batch])
        engine, framed = self.engines[place], any(border)
        for scale, alike in groupby(self.views, key=lambda view: view.scale):
            shown = image if scale == 1 else _scaled(image, scale, size, border)
            whole = framed and scale == 1
            for view in alike:
                back = view.back(self._logits(engine, view.of(shown), whole=whole))
                yield back[..., : size[0], : size[1]] if whole else back

    def _logits(self, engine: Engine, image_NCHW: Array, *, whole: bool) -> Floats:
        """(N, K, h, w) of a batch, which has its border already if it is `whole`."""
        height, width = image_NCHW.shape[-2:]
        found = engine(input_of(image_NCHW, engine.card, framed=whole))
        if engine.card.output == "classes":
            found = _votes(found, engine.card)
        return found if engine.card.border is None or whole else found[..., :height, :width]

    def _mean(self, found: Iterable[Floats]) -> Floats:
        """Over views and engines, one after the other."""
        total, count = np.zeros((), np.float32), 0
        for logits in found:
            total = total + (logits if self.config.average == "logits" else softmax_of(logits, axis=1))
            count += 1
        mean: Floats = total / np.float32(count)
        return mean if self.config.average == "logits" else np.log(np.maximum(mean, np.float32(LEAST_PROBABILITY)))


def _stacked(images: Sequence[Any]) -> Any:
    """(N, C, h, w); of one image without a copy."""
    return images[0][None] if len(images) == 1 else np.stack(images)


def _votes(classes_NHW: NDArray[np.uint8], card: Card) -> Floats:
    """(N, K, h, w), 1 at each pixel's class: where tiles overlap, the majority counts."""
    each = np.arange(card.classes.count, dtype=np.uint8)[:, None, None]
    votes: Floats = (classes_NHW[:, None] == each).astype(np.float32)
    return votes


def _scaled(image_NCHW: Array, scale: float, size: tuple[int, int], border: Border) -> Array:
    """The image as large as a view sees it, without its border."""
    given: Any = image_NCHW
    if any(border):
        given = given[..., border[0] : border[0] + size[0], border[1] : border[1] + size[1]]
    height, width = (max(1, round(side * scale)) for side in given.shape[-2:])
    return cast(Array, np.stack([resize_planes(each, (height, width)) for each in given]))
