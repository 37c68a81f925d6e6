"""How operators that add up over the image move receptive fields: means, normalisations, attention.

What sees all of the image at once adds its reason to `Field.wide`; the intervals go on to tell what local paths see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from intarsia.anatomy.field import Axis, Field, nothing
from intarsia.anatomy.rules import Shape, argument, pair, renumbered, rule


@rule("mean", "sum", "amax", "amin", "var_mean", "norm", "linalg_vector_norm")
def _reduction(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    given = argument(args, 1, None)
    dims = range(len(before)) if given is None or given == [] else [dim % len(before) for dim in pair(given, 1)]
    keeps = bool(argument(args, 2, False))
    kept = collapsed(field, dims, "a mean over the image")
    return kept if keeps else renumbered(kept, lambda own: own - sum(dim < own for dim in dims))


@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d")
def _adaptive(field: Field, before: Shape, after: Shape, _args: tuple[Any, ...]) -> Field:
    """A share of the image, whatever its size: means over a grid of cells."""
    if before == after:
        return field
    axes = [axis if axis.dim is None else nothing(axis.dim, after[axis.dim]) for axis in field.axes]
    return field.mapped(axes[0], axes[1], "means over a grid of the image")


def collapsed(field: Field, dims: Sequence[int], reason: str) -> Field:
    """A sum over dimensions: what it adds up over rows or columns sees the image whole."""
    if not {field.rows.dim, field.columns.dim} & set(dims) - {None}:
        return field
    axes = [nothing(None, 1) if axis.dim in dims else axis for axis in field.axes]
    return field.mapped(axes[0], axes[1], reason)


@rule("_softmax", "_safe_softmax", "_log_softmax", "cumsum")
def _softmax(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    dim = args[1] % len(before)
    if dim in (field.rows.dim, field.columns.dim):
        return field.mapped(field.rows, field.columns, "attention over the image")
    return field


@rule("native_layer_norm")
def _layer_norm(field: Field, before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    over = range(len(before) - len(args[1]), len(before))
    inside = field.rows.dim in over or field.columns.dim in over
    return field.mapped(*field.axes, *(["statistics of a normalisation"] if inside else []))


@rule("native_group_norm")
def _group_norm(field: Field, _before: Shape, _after: Shape, _args: tuple[Any, ...]) -> Field:
    return field.mapped(*field.axes, "statistics of a normalisation")


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(field: Field, _before: Shape, _after: Shape, args: tuple[Any, ...]) -> Field:
    """At rest it is pointwise; instance normalisation is one that is never at rest."""
    asks = argument(args, 5, False)
    return field.mapped(*field.axes, *(["statistics of a normalisation"] if asks is True else []))


def product(left: Field | None, right: Field | None, shapes: tuple[Shape, Shape]) -> Field:
    """A matrix product over the last dimension of the left and the last but one of the right."""
    parts: list[Field] = []
    for field, shape, summed in zip((left, right), shapes, (-1, -2), strict=True):
        if field is not None:
            parts.append(collapsed(field, [len(shape) + summed], "attention over the image"))
    if len(parts) == 1:
        return parts[0]
    rows, columns = (_one_of([field.axes[k] for field in parts]) for k in (0, 1))
    return Field(rows, columns, parts[0].wide | parts[1].wide)


def _one_of(axes: list[Axis]) -> Axis:
    """Of two factors, at most one may still carry the axis; queries against keys carry it twice, and see everything."""
    carrying = [axis for axis in axes if axis.dim is not None]
    return carrying[0] if carrying else axes[0]
