"""What computes the logits of an image by torch: one model or several, one view or several, with a CRF or without.

Training's validation, evaluation and prediction all ask this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.devices import Device
from intarsia.images.files import Array
from intarsia.images.preprocess import Preprocess
from intarsia.models.base import SegmentationModel, border_of, logits_for, resize_logits
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.networks.tta import View
from intarsia.prediction.networks.windows import LEAST_PROBABILITY, Border, Prepared, WindowNetwork


@dataclass(frozen=True)
class Member:
    """A model and how its images are prepared."""

    model: nn.Module
    preprocess: Preprocess

    @property
    def net(self) -> SegmentationModel:
        return cast(SegmentationModel, getattr(self.model, "module", self.model))


class Network(WindowNetwork):
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
        super().__init__([member.preprocess for member in members], config)
        self.members, self.device = tuple(members), device
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def with_config(self, config: PredictConfig) -> Self:
        """The same models with other settings."""
        return type(self)(self.members, self.device, config, channels_last=self.memory_format is torch.channels_last)

    def eval(self) -> None:
        """Put every model into evaluation."""
        for member in self.members:
            member.model.eval()

    def borders(self, height: int, width: int) -> set[Border]:
        return {border_of(member.net, height, width) for member in self.members}

    def take(self, preprocess: Preprocess, pixels: Array) -> Tensor:
        return torch.from_numpy(preprocess(pixels))

    def fit(self, logits_NKHW: Tensor, size: tuple[int, int]) -> Tensor:
        with torch.inference_mode():
            return resize_logits(logits_NKHW, size)

    def nothing(self, num_classes: int, size: tuple[int, int]) -> Tensor:
        return torch.zeros(num_classes, *size, device=self.device.torch_name)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Prepared], size: tuple[int, int], border: Border = (0, 0, 0, 0)) -> Tensor:
        seen = (logits for place in range(len(self.members)) for logits in self._views(batch, place, size, border))
        if self.is_plain:
            return next(seen)
        logits = self._mean(resize_logits(each, size) for each in seen)
        return logits if self.config.crf is None else refined(logits, batch, self.config)

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


def refined(logits_NKHW: Tensor, batch: Sequence[Prepared], config: PredictConfig) -> Tensor:
    """Logits after the CRF of the settings."""
    from intarsia.ops.crf import dense_crf

    assert config.crf is not None
    guides = np.stack([prepared.guide for prepared in batch if prepared.guide is not None])
    guide = torch.from_numpy(guides).permute(0, 3, 1, 2).to(logits_NKHW.device)
    return dense_crf(logits_NKHW, guide, config.crf)


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
