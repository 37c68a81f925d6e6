"""BatchNorm, ReLU, convolution, dropout and 2x2 max-pooling that keep their input and a byte for each pooled value.

DenseNet's and FC-DenseNet's way down (arXiv:1611.09326, table 1, middle). Written down plainly it keeps five further copies of
its input: normalised maps, dropout's noise, what is pooled, and where the maxima were in 8 bytes each.

Shapes: N batch, C channels, K maps that are made, H height, W width; h, w halves, rounded down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from intarsia.ops import normed_conv
from intarsia.ops.normed_conv import Lines, Settings

KEPT = 4
"""Added to the place of a maximum, 0 to 3 in reading order, if dropout let it pass."""


def transition(maps_NCHW: Tensor, layer: Sequence[Any]) -> Tensor:
    """The pooled maps (N, K, h, w); running statistics are brought up to date.

    Args:
        layer: BatchNorm2d, ReLU, Conv2d, Dropout, MaxPool2d(2). `normed_conv.saves` says whether they can be computed here.
    """
    norm, _, conv, dropout, _ = layer
    settings = Settings.of(norm, conv, dropout)
    pooled: Tensor
    pooled, mean_C, var_C = _Transition.apply(settings, maps_NCHW, norm.weight, norm.bias, conv.weight, conv.bias)
    normed_conv.update_running(norm, mean_C, var_C, maps_NCHW.numel() // maps_NCHW.shape[1])
    return pooled


class _Transition(torch.autograd.Function):
    """The transition as one node."""

    @staticmethod
    def forward(ctx: Any, settings: Settings, maps_NCHW: Tensor, *weights: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(maps_NCHW.device.type, enabled=False):
            mean_C, var_C = normed_conv.statistics(maps_NCHW) if settings.rest is None else settings.rest
            norm, conv = settings.layer(mean_C, var_C, weights)
            made_NKHW, kept_NKHW = normed_conv.forward(maps_NCHW, norm, conv), None
            if settings.dropout:
                made_NKHW, kept_NKHW = torch.native_dropout(made_NKHW, settings.dropout, True)
            pooled_NKhw, code_NKhw = _pool(made_NKHW, kept_NKHW)
        ctx.settings = settings
        mean_C, var_C = mean_C.detach(), var_C.detach()
        ctx.save_for_backward(maps_NCHW, mean_C, var_C, code_NKhw, *weights)
        ctx.mark_non_differentiable(mean_C, var_C)
        return pooled_NKhw, mean_C, var_C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pooled_NKhw: Tensor, _mean: Tensor, _var: Tensor) -> tuple[Tensor | None, ...]:
        settings = ctx.settings
        maps_NCHW, mean_C, var_C, code_NKhw, *weights = ctx.saved_tensors
        norm, conv = settings.layer(mean_C, var_C, weights)
        d_made_NKHW = torch.empty(
            (len(maps_NCHW), len(conv.weight), *maps_NCHW.shape[2:]),
            dtype=conv.weight.dtype,
            device=maps_NCHW.device,
            memory_format=normed_conv.layout_of(maps_NCHW),
        ).zero_()
        d_passed_NKhw = d_pooled_NKhw / (1 - settings.dropout)
        for place in range(4):
            _corner(d_made_NKHW, place).copy_(d_passed_NKhw * (code_NKhw == place + KEPT))
        d_maps_NCHW = torch.zeros_like(maps_NCHW)
        d_gamma_C, d_beta_C, d_weight = normed_conv.backward(maps_NCHW, norm, conv, d_made_NKHW, d_maps_NCHW)
        if settings.rest is None:
            lines = Lines(mean_C, var_C, settings.eps)
            lines.add(norm, d_gamma_C, d_beta_C, maps_NCHW.numel() // maps_NCHW.shape[1])
            lines.take(d_maps_NCHW, maps_NCHW, slice(0, len(mean_C)))
        d_bias_K = None if conv.bias is None else d_made_NKHW.sum((0, 2, 3), dtype=d_gamma_C.dtype)
        return None, d_maps_NCHW, d_gamma_C, d_beta_C, d_weight, d_bias_K


def _pool(made_NKHW: Tensor, kept_NKHW: Tensor | None) -> tuple[Tensor, Tensor]:
    """Maxima of 2 x 2, and for each a byte: its place, plus 4 if dropout let it pass."""
    pooled_NKhw, where_NKhw = F.max_pool2d(made_NKHW, 2, return_indices=True)
    height, width = pooled_NKhw.shape[2], made_NKHW.shape[3]
    start_h1 = torch.arange(height, device=made_NKHW.device).mul_(2).add_(1).mul_(width)[:, None]
    low_NKhw = (where_NKhw >= start_h1).to(torch.uint8)  # the lower row of the window
    column_NKhw = (where_NKhw & 1).to(torch.uint8)
    if width % 2:
        column_NKhw ^= low_NKhw
    code_NKhw = low_NKhw.mul_(2).add_(column_NKhw)
    if kept_NKHW is None:
        return pooled_NKhw, code_NKhw.add_(KEPT)
    passed_NKhw = torch.zeros_like(code_NKhw, dtype=torch.bool)
    for place in range(4):
        passed_NKhw |= _corner(kept_NKHW, place) & (code_NKhw == place)
    code_NKhw += passed_NKhw.to(torch.uint8).mul_(KEPT)
    return pooled_NKhw, code_NKhw


def _corner(maps_NKHW: Tensor, place: int) -> Tensor:
    """The values at one place of all 2 x 2 windows, (N, K, h, w), a view."""
    height, width = (size // 2 * 2 for size in maps_NKHW.shape[2:])
    return maps_NKHW[..., place // 2 : height : 2, place % 2 : width : 2]
