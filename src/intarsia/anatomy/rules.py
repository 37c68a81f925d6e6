"""How each operator of torch moves receptive fields: one function an operator, in torch's own names (aten).

An operator without a rule makes its result `Unknown`; nothing is guessed. Operators that torch itself tags as pointwise need no
rule. Dimensions count from the front; -1 in an index is a place that depends on nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from intarsia.anatomy.field import (
    Axis,
    CannotTell,
    Field,
    Index,
    bilinear_taps,
    transposed_window,
    window,
)

Shape = tuple[int, ...]
Rule = Callable[[Field, Shape, Shape, tuple[Any, ...]], Field]
"""(field of the input, its shape, shape of the result, all arguments) to the field of the result."""
RULES: dict[str, Rule] = {}
SAME = frozenset(
    (
        "alias",
        "clone",
        "contiguous",
        "detach",
        "dropout",
        "hardswish",
        "lift_fresh",
        "native_dropout",
        "prelu",
        "_prelu_kernel",
        "_to_copy",
    )
)
"""Operators that torch does not tag as pointwise, and that are."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function for operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def argument(args: Sequence[Any], place: int, default: Any) -> Any:
    """An argument that may be left out."""
    return args[place] if len(args) > place else default


def pair(value: Any, ndim: int = 2) -> list[int]:
    """A number or a list as a list of one number a spatial dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * ndim if len(values) == 1 else values


def slid(field: Field, before: Shape, after: Shape, taps: Callable[[int, int, int], list[Index]], ndim: int) -> Field:
    """A window over the last `ndim` dimensions; `taps(k, length, out)` for the k-th of them."""
    axes = []
    for axis in field.axes:
        if axis.dim is None:
            axes.append(axis)
            continue
        k = axis.dim - (len(before) - ndim)
        if k < 0:
            raise CannotTell("a window beside rows that are no spatial dimension")
        axes.append(axis.over(taps(k, before[axis.dim], after[axis.dim])))
    return field.mapped(axes[0], axes[1])


@rule("convolution")
def _convolution(field: Field, before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    kernel = args[1].shape[2:]
    stride, padding, dilation = (pair(args[place], len(kernel)) for place in (3, 4, 5))
    slide = transposed_window if args[6] else window

    def taps(k: int, length: int, out: int) -> list[Index]:
        return slide(length, out, kernel[k], stride[k], padding[k], dilation[k])

    return slid(field, before, after, taps, len(kernel))


def pool_window(args: tuple[Any, ...], *, dilated: bool) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, stride, padding and dilation of a pooling, a number for each dimension."""
    ndim = 3 if len(pair(args[1])) == 3 else 2
    kernel = pair(args[1], ndim)
    stride, padding = pair(argument(args, 2, ()) or kernel, ndim), pair(argument(args, 3, 0), ndim)
    return kernel, stride, padding, pair(argument(args, 4, 1), ndim) if dilated else [1] * ndim


