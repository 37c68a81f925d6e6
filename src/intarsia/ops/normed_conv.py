"""BatchNorm, ReLU and convolution that keep nothing but their input: what a dense network needs to fit in memory.

    s = gamma / sqrt(var + eps),  n = (x - mean) / sqrt(var + eps),  a = max(gamma n + beta, 0),  z = W * a + bias

Forward and backward are plain functions over a stack of maps with known statistics; `dense_block.py` and `transition.py` make
autograd functions of them. The way back computes `a` anew, a piece of the stack at a time (an image, some channels), so that
what it needs beside the gradient stays in the processor's cache. Batch statistics depend on x, which takes from its gradient
(Ioffe and Szegedy, arXiv:1502.03167, section 3)

    s mean(d) + s n mean(d n),   d the gradient of gamma n + beta.

Both terms are straight lines in x, a channel each: those of all layers that read a map are added up as two numbers, and taken
from the map's gradient once, when the last has come (`Lines`).

Shapes: N batch, C channels of the stack, K maps that the convolution makes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIECE = 1 << 22
"""Bytes of a piece of the stack on the way back, for every 16 maps made; at least 16 channels, or all there are."""


class Norm(NamedTuple):
    """A batch norm with its statistics: (C,) each."""

    mean: Tensor
    var: Tensor
    gamma: Tensor
    beta: Tensor
    eps: float

    def part(self, channels: slice) -> Norm:
        """Some of the channels."""
        return Norm(self.mean[channels], self.var[channels], self.gamma[channels], self.beta[channels], self.eps)


class Conv(NamedTuple):
    """A convolution of stride 1 as it is computed: weight (K, C, h, w) and bias (K,) in the type that autocast wants."""

    weight: Tensor
    bias: Tensor | None
    padding: list[int]

    def part(self, channels: slice) -> Conv:
        """The same of some of the channels that it reads."""
        return self._replace(weight=self.weight[:, channels])


@dataclass(frozen=True)
class Settings:
    """What a layer is beside its weights."""

    eps: float
    padding: list[int]
    dropout: float
    """Share of values dropped, 0 at rest."""
    rest: tuple[Tensor, Tensor] | None
    """Mean and variance of a batch norm that rests; None: those of the batch."""
    dtype: torch.dtype
    """Type in which the convolution computes: autocast's, or its weight's."""

    @classmethod
    def of(cls, norm: Any, conv: Any, dropout: Any) -> Settings:
        """Read off the modules."""
        device = conv.weight.device.type
        autocast = torch.is_autocast_enabled(device)
        return cls(
            eps=norm.eps,
            padding=list(conv.padding),
            dropout=dropout.p if dropout.training else 0.0,
            rest=None if norm.training else (norm.running_mean, norm.running_var),
            dtype=torch.get_autocast_dtype(device) if autocast else conv.weight.dtype,
        )

    def layer(self, mean_C: Tensor, var_C: Tensor, weights: Sequence[Any]) -> tuple[Norm, Conv]:
        """The layer, from the batch's statistics of the stack (those of its first channels) and gamma, beta, weight, bias."""
        gamma_C, beta_C, weight, bias_K = weights
        mean_C, var_C = self.rest or (mean_C[: len(gamma_C)], var_C[: len(gamma_C)])
        bias_K = None if bias_K is None else bias_K.to(self.dtype)
        return Norm(mean_C, var_C, gamma_C, beta_C, self.eps), Conv(weight.to(self.dtype), bias_K, self.padding)


