"""Rows of the table: one a layer, and the same gathered into the few parts that a person reads.

Activations, dropout, sums, concatenations and crops have no row: what they hold counts with the row before them. A
normalisation with weights has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from intarsia.anatomy.cost import Costs, LayerCost
from intarsia.anatomy.receptive_field import LayerField
from intarsia.anatomy.trace import Place

KINDS = {
    "convolution": "convolution",
    "max_pool2d_with_indices": "max pooling",
    "avg_pool2d": "average pooling",
    "_adaptive_avg_pool2d": "means over a grid",
    "mean": "mean over the image",
    "upsample_bilinear2d": "bilinear",
    "upsample_nearest2d": "nearest",
    "replication_pad2d": "border repeated",
    "reflection_pad2d": "border mirrored",
    "constant_pad_nd": "border of zeros",
    "index": "border mirrored",
    "scatter": "unpooling",
    "pixel_shuffle": "pixel shuffle",
    "mm": "product",
    "bmm": "product",
    "addmm": "product",
}
"""Operators called by a part that has parts of its own: those with a row, and what the row calls them."""
FEW, MANY = 16, 36
"""Rows that a table of parts has at least, where the model has as many parts, and at most."""


@dataclass(frozen=True)
class Layer:
    """One row."""

    path: str
    """Path of the part in the model; of an operator without a part of its own, that of the part that calls it."""
    kind: str
    """Class of the part, or the operator in words."""
    shape: tuple[int, ...]
    """(C, h, w) of what it gives for one image; other numbers where it gives no map."""
    field: LayerField
    """What a place of it sees."""
    parameters: int
    macs: int
    kept_bytes: int
    """In training: bytes it makes that wait for the way back."""
    live_bytes: int
    """At rest: most bytes alive while it runs."""
    count: int = 1
    """Layers that the row stands for."""

    @property
    def name(self) -> str:
        """ "down.0", or "max pooling" of an operator at the top, "context: max pooling" below it."""
        if self.kind not in KINDS.values():
            return self.path
        return f"{self.path}: {self.kind}" if self.path else self.kind

    @property
    def stride(self) -> float | None:
        """Image pixels between its places along rows; None: it has no rows, or no field."""
        return self.field.rows.stride if self.field.rows else None


def layers_of(
    model: nn.Module, costs: Costs, fields: Mapping[Place, LayerField], kept: Mapping[Place, int]
) -> list[Layer]:
    """A row a layer, in the order of the calls. What has no row of its own counts with the row before."""
    owned = _owned_parameters(model)
    rows: list[Layer] = []
    row_of: dict[Place, int] = {}
    for place, cost in costs.layers.items():
        if not _has_row(place, cost, place in fields and bool(owned.get(place.path))):
            if rows:
                rows[-1] = _with(rows[-1], place, cost)
            row_of[place] = max(len(rows) - 1, 0)
            continue
        field = fields.get(place, LayerField(unknown="it is not called at other sizes"))
        kind = KINDS.get(place.kind, place.kind)
        if rows and rows[-1].kind == kind == "border mirrored" and rows[-1].path == place.path:
            rows.pop()  # rows first, then columns: one operation
        parameters = owned.pop(place.path, 0)
        rows.append(Layer(place.path, kind, cost.shape[1:], field, parameters, cost.macs, 0, cost.live_bytes))
        row_of[place] = len(rows) - 1
    return _with_kept(rows, row_of, kept)


def _with_kept(rows: list[Layer], row_of: Mapping[Place, int], kept: Mapping[Place, int]) -> list[Layer]:
    """Bytes kept in training, for operators that rest in evaluation too by the part that calls them."""
    before = 0
    sums = [0] * len(rows)
    for place, size in kept.items():
        if place in row_of:
            before = min(row_of[place], len(rows) - 1)
        elif place.path:
            inside = [at for at, row in enumerate(rows) if f"{row.path}.".startswith(f"{place.path}.")]
            before = inside[-1] if inside else before
        if rows:
            sums[before] += size
    return [replace(row, kept_bytes=size) for row, size in zip(rows, sums, strict=True)]


def _with(row: Layer, place: Place, cost: LayerCost) -> Layer:
    """A row and an operator behind it that has none."""
    if row.kind == "unpooling" and place.kind == "view" and len(row.shape) == 2:
        row = replace(row, shape=cost.shape[1:])  # scattered values become a map again
    return replace(row, live_bytes=max(row.live_bytes, cost.live_bytes))


def _has_row(place: Place, cost: LayerCost, brings_parameters: bool) -> bool:
    if cost.macs or brings_parameters or place.kind in KINDS:
        return True
    return any(word in place.kind for word in ("Pool", "Upsample", "Pad", "Shuffle", "Norm"))


def _owned_parameters(model: nn.Module) -> dict[str, int]:
    """Path to the number of parameters that the part holds itself, each counted once."""
    seen: set[int] = set()
    owned = {}
    for path, module in model.named_modules():
        new = [parameter for parameter in module.parameters(recurse=False) if id(parameter) not in seen]
        seen.update(id(parameter) for parameter in new)
        owned[path] = sum(parameter.numel() for parameter in new)
    return owned


def parts_of(model: nn.Module, layers: list[Layer]) -> list[Layer]:
    """Layers gathered into parts: the model's own, and those that compute most divided while there are few."""
    modules = dict(model.named_modules())
    cuts: set[str] = set()
    """Parts that are divided."""
    whole: set[str] = set()
    """Parts that stay whole."""
    while True:
        groups = _grouped(layers, modules, cuts)
        candidates = [
            group for group in groups if group[0] not in whole and _can_divide(group, modules, few=len(groups) < 6)
        ]
        if len(groups) >= FEW or not candidates:
            return [_gathered(key, rows) for key, rows in groups]
        largest = max(candidates, key=lambda group: sum(row.macs for row in group[1]))[0]
        if len(_grouped(layers, modules, cuts | {largest})) > MANY:
            whole.add(largest)
        else:
            cuts.add(largest)


