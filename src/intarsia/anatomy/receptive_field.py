"""Receptive fields of every layer, exact for each place: intervals follow the operators of a model that runs on no numbers.

The image is made so large (`MARGIN` more than asked for) that places in its middle feel no border; those are what is reported.
The margin is a multiple of 4096, so that a model pads and rounds as it does at the size asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from intarsia.anatomy.field import Axis, CannotTell, Field, Index, Unknown, image_field, nothing, union
from intarsia.anatomy.mixing_rules import product
from intarsia.anatomy.rules import (
    RULES,
    indexed,
    is_pointwise,
    name_of,
    pool_window,
    scattered,
)
from intarsia.anatomy.trace import Place, Watch, channels_of, device_of, tensors_in

MARGIN = 4096
TOO_LARGE = "no place of it is free of the border"
PERIOD = 384
"""Places in the middle that are looked at: a multiple of every stride met, so that all phases are among them."""

_SPANS = (384, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
"""Numbers of places over which a stride is measured: whole periods of what repeats every power of two, and every third."""
FRESH = frozenset(
    (
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand_like",
    )
)
"""Operators that take a tensor's shape, and nothing of what it holds."""


@dataclass(frozen=True)
class AxisField:
    """Receptive field along rows or columns, far from borders."""

    smallest: int
    """Image pixels that a place depends on, at the phase where they are fewest; 0: none, but for what sees all."""
    largest: int
    """The same where they are most."""
    stride: float
    """Image pixels from one place to the next."""
    start: float
    """Centre of the field of place 0, in image pixels, if the border were no border."""

    @property
    def size(self) -> str:
        """ "404", or "188–204" where it depends on the phase."""
        return str(self.largest) if self.smallest == self.largest else f"{self.smallest}–{self.largest}"


@dataclass(frozen=True)
class LayerField:
    """Receptive field of what a layer gives."""

    rows: AxisField | None = None
    columns: AxisField | None = None
    wide: tuple[str, ...] = ()
    """Why the whole image is seen; empty: it is not. rows and columns then hold the local paths alone."""
    unknown: str = ""
    """Why the field cannot be told; empty: it can."""