class Lines:
    """What batch statistics take from the gradient of each channel x of a stack: slope n + level, added up over layers."""

    def __init__(self, mean_C: Tensor, var_C: Tensor, eps: float) -> None:
        self.mean_C, self.var_C, self.eps = mean_C, var_C, eps
        self.slope_C, self.level_C = torch.zeros_like(mean_C), torch.zeros_like(mean_C)

    def add(self, norm: Norm, d_gamma_C: Tensor, d_beta_C: Tensor, values: int) -> None:
        """A layer that reads the first channels of the stack, each of `values` = N H W values."""
        channels = slice(0, len(norm.gamma))
        s_C = norm.gamma * (self.var_C[channels] + self.eps).rsqrt() / values
        self.slope_C[channels] += s_C * d_gamma_C
        self.level_C[channels] += s_C * d_beta_C

    def take(self, d_maps_NCHW: Tensor, maps_NCHW: Tensor, channels: slice) -> None:
        """Take them from the gradient of maps that are these channels of the stack, in place."""
        line = (each[channels] for each in (self.mean_C, self.var_C, -self.slope_C, -self.level_C))
        mean_C, var_C, slope_C, level_C = line
        layout = layout_of(maps_NCHW)
        for images, _ in pieces(maps_NCHW):
            x_NCHW = maps_NCHW[images].contiguous(memory_format=layout)
            d_maps_NCHW[images] += F.batch_norm(x_NCHW, mean_C, var_C, slope_C, level_C, training=False, eps=self.eps)


