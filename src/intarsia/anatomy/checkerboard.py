"""Checkerboards: how many inputs reach each output of a transposed convolution, by definition and measured.

Where the stride does not divide the kernel, neighbouring outputs add up different numbers of inputs; with equal weights they
differ in a regular pattern (Odena et al., "Deconvolution and checkerboard artifacts", 2016). Output o of one axis is reached by
the taps t with (o + p - d t) mod s = 0, kernel k, stride s, padding p, dilation d; in two dimensions the counts multiply.
Weights may make up for uneven counts, as the bilinear 63 / 32 of FCN-AlexNet does: `response` tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.anatomy.trace import Watch, channels_of, device_of
from intarsia.models.base import SegmentationModel


@dataclass(frozen=True)
class Coverage:
    """One transposed convolution."""

    path: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    rows: tuple[int, ...]
    """Inputs that reach rows 0, 1, ... of one stride, far from the border."""
    columns: tuple[int, ...]
    measured: tuple[tuple[int, ...], ...]
    """The same in two dimensions, counted by the layer on ones with weights of one: s_h x s_w numbers."""
    response: float | None
    """With its own weights, on a constant image: spread of the outputs over their mean, far from the border, for the channel
    where it is largest; 0: no checkerboard. None: the model has no weights here."""

    @property
    def is_uniform(self) -> bool:
        return len({*self.rows}) == 1 and len({*self.columns}) == 1

    def text(self, width: int = 0) -> str:
        """ "ups.0   3 / 2   uneven: rows and columns are reached 2, 1 times in turn"; the path padded to `width`."""
        sides = f"{_sides(self.kernel)} / {_sides(self.stride)}"
        if self.is_uniform:
            times = self.rows[0] * self.columns[0]
            return f"{self.path:<{width}}   {sides:<7}   even: every place is reached {times} time{'s' * (times > 1)}"
        same = self.rows == self.columns
        turn = _in_turn(self.rows) if same else f"{_in_turn(self.rows)} (rows), {_in_turn(self.columns)} (columns)"
        return f"{self.path:<{width}}   {sides:<7}   uneven: rows and columns are reached {turn} times in turn"


def coverage_of(kernel: int, stride: int, padding: int = 0, dilation: int = 1) -> tuple[int, ...]:
    """Taps that meet an input at outputs 0 .. stride - 1 of one axis, far from the border.

    >>> coverage_of(3, 2), coverage_of(64, 32)[:3]
    ((2, 1), (2, 2, 2))
    """
    return tuple(
        sum((place + padding - dilation * tap) % stride == 0 for tap in range(kernel)) for place in range(stride)
    )


@torch.no_grad()
def checkerboard(model: nn.Module, size: tuple[int, int] = (360, 480)) -> list[Coverage]:
    """Run a resting model once and measure each of its transposed convolutions, in the order of their calls.

    Args:
        model: on any device, also meta; its mode is changed to evaluation.
        size: (H, W) of the image.
    """
    given = model.input_size(*size) if isinstance(model, SegmentationModel) else size
    image = torch.zeros(1, channels_of(model), *given, device=device_of(model))
    seen = _Transposed(model.eval())
    with seen.watching():
        model(image)
    return seen.found


class _Transposed(Watch):  # type: ignore[no-untyped-call]
    """Measures transposed convolutions as they are called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.found: list[Coverage] = []

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        place = self.place(func)
        if str(func) != "aten.convolution.default" or not args[6]:
            return
        weight, geometry = args[1], args[3:8]
        kernel, stride, padding, dilation = ((int(v[0]), int(v[-1])) for v in (weight.shape[2:], *geometry[:3]))
        rows, columns = (coverage_of(kernel[k], stride[k], padding[k], dilation[k]) for k in (0, 1))
        ones = torch.ones(1, 1, *_enough(args[0].shape[2:], kernel, stride, dilation))
        count = func(ones, torch.ones(1, 1, *kernel), None, *geometry, 1)
        phases = _interior(count, kernel, stride, dilation)[0, 0].round().int().tolist()
        measured = tuple(tuple(row) for row in phases)
        response = (
            None if weight.device.type == "meta" else _response(func, args, ones.shape[2:], kernel, stride, dilation)
        )
        self.found.append(Coverage(place.path, kernel, stride, rows, columns, measured, response))


def _enough(size: Any, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> list[int]:
    """The layer's input size, or more where all of it would be border."""
    return [max(int(side), 4 * (d * k // s + 2)) for side, k, s, d in zip(size, kernel, stride, dilation, strict=True)]


def _interior(map_NCHW: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """One stride of it, from the first multiple of the stride behind the reach of the border."""
    first = [-(-d * k // s) * s for k, s, d in zip(kernel, stride, dilation, strict=True)]
    return map_NCHW[..., first[0] : first[0] + stride[0], first[1] : first[1] + stride[1]]


def _response(func: Any, args: tuple[Any, ...], size: Any, *geometry: tuple[int, int]) -> float:
    """Largest relative spread over the channels of what a constant image becomes."""
    source, weight = args[0], args[1]
    constant = torch.ones(1, source.shape[1], *size, dtype=weight.dtype, device=weight.device)
    phases = _interior(func(constant, weight, None, *args[3:9]), *geometry).flatten(2)
    spread, mean = phases.amax(2) - phases.amin(2), phases.mean(2).abs()
    return float((spread / mean.clamp_min(1e-12)).max())


def _sides(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _in_turn(counts: tuple[int, ...]) -> str:
    """ "2, 1", or "2 (31 of 32) and 1" where it would be long."""
    if len(counts) <= 4:
        return ", ".join(map(str, counts))
    often = sorted(set(counts), key=counts.count, reverse=True)
    return f"{often[0]} ({counts.count(often[0])} of {len(counts)}) and {', '.join(map(str, often[1:]))}"
