"""What a user can name: one `Registry` a kind (model, loss, data set, recipe), filled by decorators.

A *family* is a config class whose defaults are the paper's; a *preset* is a named value of a family.
Built-in parts and plug-ins come through the same door, the entry-point group `intarsia.plugins`: importing the module
that an entry names runs its decorators.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, Self, TypeVar

from intarsia.errors import UnknownName


class Nameable(Protocol):
    """What a registry holds: a frozen value that knows its name and can be copied with changes."""

    @property
    def name(self) -> str: ...
    def replace(self, changes: Mapping[str, Any] | None = None, /, *, where: str = "", **settings: Any) -> Self: ...


C = TypeVar("C", bound=Nameable)
F = TypeVar("F", bound=type)


class Registry(Generic[C]):
    """Names to config values of one kind.

    Args:
        kind: the singular, as in messages and settings: "model".
        plural: as in `intarsia list models`.
    """

    def __init__(self, kind: str, plural: str) -> None:
        self.kind, self.plural = kind, plural
        self._values: dict[str, C] = {}

    def family(self, name: str) -> Callable[[F], F]:
        """Class decorator: registers the class's defaults under `name`."""

        def register(cls: F) -> F:
            self.preset(name, cls())
            return cls

        return register

    def preset(self, name: str, value: C) -> C:
        """Register `value` under `name`; a name is given once."""
        if name in self._values:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._values[name] = value.replace(name=name)
        return self._values[name]

    def names(self) -> list[str]:
        load_plugins()
        return sorted(self._values)

    def __contains__(self, name: str) -> bool:
        load_plugins()
        return name in self._values

    def __getitem__(self, name: str) -> C:
        load_plugins()
        if name not in self._values:
            raise UnknownName(
                f"{self.kind}: there is no {name!r}.{did_you_mean(name, self._values)} "
                f"`intarsia list {self.plural}` shows all {len(self._values)}."
            )
        return self._values[name]

    def resolve(self, value: str | Mapping[str, Any] | C) -> C:
        """A name, a mapping with `name` and settings, or a value itself, as a value."""
        if isinstance(value, str):
            return self[value]
        if isinstance(value, Mapping):
            settings = dict(value)
            if "name" not in settings:
                raise UnknownName(f"{self.kind}: needs a name. `intarsia list {self.plural}` shows them.")
            return self[settings.pop("name")].replace(settings, where=self.kind)
        return value


def did_you_mean(name: str, known: Iterable[str], quote: str = "'{}'") -> str:
    """ " Did you mean 'unet'?" or "" if nothing known is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" Did you mean {quote.format(near[0])}?" if near else ""


@cache
def load_plugins() -> None:
    """Import every module of the entry-point group once; a broken plug-in is said and passed over."""
    for entry in entry_points(group="intarsia.plugins"):
        try:
            entry.load()
        except Exception as error:
            if entry.value.startswith("intarsia."):
                raise
            warnings.warn(f"plug-in {entry.name} ({entry.value}) could not be loaded: {error}", stacklevel=2)
