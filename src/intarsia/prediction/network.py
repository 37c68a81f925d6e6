"""What computes the logits of an image: one model or several, one view or several, whole or in tiles, with a CRF or without.

Training's validation, evaluation and prediction all ask this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.devices import Device
from intarsia.images.files import Array
from intarsia.images.overlay import to_rgb8
from intarsia.images.preprocess import Preprocess
from intarsia.images.source import ArraySource, Source, Window
from intarsia.models.base import SegmentationModel, border_of, logits_for, resize_logits
from intarsia.ops.pad import mirror_index
from intarsia.ops.tiles import Part, TilePlan, assemble
from intarsia.prediction.ahead import ahead
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.tta import View, views_of

AHEAD = 2
"""Batches that are read and prepared while the network computes another."""
LEAST_PROBABILITY = 1e-8

Border = tuple[int, int, int, int]


@dataclass(frozen=True)
class Member:
    """A model and how its images are prepared."""

    model: nn.Module
    preprocess: Preprocess

    @property
    def net(self) -> SegmentationModel:
        return cast(SegmentationModel, getattr(self.model, "module", self.model))


@dataclass(frozen=True)
class Prepared:
    """One window, as each member takes it."""

    inputs: tuple[Tensor, ...]
    """(C, h, w) of each member; those prepared alike are one tensor."""
    guide: Tensor | None
    """(3, h, w) colours of the window on the scale 0..255, for a CRF."""


class Network:
    """Windows of an image to logits of each of their pixels.

    Args:
        members: models that are averaged.
        device: where they lie.
        config: views, what is averaged, CRF, tiles.
        channels_last: order of memory in which images are given.
    """

    def __init__(
        self,
        members: Sequence[Member],
        device: Device,
        config: PredictConfig | None = None,
        *,
        channels_last: bool = True,
    ) -> None:
        self.members, self.device, self.config = tuple(members), device, config or PredictConfig()
        self.views = views_of(self.config)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.scale = self.members[0].preprocess.scale

    def eval(self) -> None:
        """Put every model into evaluation."""
        for member in self.members:
            member.model.eval()

    @property
    def is_plain(self) -> bool:
        """Whether there is one model, one view and no refinement."""
        return len(self.members) == 1 and self.views == (View(),) and self.config.crf is None

    def border(self, height: int, width: int) -> Border:
        """Pixels around a window that models which lose their border are given with it, if all need the same."""
        if any(member.preprocess.scale != 1 for member in self.members):
            return 0, 0, 0, 0
        borders = {border_of(member.net, height, width) for member in self.members}
        return borders.pop() if len(borders) == 1 else (0, 0, 0, 0)

    def plan(self, size: tuple[int, int]) -> TilePlan:
        """The tiles of an image of (height, width)."""
        return self.config.plan(size, self.scale, valid=any(self.border(256, 256)))

    def prepare(self, pixels: Array, inner: tuple[slice, slice] | None = None) -> Prepared:
        """Pixels of a window with its border, (h, w[, C]), as the members take them.

        Args:
            inner: the window without its border.
        """
        done: dict[Preprocess, Tensor] = {}
        for member in self.members:
            if member.preprocess not in done:
                done[member.preprocess] = torch.from_numpy(member.preprocess(pixels))
        guide = None
        if self.config.crf is not None:
            rgb = to_rgb8(pixels[inner] if inner else pixels, self.members[0].preprocess.value_range)
            guide = torch.from_numpy(rgb).permute(2, 0, 1)
        return Prepared(tuple(done[member.preprocess] for member in self.members), guide)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Prepared], size: tuple[int, int], border: Border = (0, 0, 0, 0)) -> Tensor:
        """(N, K, h, w) float32 logits of windows of one `size`, which were prepared with this border; or of the network's own
        resolution, if it is plain: `resize_logits` brings them to the size."""
        seen = (logits for place in range(len(self.members)) for logits in self._views(batch, place, size, border))
        if self.is_plain:
            return next(seen)
        logits = self._mean(resize_logits(each, size) for each in seen)
        if self.config.crf is None:
            return logits
        from intarsia.ops.crf import dense_crf

        guides = [prepared.guide for prepared in batch]
        guide = torch.stack([each for each in guides if each is not None]).to(logits.device)
        return dense_crf(logits, guide, self.config.crf)

    def _views(self, batch: Sequence[Prepared], place: int, size: tuple[int, int], border: Border) -> Iterator[Tensor]:
        """(N, K, h, w) logits of each view of a member; views of one shape are computed together as far as a batch goes."""
        images = [prepared.inputs[place] for prepared in batch]
        image = torch.stack(images) if len(images) > 1 else images[0].unsqueeze(0)
        image = image.to(self.device.torch_name, non_blocking=True)
        model, together = self.members[place].model, max(1, self.config.batch // len(batch))
        for (scale, _), alike in groupby(sorted(self.views, key=_shape), key=_shape):
            shown, framed = _scaled(image, scale, size, border)
            for views in _chunks(list(alike), together):
                stacked = torch.cat([view.of(shown) for view in views]) if len(views) > 1 else views[0].of(shown)
                stacked = stacked.contiguous(memory_format=self.memory_format)
                with self.device.autocast():
                    logits = model(stacked) if framed else logits_for(model, stacked)
                for view, each in zip(views, logits.float().chunk(len(views)), strict=True):
                    back = view.back(each)
                    yield back[..., : size[0], : size[1]] if framed else back

    def _mean(self, found: Iterable[Tensor]) -> Tensor:
        """Over views and models, one after the other."""
        total, count = torch.zeros(()), 0
        for logits in found:
            one = logits if self.config.average == "logits" else logits.softmax(1)
            total, count = (one if count == 0 else total + one), count + 1
        mean = total / count
        return mean if self.config.average == "logits" else mean.clamp_(min=LEAST_PROBABILITY).log_()

    @torch.inference_mode()
    def of_image(self, pixels: Array) -> Tensor:
        """(1, K, h, w) logits of an image in memory; of the network's resolution if it is computed whole by a plain network."""
        source = ArraySource(pixels)
        plan = self.plan(source.size)
        if plan.count > 1:
            return assemble(plan.part(), self.tiles(source, plan.part())).unsqueeze(0)
        border = self.border(*source.size)
        _, framed, inner = _framed(source, (0, 0), source.size, border)
        return self([self.prepare(framed, inner)], source.size, border)

    def tiles(
        self, source: Source, part: Part, seen: Callable[[int, int, Window], None] | None = None, *, classes: int = 0
    ) -> Iterator[Tensor]:
        """(K, h, w) logits of each tile of a part, at the image's resolution, in the part's order.

        Windows are read and prepared by another thread.

        Args:
            seen: told row, column and pixels of each tile, before its logits are given.
            classes: K; where it is known, tiles without any value are not computed.
        """
        for batch in ahead(self._batches(source, part, classes), AHEAD):
            if seen:
                for (row, column), window in zip(batch.places, batch.windows, strict=True):
                    seen(row, column, window)
            if batch.prepared:
                logits = resize_logits(self(batch.prepared, batch.size, batch.border), batch.size)
                yield from logits.unbind(0)
            else:
                yield from (torch.zeros(classes, *batch.size, device=self.device.torch_name) for _ in batch.places)

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