def _grouped(layers: list[Layer], modules: Mapping[str, nn.Module], cuts: set[str]) -> list[tuple[str, list[Layer]]]:
    groups: list[tuple[str, list[Layer]]] = []
    for layer in layers:
        key = _key(layer, modules, cuts)
        if groups and groups[-1][0] == key and not _is_divided(key, modules, cuts):
            groups[-1][1].append(layer)
        else:
            groups.append((key, [layer]))
    return groups


def _is_divided(path: str, modules: Mapping[str, nn.Module], cuts: set[str]) -> bool:
    """Whether the rows of a part stand alone; lists, which are never called, always are divided, as the model is."""
    return not path or path in cuts or isinstance(modules[path], (nn.ModuleList, nn.ModuleDict))


def _key(layer: Layer, modules: Mapping[str, nn.Module], cuts: set[str]) -> str:
    """The longest path whose parts above are all divided."""
    names = layer.path.split(".") if layer.path else []
    for depth in range(1, len(names) + 1):
        path = ".".join(names[:depth])
        if not _is_divided(path, modules, cuts):
            return path
    return layer.path


def _can_divide(group: tuple[str, list[Layer]], modules: Mapping[str, nn.Module], *, few: bool) -> bool:
    """Whether a part holds parts that hold layers; a plain row of layers is divided only where there is little else."""
    path, rows = group
    if not path or len(rows) < 2 or path not in modules:
        return False
    return few or any(row.path.count(".") > path.count(".") + 1 for row in rows)


def _gathered(key: str, rows: list[Layer]) -> Layer:
    """One row for several: shape and field of the last, sums of numbers, the most of what is alive."""
    last = rows[-1]
    if len(rows) == 1:
        return last if last.kind in KINDS.values() else replace(last, path=key)
    return replace(
        last,
        path=key,
        kind=f"{len(rows)} layers",
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows),
        kept_bytes=sum(row.kept_bytes for row in rows),
        live_bytes=max(row.live_bytes for row in rows),
        count=len(rows),
    )