class FieldTrace(Watch):  # type: ignore[no-untyped-call]
    """Fields of every tensor while a model runs; tensors are kept, so that a number names one of them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.fields: dict[int, Field | Unknown] = {}
        self.layers: dict[Place, Field | Unknown] = {}
        self._kept: list[Any] = []
        self._values: dict[int, Tensor] = {}
        self._windows: dict[int, tuple[tuple[list[int], ...], tuple[int, int]]] = {}
        self._parts: dict[int, tuple[Tensor, int, Index]] = {}

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        self._kept.append((args, out))
        inputs, outputs = tensors_in((args, kwargs)), tensors_in(out)
        known = [self.fields[id(tensor)] for tensor in inputs if id(tensor) in self.fields]
        place = self.place(func)
        if not outputs or name_of(func) in FRESH:
            return
        if not known:
            self._remember_values(func, args, kwargs, out)
            return
        lost = next((field for field in known if isinstance(field, Unknown)), None)
        found: Field | Unknown
        try:
            found = lost or self._moved(func, args, inputs, outputs[0])
        except CannotTell as error:
            found = Unknown(f"{name_of(func)} ({error})")
        for tensor in outputs:
            self.fields[id(tensor)] = found
        self.layers[place] = found

    def _moved(self, func: Any, args: tuple[Any, ...], inputs: list[Tensor], out: Tensor) -> Field:
        name, shape = name_of(func), tuple(out.shape)
        if name == "copy_":
            return self._written(args[0], args[1])
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            left, right = args[-2:] if name in ("mm", "bmm") else args[1:3]
            return product(self._of(left), self._of(right), (tuple(left.shape), tuple(right.shape)))
        if name in ("cat", "stack"):
            return self._beside(args, name, shape)
        if name == "index":
            return self._picked(args)
        if name == "scatter":
            return self._unpooled(args)
        first = self._of(inputs[0])
        if is_pointwise(func) and name.rstrip("_") != "copy":
            parts = [(field, tensor.ndim) for tensor in inputs if (field := self._of(tensor)) is not None]
            return union(parts, out.ndim, shape)
        if name.rstrip("_") not in RULES and name not in RULES:
            raise CannotTell("no rule is written for it")
        if first is None:
            raise CannotTell("its image is not its first argument")
        before = tuple(inputs[0].shape)
        self._follow(name, inputs[0], out, args, before)
        return RULES[name](first, before, shape, args)

    def _of(self, tensor: Any) -> Field | None:
        field = self.fields.get(id(tensor))
        return field if isinstance(field, Field) else None

    def _follow(self, name: str, source: Tensor, out: Tensor, args: tuple[Any, ...], before: tuple[int, ...]) -> None:
        """What later rules need: the windows of a pooling, and which part of a tensor a slice is."""
        if name == "max_pool2d_with_indices":
            indices = self._kept[-1][1][1]
            self._windows[id(indices)] = (pool_window(args, dilated=True), (before[-2], before[-1]))
        elif id(source) in self._windows and name in ("view", "_unsafe_view", "reshape"):
            self._windows[id(out)] = self._windows[id(source)]
        self._note_part(name, source, out, args)

    def _note_part(self, name: str, source: Tensor, out: Tensor, args: tuple[Any, ...]) -> None:
        if name == "slice":
            dim, start, end, step = (list(args[1:]) + [0, None, None, 1][len(args) - 1 :])[:4]
            index = np.arange(source.shape[dim])[slice(start, end, step)]
            self._parts[id(out)] = (source, dim % source.ndim, index)

    def _remember_values(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Tables of indices are small and made of nothing but numbers: they are computed beside, on the processor."""
        if not isinstance(out, Tensor):
            return
        self._note_part(name_of(func), args[0] if args else out, out, args) if name_of(func) == "slice" else None
        if out.dtype.is_floating_point or out.ndim > 1 or not 0 < out.numel() < 1 << 20:
            return
        if out.device.type != "meta":
            self._values[id(out)] = out
            return
        if any(id(tensor) not in self._values for tensor in tensors_in((args, kwargs))):
            return
        theirs = [self._values[id(arg)] if isinstance(arg, Tensor) else arg for arg in args]
        options = {**kwargs, **({"device": "cpu"} if "device" in kwargs else {})}
        self._values[id(out)] = func(*theirs, **options)

    def _picked(self, args: tuple[Any, ...]) -> Field:
        source, field = args[0], self._of(args[0])
        used = [(dim, index) for dim, index in enumerate(args[1]) if index is not None]
        if field is None or len(used) != 1 or id(used[0][1]) not in self._values:
            raise CannotTell("indices that are computed from the image")
        return indexed(field, tuple(source.shape), used[0][0], self._values[id(used[0][1])])

    def _beside(self, args: tuple[Any, ...], name: str, shape: tuple[int, ...]) -> Field:
        dim = (args[1] if len(args) > 1 else 0) % len(shape)
        shift = int(name == "stack")
        parts = []
        for tensor in args[0]:
            field = self._of(tensor)
            if field is None:
                continue
            axes = [
                axis if axis.dim is None else axis.at(axis.dim + (shift if axis.dim >= dim else 0))
                for axis in field.axes
            ]
            parts.append((field.mapped(axes[0], axes[1]), tensor.ndim + shift))
        if not shift and any(dim in (field.rows.dim, field.columns.dim) for field, _ in parts):
            raise CannotTell("maps joined along rows or columns")
        return union(parts, len(shape), shape)

    def _unpooled(self, args: tuple[Any, ...]) -> Field:
        _, dim, index, source = args[:4]
        places, values = self._of(index), self._of(source)
        if id(index) not in self._windows or places is None or values is None or not values.is_flat:
            raise CannotTell("places that no pooling gave")
        geometry, size = self._windows[id(index)]
        return scattered(places, values, geometry, size, dim)

    def _written(self, target: Tensor, source: Tensor) -> Field:
        """A copy into a part of a tensor of zeros, as the bed of nails makes it; the whole tensor learns of it."""
        field = self._of(source)
        if field is None:
            raise CannotTell("a copy of what no rule follows")
        self.fields[id(target)] = field
        while id(target) in self._parts:
            whole, dim, index = self._parts[id(target)]
            axes = []
            for axis in field.axes:
                if axis.dim != dim:
                    axes.append(axis)
                    continue
                spread = nothing(dim, whole.shape[dim])
                spread.low[index], spread.high[index] = axis.low, axis.high
                axes.append(Axis(dim, spread.low, spread.high))
            field = field.mapped(axes[0], axes[1])
            known = self._of(whole)
            if known is not None:  # other parts were written before
                field = union([(known, whole.ndim), (field, whole.ndim)], whole.ndim, tuple(whole.shape))
            self.fields[id(whole)] = field
            target = whole
        return field