def statistics(maps_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (over N, not N - 1) of each channel, (C,); float32 for maps of fewer bits."""
    if maps_NCHW.device.type == "cpu":
        kind = torch.promote_types(maps_NCHW.dtype, torch.float32)
        zeros = torch.zeros(2, maps_NCHW.shape[1], dtype=kind, device=maps_NCHW.device)
        return torch.batch_norm_update_stats(maps_NCHW, zeros[0], zeros[1], 0.0)  # the kernel of batch_norm
    wide = maps_NCHW.to(torch.promote_types(maps_NCHW.dtype, torch.float32))
    var_C, mean_C = torch.var_mean(wide, (0, 2, 3), correction=0)
    return mean_C, var_C


def activate(maps_NCHW: Tensor, norm: Norm) -> Tensor:
    """max(gamma n + beta, 0)."""
    mean_C, var_C, gamma_C, beta_C, eps = norm
    return F.batch_norm(maps_NCHW, mean_C, var_C, gamma_C, beta_C, training=False, eps=eps).relu_()


def forward(stack_NCHW: Tensor, norm: Norm, conv: Conv) -> Tensor:
    """The convolution's maps (N, K, H, W), an image at a time where images are large."""
    layout = layout_of(stack_NCHW)
    size = [stack_NCHW.shape[0], len(conv.weight), *stack_NCHW.shape[2:]]
    made = torch.empty(size, dtype=conv.weight.dtype, device=stack_NCHW.device, memory_format=layout)
    for images, _ in pieces(stack_NCHW):
        a_NCHW = activate(stack_NCHW[images].contiguous(memory_format=layout), norm).to(conv.weight.dtype)
        made[images] = F.conv2d(a_NCHW, conv.weight, conv.bias, padding=conv.padding)
    return made


def backward(
    maps_NCHW: Tensor, norm: Norm, conv: Conv, d_made_NKHW: Tensor, d_maps_NCHW: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gamma, beta and weight; that of the maps, statistics held, is added to `d_maps_NCHW`.

    Args:
        maps_NCHW: a stack or some channels of one; `norm` and the weight are those of the same channels.
        d_made_NKHW: the gradient of the convolution's maps.
    """
    layout = layout_of(maps_NCHW)
    d_gamma_C, d_beta_C = torch.zeros_like(norm.gamma), torch.zeros_like(norm.beta)
    d_weight = torch.zeros_like(conv.weight, dtype=norm.gamma.dtype)
    for images, channels in pieces(maps_NCHW, made=len(conv.weight)):
        here, weight = norm.part(channels), conv.weight[:, channels]
        x_NCHW = maps_NCHW[images, channels].contiguous(memory_format=layout)
        a_NCHW = activate(x_NCHW, here)
        d_a_NCHW, d_w = convolution_backward(d_made_NKHW[images], a_NCHW.to(weight.dtype), weight, conv.padding)
        d_NCHW = d_a_NCHW.to(a_NCHW.dtype)
        torch.ops.aten.threshold_backward.grad_input(d_NCHW, a_NCHW, 0, grad_input=d_NCHW)
        d_x_NCHW, d_gamma, d_beta = torch.ops.aten.native_batch_norm_backward(
            d_NCHW, x_NCHW, here.gamma, here.mean, here.var, None, None, False, here.eps, [True, True, True]
        )
        d_maps_NCHW[images, channels] += d_x_NCHW
        d_gamma_C[channels] += d_gamma
        d_beta_C[channels] += d_beta
        d_weight[:, channels] += d_w
    return d_gamma_C, d_beta_C, d_weight


def convolution_backward(d_NKHW: Tensor, x_NCHW: Tensor, weight: Tensor, padding: list[int]) -> tuple[Tensor, Tensor]:
    """Gradients of input and weight of a convolution of stride 1."""
    once, none = [1, 1], [0, 0]
    wanted = [True, True, False]
    d_x_NCHW, d_weight, _ = torch.ops.aten.convolution_backward(
        d_NKHW, x_NCHW, weight, None, once, padding, once, False, none, 1, wanted
    )
    return d_x_NCHW, d_weight


def pieces(maps_NCHW: Tensor, *, made: int = 0) -> Iterator[tuple[slice, slice]]:
    """Images and channels of each piece; all channels of an image stay together if `made`, maps made of them, is 0."""
    num, channels, height, width = maps_NCHW.shape
    image, size = height * width * maps_NCHW.element_size(), PIECE * max(1, made // 16)
    split = made and layout_of(maps_NCHW) is torch.contiguous_format  # some channels of all pixels are slow to collect
    step = min(channels, max(16, size // image // 16 * 16)) if split else channels
    images = max(1, size // max(1, image * channels))
    for first in range(0, num, images):
        for start in range(0, channels, max(1, step)):
            yield slice(first, first + images), slice(start, min(start + step, channels))


def layout_of(maps_NCHW: Tensor) -> torch.memory_format:
    """channels_last if the channels of a pixel are neighbours in memory."""
    last = maps_NCHW.stride(1) == 1 and maps_NCHW.stride(3) >= maps_NCHW.shape[1] > 1
    return torch.channels_last if last else torch.contiguous_format


@torch.no_grad()
def update_running(norm: Any, mean_C: Tensor, var_C: Tensor, values: int) -> None:
    """Running statistics of a batch norm that reads the first channels, as BatchNorm2d moves them in training."""
    if not norm.training or norm.running_mean is None or norm.running_var is None:
        return
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if momentum is None else momentum
    channels, share = slice(0, norm.num_features), float(momentum or 0)
    norm.running_mean.mul_(1 - share).add_(mean_C[channels], alpha=share)
    norm.running_var.mul_(1 - share).add_(var_C[channels], alpha=share * values / (values - 1))


def saves(maps_NCHW: Tensor, layers: Iterable[nn.Module]) -> bool:
    """Whether layers of BatchNorm2d, ReLU, Conv2d, Dropout (and pooling) may be computed here instead of by their modules.

    Not where no gradient is needed, which keeps nothing anyway, where the compiler is at work, where a channel has a single
    value, which BatchNorm2d refuses, or where a part was replaced or is listened to.
    """
    layers = list(layers)
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and maps_NCHW.device.type in ("cpu", "cuda")
        and maps_NCHW.numel() > maps_NCHW.shape[1]
        and (maps_NCHW.requires_grad or any(each.requires_grad for layer in layers for each in layer.parameters()))
        and all(_as_built(layer) for layer in layers)
        and len({layer[0].eps for layer in layers}) == 1  # type: ignore[index]
    )


def _as_built(layer: Any) -> bool:
    norm, relu, conv, dropout, *_ = layer
    return bool(
        type(norm) is nn.BatchNorm2d
        and type(relu) is nn.ReLU
        and type(conv) is nn.Conv2d
        and type(dropout) is nn.Dropout
        and norm.affine
        and norm.track_running_stats
        and norm.weight.dtype == conv.weight.dtype in (torch.float32, torch.float64)
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and not any(
            getattr(module, hooks)
            for module in layer.modules()
            for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        )
    )
