"""A dense block that keeps each map once: its stack is one buffer, statistics are computed once a map.

Layer i computes y_i = dropout(W_i * relu(bn_i(x, y_0 .. y_{i-1}))) (Huang et al., arXiv:1608.06993, equation 2). Written down
plainly, each layer keeps the concatenation and the normalised maps for the way back: O(L^2) maps of L layers. Here layers
write into one buffer and compute the normalised maps anew on the way back, as in Pleiss et al., arXiv:1707.06990; unlike
there, the mean and variance of a map are computed once and not by every layer that reads it, which is less work as well.

Shapes: N batch, C channels of the stack, K new maps a layer, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from intarsia.ops import normed_conv
from intarsia.ops.normed_conv import Lines, Settings


def dense_block(stack_NCHW: Tensor, layers: Iterable[Any], *, whole: bool) -> Tensor:
    """The maps of the layers (N, L K, H, W), or with `whole` the stack and them; running statistics are brought up to date.

    Args:
        stack_NCHW: the block's input.
        layers: BatchNorm2d, ReLU, Conv2d, Dropout each; the i-th reads C + i K channels. `normed_conv.saves` says whether
            they can be computed here.
    """
    parts: list[Settings] = []
    weights: list[Tensor | None] = []
    norms: list[nn.Module] = []
    for norm, _, conv, dropout in layers:
        parts.append(Settings.of(norm, conv, dropout))
        weights += [norm.weight, norm.bias, conv.weight, conv.bias]
        norms.append(norm)
    result: Tensor
    result, mean_C, var_C = _DenseBlock.apply(parts, whole, stack_NCHW, *weights)
    for norm in norms:
        normed_conv.update_running(norm, mean_C, var_C, stack_NCHW.numel() // stack_NCHW.shape[1])
    return result


class _DenseBlock(torch.autograd.Function):
    """The block as one node: keeps its stack, the statistics and which values dropout took."""

    @staticmethod
    def forward(
        ctx: Any, parts: list[Settings], whole: bool, x_NCHW: Tensor, *weights: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        num, first, height, width = x_NCHW.shape
        growth, dtype = len(weights[2]), parts[0].dtype
        total = first + len(parts) * growth
        stack = torch.empty(
            (num, total, height, width),
            dtype=torch.promote_types(x_NCHW.dtype, dtype),
            device=x_NCHW.device,
            memory_format=normed_conv.layout_of(x_NCHW),
        )
        stack[:, :first] = x_NCHW
        kind = torch.promote_types(stack.dtype, torch.float32)
        mean_C, var_C = torch.zeros(2, total, dtype=kind, device=x_NCHW.device).unbind()
        batch = any(part.rest is None for part in parts)
        if batch:
            mean_C[:first], var_C[:first] = normed_conv.statistics(x_NCHW)
        kept: list[Tensor | None] = []
        with torch.autocast(x_NCHW.device.type, enabled=False):
            for index, part in enumerate(parts):
                seen, end = first + index * growth, first + (index + 1) * growth
                norm, conv = part.layer(mean_C, var_C, weights[4 * index : 4 * index + 4])
                y_NKHW, kept_NKHW = normed_conv.forward(stack[:, :seen], norm, conv), None
                if part.dropout:
                    y_NKHW, kept_NKHW = torch.native_dropout(y_NKHW, part.dropout, True)
                kept.append(kept_NKHW)
                stack[:, seen:end] = y_NKHW
                if batch and index + 1 < len(parts):
                    mean_C[seen:end], var_C[seen:end] = normed_conv.statistics(y_NKHW)
        ctx.parts, ctx.whole, ctx.first, ctx.growth = parts, whole, first, growth
        ctx.save_for_backward(stack, mean_C, var_C, *kept, *weights)
        ctx.mark_non_differentiable(mean_C, var_C)
        return (stack if whole else stack[:, first:].to(dtype)), mean_C, var_C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor, _mean: Tensor, _var: Tensor) -> tuple[Tensor | None, ...]:
        parts, first, growth = ctx.parts, ctx.first, ctx.growth
        stack, mean_C, var_C, *rest = ctx.saved_tensors
        kept, weights = rest[: len(parts)], rest[len(parts) :]
        x_NCHW, made_NCHW = stack[:, :first], stack[:, first:]
        d_x_NCHW = torch.zeros_like(x_NCHW, memory_format=normed_conv.layout_of(stack))
        if ctx.whole:
            d_x_NCHW.copy_(d_result[:, :first])
            d_result = d_result[:, first:]
        d_made_NCHW = torch.empty_like(made_NCHW, memory_format=normed_conv.layout_of(stack)).copy_(d_result)
        lines = Lines(mean_C, var_C, parts[0].eps)
        d_weights: list[Tensor | None] = [None] * len(weights)
        for index in reversed(range(len(parts))):
            part, here = parts[index], slice(4 * index, 4 * index + 4)
            own, seen = slice(index * growth, (index + 1) * growth), slice(0, index * growth)
            d_y_NKHW, y_NKHW = d_made_NCHW[:, own], made_NCHW[:, own]
            lines.take(d_y_NKHW, y_NKHW, slice(first + own.start, first + own.stop))
            d_y_NKHW = d_y_NKHW.to(part.dtype).contiguous(memory_format=normed_conv.layout_of(stack))
            if part.dropout:
                d_y_NKHW = torch.ops.aten.native_dropout_backward(d_y_NKHW, kept[index], 1 / (1 - part.dropout))
            norm, conv = part.layer(mean_C, var_C, weights[here])
            halves = [
                normed_conv.backward(maps, norm.part(channels), conv.part(channels), d_y_NKHW, d_maps)
                for maps, d_maps, channels in (
                    (x_NCHW, d_x_NCHW, slice(0, first)),
                    (made_NCHW[:, seen], d_made_NCHW[:, seen], slice(first, first + seen.stop)),
                )
            ]
            d_gamma_C, d_beta_C = (torch.cat([half[each] for half in halves]) for each in (0, 1))
            d_weight = torch.cat([half[2] for half in halves], dim=1)
            if part.rest is None:
                lines.add(norm, d_gamma_C, d_beta_C, x_NCHW.numel() // first)
            d_bias_K = None if conv.bias is None else d_y_NKHW.sum((0, 2, 3), dtype=norm.gamma.dtype)
            d_weights[here] = d_gamma_C, d_beta_C, d_weight, d_bias_K
        lines.take(d_x_NCHW, x_NCHW, slice(0, first))
        return None, None, d_x_NCHW, *d_weights