@rule("avg_pool2d", "avg_pool3d")
def _average_pool(field: Field, before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    return _pool(field, before, after, pool_window(args, dilated=False))


@rule("max_pool2d_with_indices")
def _max_pool(field: Field, before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    return _pool(field, before, after, pool_window(args, dilated=True))


def _pool(field: Field, before: Shape, after: Shape, geometry: tuple[list[int], ...]) -> Field:
    def taps(k: int, length: int, out: int) -> list[Index]:
        kernel, stride, padding, dilation = (numbers[k] for numbers in geometry)
        return window(length, out, kernel, stride, padding, dilation)

    return slid(field, before, after, taps, len(geometry[0]))


@rule("upsample_bilinear2d")
def _bilinear(field: Field, before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    corners = bool(args[2])

    def taps(k: int, length: int, out: int) -> list[Index]:
        scale = _scale(length, out, argument(args, 3 + k, None), corners=corners)
        return bilinear_taps(length, out, scale, align_corners=corners)

    return slid(field, before, after, taps, 2)


@rule("upsample_nearest2d")
def _nearest(field: Field, before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    def taps(k: int, length: int, out: int) -> list[Index]:
        scale = _scale(length, out, argument(args, 2 + k, None), corners=False)
        return [np.minimum(np.floor(np.arange(out) * scale + 1e-9).astype(np.int64), length - 1)]

    return slid(field, before, after, taps, 2)


def _scale(length: int, out: int, given: float | None, *, corners: bool) -> float:
    """Input pixels an output pixel."""
    if corners:
        return (length - 1) / (out - 1) if out > 1 else 0.0
    return 1 / given if given else length / out


@rule("replication_pad2d")
def _replicate(field: Field, before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    return _padded(field, before, after, args, lambda at, length: at.clip(0, length - 1))


@rule("reflection_pad2d")
def _reflect(field: Field, before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    return _padded(field, before, after, args, lambda at, length: length - 1 - np.abs(length - 1 - np.abs(at)))


@rule("constant_pad_nd")
def _zeros_around(field: Field, before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    return _padded(field, before, after, args, lambda at, length: np.where((at < 0) | (at >= length), -1, at))


def _padded(
    field: Field, before: Shape, after: Shape, args: tuple[Any, ...], read: Callable[[Index, int], Index]
) -> Field:
    """Padding lists (left, right, top, bottom, ...): last dimension first."""
    axes = []
    for axis in field.axes:
        place = None if axis.dim is None else 2 * (len(before) - 1 - axis.dim)
        if axis.dim is None or place is None or place >= len(args[1]):
            axes.append(axis)
            continue
        at = np.arange(after[axis.dim]) - args[1][place]
        axes.append(axis.taken(read(at, before[axis.dim])))
    return field.mapped(axes[0], axes[1])


@rule("slice")
def _slice(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    dim, start, end, step = (
        argument(args, place, default) for place, default in ((1, 0), (2, None), (3, None), (4, 1))
    )
    return _reindexed(field, before, dim % len(before), np.arange(before[dim])[slice(start, end, step)])


@rule("roll")
def _roll(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    for shift, dim in zip(pair(args[1], 1), pair(argument(args, 2, ()), 1), strict=True):
        field = _reindexed(field, before, dim % len(before), np.roll(np.arange(before[dim]), shift))
    return field


@rule("flip")
def _flip(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    for dim in args[1]:
        field = _reindexed(field, before, dim % len(before), np.arange(before[dim])[::-1])
    return field


def _reindexed(field: Field, before: Shape, dim: int, index: Index) -> Field:
    if field.is_flat and field.rows.dim == dim:
        if np.array_equal(index, np.arange(before[dim])):
            return field
        raise CannotTell("a part of the tokens")
    rows, columns = (axis.taken(index) if axis.dim == dim else axis for axis in field.axes)
    return field.mapped(rows, columns)


def indexed(field: Field, before: Shape, dim: int, index: Tensor) -> Field:
    """Places picked along one dimension by known numbers, as mirroring does."""
    picked = index.numpy().astype(np.int64)
    return _reindexed(field, before, dim, np.where(picked < 0, picked + before[dim], picked))


@rule("select")
def _select(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    return _without(field, args[1] % len(before))


@rule("unbind")
def _unbind(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    return _without(field, argument(args, 1, 0) % len(before))


@rule("split", "split_with_sizes", "chunk")
def _split(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    dim = argument(args, 2, 0) % len(before)
    if dim in (field.rows.dim, field.columns.dim):
        raise CannotTell("a split along rows or columns")
    return field


def _without(field: Field, dim: int) -> Field:
    if dim in (field.rows.dim, field.columns.dim):
        raise CannotTell("one row or column alone")
    return renumbered(field, lambda own: own - (own > dim))


def renumbered(field: Field, moved: Callable[[int], int]) -> Field:
    """The same intervals in other dimensions."""
    rows, columns = (axis if axis.dim is None else axis.at(moved(axis.dim)) for axis in field.axes)
    return field.mapped(rows, columns)


@rule("permute")
def _permute(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    order = [dim % len(before) for dim in args[1]]
    return renumbered(field, order.index)


@rule("transpose", "t")
def _transpose(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    first, second = (argument(args, place, place - 1) % len(before) for place in (1, 2))
    return renumbered(field, lambda own: {first: second, second: first}.get(own, own))


@rule("unsqueeze")
def _unsqueeze(field: Field, _before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    dim = args[1] % len(after)
    return renumbered(field, lambda own: own + (own >= dim))


@rule("squeeze")
def _squeeze(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    if len(args) < 2:
        raise CannotTell("squeeze of every dimension")
    gone = [dim % len(before) for dim in pair(args[1], 1) if before[dim] == 1]
    return renumbered(field, lambda own: own - sum(dim < own for dim in gone))


@rule("expand")
def _expand(field: Field, before: Shape, after: Shape, _args: tuple[Any, ...]) -> Field:
    return renumbered(field, lambda own: own + len(after) - len(before))


@rule("pixel_shuffle")
def _pixel_shuffle(field: Field, _before: Shape, after: Shape, args: tuple[Any, ...]) -> Field:
    rows, columns = (axis.taken(np.arange(after[axis.dim or 0]) // args[1]) for axis in field.axes)
    return field.mapped(rows, columns)


@rule("view", "_unsafe_view", "reshape", "_reshape_alias")
def _view(field: Field, before: Shape, after: Shape, _args: tuple[Any, ...]) -> Field:
    """Dimensions that keep their size and what lies behind them, or that are merged or divided."""
    old, new = _behind(before), _behind(after)
    if field.is_flat:
        return _unflattened(field, before, after, old, new)
    places: list[tuple[int, int]] = []
    for axis in field.axes:
        if axis.dim is None:
            continue
        size, behind = before[axis.dim], old[axis.dim]
        fitting = [dim for dim in range(len(after)) if new[dim] <= behind and new[dim] * after[dim] >= size * behind]
        if not fitting:
            raise CannotTell("rows or columns divided into several dimensions")
        places.append((fitting[-1], behind // new[fitting[-1]]))
    if len(places) == 2 and places[0][0] == places[1][0]:
        (row_dim, _), (column_dim, inner) = places
        if inner != 1 or after[row_dim] != before[field.rows.dim or 0] * before[field.columns.dim or 0]:
            raise CannotTell("rows, columns and more in one dimension")
        return field.mapped(field.rows.at(row_dim), field.columns.at(column_dim))
    axes, todo = [], iter(places)
    for axis in field.axes:
        if axis.dim is None:
            axes.append(axis)
            continue
        dim, inner = next(todo)
        index = np.arange(after[dim]) // inner
        if after[dim] != before[axis.dim] * inner:  # something that the axis does not know lies in front of it
            index = index % before[axis.dim]
            if before[axis.dim] * inner != after[dim] and math.prod(before[: axis.dim]) != 1:
                raise CannotTell("rows or columns behind another dimension")
        axes.append(axis.taken(index).at(dim))
    return field.mapped(axes[0], axes[1])


def _unflattened(field: Field, before: Shape, after: Shape, old: list[int], new: list[int]) -> Field:
    """Tokens that stay tokens, or become a map of their rows and columns again."""
    dim = field.rows.dim
    assert dim is not None
    height, width = len(field.rows.low), len(field.columns.low)
    for place in range(len(after)):
        if after[place] == before[dim] and new[place] == old[dim]:
            return field.mapped(field.rows.at(place), field.columns.at(place))
        if after[place : place + 2] == (height, width) and new[place + 1] == old[dim]:
            return field.mapped(field.rows.at(place), field.columns.at(place + 1))
    raise CannotTell("tokens divided otherwise than into rows and columns")


def _behind(shape: Shape) -> list[int]:
    """Numbers that lie behind each dimension."""
    return [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]


def scattered(index: Field, source: Field, geometry: tuple[list[int], ...], size: tuple[int, int], dim: int) -> Field:
    """Max-unpooling: each place of the result may hold the value of any pooling window that contains it.

    Args:
        index: field of the stored places, flat.
        source: field of the values, flat.
        geometry: kernel, stride, padding and dilation of the pooling, one number for rows and one for columns each.
        size: (height, width) of the result.
        dim: of the result that holds rows times columns.
    """
    axes = []
    for k, length in enumerate(size):
        kernel, stride, padding, dilation = (numbers[k] for numbers in geometry)
        taps = transposed_window(len(source.axes[k].low), length, kernel, stride, padding, dilation)
        values, places = source.axes[k].over(taps), index.axes[k].over(taps)
        axes.append(Axis(dim, np.minimum(values.low, places.low), np.maximum(values.high, places.high)))
    return Field(axes[0], axes[1], index.wide | source.wide)


def is_pointwise(func: Any) -> bool:
    """Whether torch says that each number of the result depends on numbers of the same place alone."""
    return torch.Tag.pointwise in func.tags or name_of(func).rstrip("_") in SAME


def name_of(func: Any) -> str:
    """ "convolution" of aten.convolution.default."""
    return str(func.overloadpacket.__name__)