def _shape(view: View) -> tuple[float, int]:
    """Views with the same are of one shape."""
    return view.scale, view.turns % 2


def _chunks(views: list[View], size: int) -> list[list[View]]:
    return [views[first : first + size] for first in range(0, len(views), size)]


def _scaled(image_NCHW: Tensor, scale: float, size: tuple[int, int], border: Border) -> tuple[Tensor, bool]:
    """The image as large as a view sees it, and whether it still has its border."""
    framed = any(border)
    if scale == 1:
        return image_NCHW, framed
    if framed:
        image_NCHW = image_NCHW[..., border[0] : border[0] + size[0], border[1] : border[1] + size[1]]
    target = [max(1, round(side * scale)) for side in image_NCHW.shape[-2:]]
    return F.interpolate(image_NCHW, target, mode="bilinear", antialias=True, align_corners=False), False


def _framed(
    source: Source, start: tuple[int, int], size: tuple[int, int], border: Border
) -> tuple[Window, Array, tuple[slice, slice]]:
    """A window, its pixels with a border, mirrored where the image ends, and where it lies in them."""
    inner = slice(border[0], border[0] + size[0]), slice(border[1], border[1] + size[1])
    if not any(border):
        window = source.read(*start, *size)
        return window, window.pixels, inner
    places: list[NDArray[np.int64]] = []
    for first, length, side, before, after in zip(start, size, source.size, border[:2], border[2:], strict=True):
        mirrored = mirror_index(side, max(0, before - first), max(0, first + length + after - side)).numpy()
        skipped = max(0, first - before)
        places.append(mirrored[skipped : skipped + before + length + after])
    (rows, columns), (top, left) = places, (int(places[0].min()), int(places[1].min()))
    wide = source.read(top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
    pixels: Array = wide.pixels[rows - top][:, columns - left]
    nodata = None if wide.nodata is None else wide.nodata[rows - top][:, columns - left][inner]
    return Window(pixels[inner], nodata), pixels, inner
