"""The field of `warp.py` for several images at once, of any sizes: for a GPU, where a call costs as much as its work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from intarsia.classes import IGNORE
from intarsia.transforms.geometry import Window
from intarsia.transforms.warp import Bend, Warped, antialiased, fields, homography, warp

Given = tuple[Tensor, Tensor, Tensor | None, Window, Bend]
"""Image (C, H, W), mask (H, W), weights (H, W) or None, and what is to be done to them."""


def warp_all(
    given: Sequence[Given],
    size: tuple[int, int],
    *,
    cubic: bool = False,
    reflect: bool = False,
) -> list[Warped]:
    """`warp` of several images, mask and weights, window and bend of each: on another device than the processor as one
    batch, whatever the images' sizes; the same up to rounding."""
    if len(given) < 2 or cubic or reflect or given[0][1].device.type == "cpu":
        return [
            warp(image, mask, window, bend, size, weights, cubic=cubic, reflect=reflect)
            for image, mask, weights, window, bend in given
        ]
    return warp_batch(given, size)


def warp_batch(given: Sequence[Given], size: tuple[int, int]) -> list[Warped]:
    """The same by one field, (N, 2, h, w), and one look into all images side by side; bilinear, ignored outside."""
    images, masks, weights, windows, bends = zip(*given, strict=True)
    device = masks[0].device
    matrices = np.stack([homography(window, size, bend) for window, bend in zip(windows, bends, strict=True)])
    sides = torch.tensor([tuple(mask.shape) for mask in masks], device=device)
    at = fields(matrices, [bend.nodes for bend in bends], sides, size)
    row, column = at.floor().long().unbind(1)
    height, width = (sides[:, axis, None, None] for axis in (0, 1))
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    zero = torch.zeros_like(row)
    nearest = torch.minimum(torch.maximum(row, zero), height - 1) * width + torch.minimum(
        torch.maximum(column, zero), width - 1
    )
    flat_masks, starts = _side_by_side([mask[None] for mask in masks])
    classes = torch.where(inside, flat_masks[0][nearest + starts], flat_masks.new_tensor(IGNORE))
    parts = [antialiased(*each, size) for each in zip(images, matrices, bends, windows, strict=True)]
    begin, scale = (at.new_tensor([part[place] for part in parts])[:, :, None, None] for place in (1, 2))
    pixels = _looked_up([part for part, _, _ in parts], (at - begin) * scale)
    if weights[0] is None:
        return [(pixels[:, n], classes[n], None) for n in range(len(given))]
    planes = _looked_up([each[None] for each in weights if each is not None], at)[0]
    weighed = torch.where(inside, planes, 0)
    return [(pixels[:, n], classes[n], weighed[n]) for n in range(len(given))]


def _side_by_side(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(C, all pixels) of images of any size, and (N, 1, 1) where each begins."""
    flat = torch.cat([image.reshape(image.shape[0], -1) for image in images], dim=1)
    counts = [image.shape[1] * image.shape[2] for image in images]
    starts = np.cumsum([0, *counts[:-1]])
    return flat, torch.from_numpy(starts).to(flat.device)[:, None, None]


def _looked_up(images: Sequence[Tensor], at_N2hw: Tensor) -> Tensor:
    """(C, N, h, w) float32: `_sampled` of a batch."""
    flat, starts = _side_by_side(images)
    sides = torch.tensor([tuple(image.shape[1:]) for image in images], device=flat.device)[:, :, None, None]
    last = (sides - 1).clamp(min=0)
    period = (2 * last).clamp(min=1)
    turned = (at_N2hw - 0.5).abs() % period
    on = torch.minimum(torch.minimum(turned, period - turned), last.to(turned))
    first = torch.minimum(on.floor().long(), (sides - 2).clamp(min=0))
    below, after = (on - first).unbind(1)
    step = (sides > 1).long()
    (row, column), (down, right) = first.unbind(1), step.unbind(1)
    width = sides[:, 1]
    corner = row * width + column + starts
    upper, upper_right = flat[:, corner].float(), flat[:, corner + right].float()
    lower, lower_right = flat[:, corner + down * width].float(), flat[:, corner + down * width + right].float()
    above, under = upper + after * (upper_right - upper), lower + after * (lower_right - lower)
    return above + below * (under - above)
