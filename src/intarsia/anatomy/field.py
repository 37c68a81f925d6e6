"""What each place of a map depends on, as intervals of image rows and of image columns.

A map of height h has, for rows, two arrays of length h: `low[i]` and `high[i]`, first and last image row that row i can depend
on. That is exact where a plain pair (size, jump) is not: receptive fields that differ from place to place, as behind transposed
convolutions, and borders. A place that depends on nothing (zeros) has low > high.

What sees the whole image at once (means over it, attention, statistics of a normalisation) has no interval of its own: its
reason is kept in `wide`, and the intervals go on to hold the local paths alone.

Arithmetic of layers: `r_l = r_{l-1} + (k_l - 1) d_l j_{l-1}`, `j_l = j_{l-1} s_l` for kernel k, dilation d, stride s; here
it is what follows, not what is computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
NOTHING_LOW, NOTHING_HIGH = np.int64(2**40), np.int64(-(2**40))


@dataclass(frozen=True)
class Axis:
    """Image rows, or columns, that each index of one dimension depends on."""

    dim: int | None
    """Dimension of the tensor that carries the axis; None: the tensor is the same for all of it, arrays of length 1."""
    low: Index
    high: Index

    def taken(self, index: Index) -> Axis:
        """The axis read at `index`; -1 is a place that depends on nothing."""
        low, high = self.low[index], self.high[index]
        outside = index < 0
        if outside.any():
            low, high = np.where(outside, NOTHING_LOW, low), np.where(outside, NOTHING_HIGH, high)
        return Axis(self.dim, low, high)

    def over(self, taps: Iterable[Index]) -> Axis:
        """The union over several readings."""
        parts = [self.taken(index) for index in taps]
        low, high = parts[0].low, parts[0].high
        for part in parts[1:]:
            low, high = np.minimum(low, part.low), np.maximum(high, part.high)
        return Axis(self.dim, low, high)

    def at(self, dim: int | None) -> Axis:
        """The same in another dimension."""
        return replace(self, dim=dim)


@dataclass(frozen=True)
class Field:
    """Rows, columns, and why the whole image is seen, if it is."""

    rows: Axis
    columns: Axis
    wide: frozenset[str] = frozenset()

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return self.rows, self.columns

    @property
    def is_flat(self) -> bool:
        """Whether one dimension holds rows times columns, as tokens do."""
        return self.rows.dim is not None and self.rows.dim == self.columns.dim

    def mapped(self, rows: Axis, columns: Axis, *reasons: str) -> Field:
        """Other intervals, the reasons of old and new."""
        return Field(rows, columns, self.wide | frozenset(reasons))


@dataclass(frozen=True)
class Unknown:
    """A tensor whose field cannot be told, and why."""

    reason: str


class CannotTell(Exception):
    """An operator, or a use of it, that no rule is written for."""


def image_field(height: int, width: int) -> Field:
    """Of the image (N, C, H, W) itself: every place sees itself."""
    return Field(
        Axis(2, np.arange(height), np.arange(height)),
        Axis(3, np.arange(width), np.arange(width)),
    )


def nothing(dim: int | None, length: int) -> Axis:
    """An axis whose places depend on nothing."""
    return Axis(dim, np.full(length, NOTHING_LOW), np.full(length, NOTHING_HIGH))


def union(parts: list[tuple[Field, int]], ndim: int, shape: tuple[int, ...]) -> Field:
    """Of tensors that are broadcast together.

    Args:
        parts: fields, each with its tensor's number of dimensions.
        ndim: dimensions of the result.
        shape: of the result.
    """
    rows = _joined([field.rows.at(_right(field.rows.dim, own, ndim)) for field, own in parts], shape)
    columns = _joined([field.columns.at(_right(field.columns.dim, own, ndim)) for field, own in parts], shape)
    if len({field.is_flat for field, _ in parts if field.rows.dim is not None}) > 1:
        raise CannotTell("tokens and maps in one operation")
    return Field(rows, columns, frozenset().union(*(field.wide for field, _ in parts)))


def _right(dim: int | None, own: int, ndim: int) -> int | None:
    return None if dim is None else dim + ndim - own


def _joined(axes: list[Axis], shape: tuple[int, ...]) -> Axis:
    low, high = axes[0].low, axes[0].high
    for axis in axes[1:]:
        if len(low) > 1 and len(axis.low) > 1 and len(low) != len(axis.low):
            raise CannotTell("maps of different size in one operation")
        low, high = np.minimum(low, axis.low), np.maximum(high, axis.high)
    dims = {axis.dim for axis in axes if axis.dim is not None and len(axis.low) == len(low)}
    if len(dims) > 1:
        raise CannotTell("rows in different dimensions of one operation")
    return Axis(dims.pop() if dims else None, low, high)


def window(length: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> list[Index]:
    """Taps of a convolution or pooling along one axis: index of the input for each of `out` places; -1 outside."""
    start = np.arange(out) * stride - padding
    taps = (start + tap * dilation for tap in range(kernel))
    return [np.where((tap >= 0) & (tap < length), tap, -1) for tap in taps]


def transposed_window(length: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> list[Index]:
    """The same of a transposed convolution: input i writes to outputs i s - p + t d for each tap t."""
    places = []
    for tap in range(kernel):
        at = np.arange(out) + padding - tap * dilation
        index = at // stride
        places.append(np.where((at % stride == 0) & (index >= 0) & (index < length), index, -1))
    return places


def bilinear_taps(length: int, out: int, scale: float, *, align_corners: bool) -> list[Index]:
    """The one or two inputs that each output of linear interpolation weighs above zero.

    Args:
        scale: input pixels an output pixel; half-pixel centres: source = (i + 1/2) scale - 1/2, corners: i scale.
    """
    at = np.arange(out) * scale if align_corners else np.maximum((np.arange(out) + 0.5) * scale - 0.5, 0)
    at = np.where(np.abs(at - np.round(at)) < 1e-9 * max(length, 1), np.round(at), at)
    first = np.minimum(np.floor(at).astype(np.int64), length - 1)
    second = np.minimum(first + 1, length - 1)
    return [first, np.where(at > first, second, first)]
