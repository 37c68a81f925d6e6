"""A model as a file is to compute it: what its card promises, in operations that hold for every batch and size.

Shapes: N batch, C channels, H height, W width; K classes.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from intarsia.engines.card import Border
from intarsia.errors import ConfigError
from intarsia.images.preprocess import Preprocess
from intarsia.models.base import SegmentationModel, resize_logits

FARTHEST = 700
"""Sides up to this are held against a border rule."""


class Traceable(nn.Module):
    """Normalisation, the network, classes: as much of them as a file is to hold.

    The model is copied, to float32 on the processor, and stays as it is.

    Args:
        preprocess: how stored values are normalised.
        input: normalised, images (N, C, H, W) float32; pixels, stored values (N, H, W, C), uint8 or float32.
        output: logits, (N, K, H, W) float32; classes, (N, H, W) uint8, the class of the largest logit.

    Raises:
        ConfigError: images are normalised for another number of channels than the model takes.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: SegmentationModel,
        preprocess: Preprocess,
        *,
        input: Literal["normalised", "pixels"] = "normalised",  # noqa: A002  # as the card calls it
        output: Literal["logits", "classes"] = "logits",
    ) -> None:
        super().__init__()
        if preprocess.channels != model.config.channels:
            raise ConfigError(
                f"preprocess.channels: is {preprocess.channels}, the model takes {model.config.channels}. Give the model's."
            )
        self.model = with_any_size(copy.deepcopy(model).float().cpu())
        self.input, self.output = input, output
        self.keeps_size = model.output_size(FARTHEST, FARTHEST) == (FARTHEST, FARTHEST)
        scale_C, shift_C = normalisation(preprocess)
        self.register_buffer("scale", scale_C[:, None, None])
        self.register_buffer("shift", shift_C[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        if self.input == "pixels":
            image = image.permute(0, 3, 1, 2).float() * self.scale + self.shift
        logits_NKHW: Tensor = self.model(image).float()
        if self.keeps_size:
            logits_NKHW = resize_logits(logits_NKHW, (image.shape[-2], image.shape[-1]))
        return logits_NKHW if self.output == "logits" else logits_NKHW.argmax(dim=1).to(torch.uint8)


def normalisation(preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """a, b (C): a pixel + b = ((pixel - low) / (high - low) - mean) / std."""
    low, high, mean, std = (
        np.broadcast_to(np.asarray(each, np.float64), preprocess.channels)
        for each in (*preprocess.value_range, preprocess.mean, preprocess.std)
    )
    scale = 1 / ((high - low) * std)
    shift = -low * scale - mean / std
    return torch.from_numpy(scale).float(), torch.from_numpy(shift).float()


def with_any_size(model: nn.Module) -> nn.Module:
    """The model in equal parts that are written down well for every size: poolings to a grid, ReLU6; no autocast inside."""
    for parent in list(model.modules()):
        if getattr(parent, "computes_in_float32", False):  # as everything does here
            parent.__class__ = type(parent).__mro__[1]
        for name, module in parent.named_children():
            if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
                setattr(parent, name, GridMeans(module.output_size))
            elif isinstance(module, nn.ReLU6):
                setattr(parent, name, UpToSix())
    return model


class UpToSix(nn.Module):
    """ReLU6 as one operator; torch would take it apart into comparisons."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6)


class GridMeans(nn.Module):
    """AdaptiveAvgPool2d as two matrix products: cell i of b is the mean of pixels floor(i H / b) to ceil((i + 1) H / b)."""

    def __init__(self, bins: int | tuple[int | None, ...] | None) -> None:
        super().__init__()
        self.bins = (bins, bins) if isinstance(bins, int) or bins is None else bins

    def forward(self, x_NCHW: Tensor) -> Tensor:
        height, width = x_NCHW.shape[-2:]
        rows_bH, columns_bW = (
            means(bins or size, size, x_NCHW) for bins, size in zip(self.bins, (height, width), strict=True)
        )
        return rows_bH @ (x_NCHW @ columns_bW.transpose(0, 1))


def means(bins: int, size: int, like: Tensor) -> Tensor:
    """(bins, size) weights of the mean of each cell of a side."""
    cell_b1 = torch.arange(bins, device=like.device)[:, None]
    pixel = torch.arange(size, device=like.device)
    start_b1, end_b1 = cell_b1 * size // bins, ((cell_b1 + 1) * size + bins - 1) // bins
    inside = (pixel >= start_b1) & (pixel < end_b1)
    return inside.to(like.dtype) / (end_b1 - start_b1).to(like.dtype)


def border_rule(model: SegmentationModel) -> Border | None:
    """What the network loses along each side, as its card says it; None: nothing.

    Raises:
        ConfigError: its sizes follow no such rule.
    """
    sides = range(1, FARTHEST)
    outputs = {side: model.output_size(*model.input_size(side, side)) for side in sides}
    if all(model.input_size(side, side) == outputs[side] == (side, side) for side in sides):
        return None
    inputs = {side: model.input_size(side, side)[0] for side in sides}
    steps = sorted(set(inputs.values()))
    stride = min((after - before for before, after in pairwise(steps)), default=1)
    lost = steps[0] - outputs[1][0]
    rule = Border(stride=stride, lost=lost, first=steps[0]) if lost > 0 else None
    if rule is None or any(not _holds(model, rule, side) for side in sides):
        raise ConfigError(
            f"{model.config.name or type(model).__name__} cannot be exported: its logits are not a fixed number of pixels "
            "smaller than its input. Pad inside the model."
        )
    return rule


def _holds(model: SegmentationModel, rule: Border, side: int) -> bool:
    """Whether inputs and outputs for (side, some other side) are those of the rule."""
    for size in ((side, side), (side, 1), (1, side)):
        top, left, bottom, right = rule.around(*size)
        taken = (size[0] + top + bottom, size[1] + left + right)
        if model.input_size(*size) != taken:
            return False
        if model.output_size(*taken) != (taken[0] - rule.lost, taken[1] - rule.lost):
            return False
    return True
