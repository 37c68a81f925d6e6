"""Classes renamed, merged and left out: old name to new name, `ignore` to leave a class out, "*" for all others.

class_map: {car: vehicle, truck: vehicle, sky: ignore}
class_map: {road: road, "*": ignore}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from intarsia.classes import IGNORE, ClassTable, Colour, default_colors
from intarsia.errors import ConfigError
from intarsia.registry import did_you_mean

OTHERS = "*"


def renamed(table: ClassTable, class_map: Mapping[str, str], where: str = "data.class_map") -> list[str | None]:
    """(K,) new name of each class, None where it is left out.

    Raises:
        ConfigError: a name that is no class.
    """
    for name in class_map:
        if name != OTHERS and name not in table.names:
            hint = did_you_mean(name, table.names) or f" There are: {', '.join(table.names[:12])}."
            raise ConfigError(f"{where}: {name!r} is no class of the data set.{hint}")
    rest = class_map.get(OTHERS)
    new = [class_map.get(name, name if rest is None else rest) for name in table.names]
    return [None if name == "ignore" else name for name in new]


def merged_table(parts: Sequence[tuple[ClassTable, Sequence[str | None]]], names: Sequence[str] = ()) -> ClassTable:
    """The table of the new names, in the order of `names`, else of first appearance; a class keeps its first colour.

    Raises:
        ConfigError: no class is left, or `names` and the maps do not say the same.
    """
    colours: dict[str, Colour] = {}
    for table, new in parts:
        for name, colour in zip(new, table.colors, strict=True):
            if name is not None:
                colours.setdefault(name, colour)
    if not colours:
        raise ConfigError("data.class_map: leaves out every class.")
    for name in names:
        if name not in colours:
            raise ConfigError(f"data.names: no data set has a class {name!r}.{did_you_mean(name, colours)}")
    if names and (missing := [name for name in colours if name not in names]):
        raise ConfigError(
            f"data.names: lacks {missing[0]!r}; list it, or leave it out with class_map: {{{missing[0]}: ignore}}."
        )
    order = tuple(names or colours)
    chosen = tuple(colours[name] for name in order)
    differ = len(set(chosen)) == len(chosen)
    return ClassTable(names=order, colors=chosen if differ else default_colors(len(order)), ignore_index=IGNORE)


def numbers(new: Sequence[str | None], table: ClassTable) -> list[int]:
    """(K,) number in `table` of each new name, 255 where it is left out."""
    return [IGNORE if name is None else table.names.index(name) for name in new]