def trace_fields(model: nn.Module, size: tuple[int, int]) -> dict[Place, LayerField]:
    """The field of every operator's result for a model that rests (evaluation mode), at a size beyond every field.

    Args:
        model: on the meta device; its mode is changed to evaluation.
        size: (H, W) of the input whose paddings shall be met.

    Returns:
        Places in the order of calls; the last of them gives the logits.
    """
    found = _traced(model, size, MARGIN)
    if any(field.unknown == TOO_LARGE for field in found.values()):
        found = _traced(model, size, 4 * MARGIN)
    return found


@torch.no_grad()
def exact_fields(model: nn.Module, size: tuple[int, int]) -> dict[Place, Field | Unknown]:
    """The intervals of every place of every operator's result for an input of (H, W), borders as they are."""
    image = torch.zeros(1, channels_of(model), *size, device=device_of(model))
    trace = FieldTrace(model.eval())
    trace.fields[id(image)] = image_field(*size)
    with trace.watching():
        model(image)
    return trace.layers


def _traced(model: nn.Module, size: tuple[int, int], margin: int) -> dict[Place, LayerField]:
    height, width = size[0] + margin, size[1] + margin
    known: dict[tuple[int, ...], LayerField] = {}  # most operators hand on the intervals that they were given
    found = {}
    for place, field in exact_fields(model, (height, width)).items():
        key = (id(field),) if isinstance(field, Unknown) else (*(id(axis.low) for axis in field.axes), hash(field.wide))
        if key not in known:
            known[key] = summarized(field, (height, width))
        found[place] = known[key]
    return found


def summarized(field: Field | Unknown, size: tuple[int, int]) -> LayerField:
    """The field of the places in the middle of a map."""
    if isinstance(field, Unknown):
        return LayerField(unknown=field.reason)
    rows, columns = (_middle(axis, length) for axis, length in zip(field.axes, size, strict=True))
    wide = tuple(sorted(field.wide))
    if not wide and (rows is None or columns is None):
        return LayerField(unknown=TOO_LARGE)
    return LayerField(rows, columns, wide)


def _middle(axis: Axis, length: int) -> AxisField | None:
    """Of up to PERIOD places around the middle that feel no border; None: the middle itself feels it, or there is no place."""
    if axis.dim is None:
        return None
    count = len(axis.low)
    first = max(0, count // 2 - PERIOD // 2)
    low, high = axis.low[first : first + PERIOD + 1], axis.high[first : first + PERIOD + 1]
    sees, middle = low <= high, count // 2 - first
    touching = np.flatnonzero(sees & ((low <= 0) | (high >= length - 1)))
    if not len(low) or middle in touching:
        return None
    start_at = max((int(at) + 1 for at in touching if at < middle), default=0)
    stop_at = min((int(at) for at in touching if at > middle), default=len(low))
    places = np.flatnonzero(sees[start_at:stop_at]) + start_at
    if not len(places):
        return None
    sizes = np.where(sees, high - low + 1, 0)[start_at:stop_at]
    centres = ((low + high) / 2)[places]
    if len(places) < 2:
        return AxisField(int(sizes.min()), int(sizes.max()), float(length), float(centres[0]))
    span = next(span for span in _SPANS if span < len(places))
    stride = float((centres[span] - centres[0]) / (places[span] - places[0]))
    start = float(np.mean((centres - (places + first) * stride)[:span]))
    return AxisField(int(sizes.min()), int(sizes.max()), round(stride, 4), round(start, 2) + 0.0)
