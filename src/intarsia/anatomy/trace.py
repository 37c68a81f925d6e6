"""Watching a model run: every operator with its shapes and the part of the model that asked for it.

The model runs on torch's meta device where it can: all shapes, no numbers, no memory. A model that cannot (it reads values, or
keeps tensors beside its parameters) runs on the processor instead.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from intarsia.anatomy.rules import name_of


@dataclass(frozen=True)
class Place:
    """Where an operator was called: the innermost part of the model, and which call of that kind it was there."""

    path: str
    """Path of the part, "" for the model itself."""
    kind: str
    """Class of the part if it has no parts of its own, else the operator."""
    nth: int
    """Number of the call of this kind at this path, from 0."""


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `saw` for every operator while it is the active mode.

    Args:
        model: whose parts are told apart; any module.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.stack: list[tuple[str, str, int]] = [("", "", 0)]
        self._calls: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The mode and what tells which part is running.

        Hooks of torch for all modules, not of the parts: a part that is listened to may compute in another way.
        """
        paths = {id(module): (path, self._kind(module)) for path, module in self.model.named_modules()}

        def enter(module: nn.Module, _inputs: Any) -> None:
            if id(module) in paths:
                path, kind = paths[id(module)]
                self.stack.append((path, kind, self._calls[path, kind]))
                self._calls[path, kind] += 1

        def leave(module: nn.Module, _inputs: Any, _out: Any) -> None:
            if id(module) in paths:
                self.stack.pop()

        hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    @staticmethod
    def _kind(module: nn.Module) -> str:
        return "" if any(True for _ in module.children()) else type(module).__name__

    def place(self, func: Any) -> Place:
        """Of the operator that is running."""
        path, kind, nth = self.stack[-1]
        if kind:
            return Place(path, kind, nth)
        name = name_of(func)
        self._calls[path, name] += 1
        return Place(path, name, self._calls[path, name] - 1)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = _at_once(func, args) if _can_be_at_once(func, args) else func(*args, **(kwargs or {}))
        self.saw(func, args, kwargs or {}, out)
        return out

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """One operator, behind its call."""
        raise NotImplementedError


def _can_be_at_once(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether the result is known without torch's own, slow rules for shapes: half of the time of a run without numbers."""
    if not args or not isinstance(args[0], Tensor) or args[0].device.type != "meta":
        return False
    name = name_of(func)
    in_place = name.endswith("_") and name != "copy_" and torch.Tag.pointwise in func.tags
    return in_place or (name == "native_batch_norm" and args[5] is False)


def _at_once(func: Any, args: tuple[Any, ...]) -> Any:
    """What was changed in its place; normalised maps, and no statistics of a batch."""
    if name_of(func).endswith("_"):
        return args[0]
    return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)


def tensors_in(tree: Any) -> list[Tensor]:
    """All tensors of arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def on_meta(model: nn.Module) -> nn.Module:
    """A copy without numbers: parameters and buffers on the meta device, everything else as it is."""
    return _copied(model, lambda tensor: torch.empty_like(tensor, device="meta"))


def as_if_on_processor(model: nn.Module) -> tuple[nn.Module, FakeTensorMode]:
    """A copy without numbers whose tensors say that they lie on the processor, and the mode under which it runs.

    For models that compute in another way there than on the meta device; slower than that.
    """
    mode = FakeTensorMode()

    def pretended(tensor: Tensor) -> Tensor:
        with mode:
            return torch.empty(tensor.shape, dtype=tensor.dtype)

    return _copied(model, pretended), mode


def _copied(model: nn.Module, bare_of: Callable[[Tensor], Tensor]) -> nn.Module:
    bare: dict[int, Any] = {}
    for parameter in model.parameters():
        bare[id(parameter)] = nn.Parameter(bare_of(parameter), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        bare[id(buffer)] = bare_of(buffer)
    return copy.deepcopy(model, bare)


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter, else the first buffer, lies; the processor if there is neither."""
    return next(
        (tensor.device for group in (model.parameters(), model.buffers()) for tensor in group), torch.device("cpu")
    )


def channels_of(model: nn.Module) -> int:
    """Channels of the images that it takes: as its config says, else of its first convolution, else 3."""
    told = getattr(getattr(model, "config", None), "in_channels", None)
    if told is not None:
        return int(told)
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return first.in_channels if first is not None else 3
