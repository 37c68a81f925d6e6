"""What a model costs: multiply-accumulates, and the memory of its activations, at rest and in training.

Multiply-accumulates (MACs) are those of convolutions and matrix products; a convolution has
`out positions x k_h k_w x C_in / groups x C_out`, a transposed one the same over its input positions. Biases, normalisations,
poolings and interpolations are left out, as everywhere; torch's FlopCounterMode counts the same, twice (a multiplication and an
addition).

Memory is what tensors hold: every storage from its making to its end, once however many views it has, parameters and buffers
left out. Workspaces that a convolution library takes inside one operator are not in it, nor what an allocator keeps in reserve.
Figures are of one image in float32 with the tensors that torch makes on a processor; on a GPU the masks of dropout take a byte
a value instead of four.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.anatomy.rules import name_of
from intarsia.anatomy.trace import Place, Watch, as_if_on_processor, channels_of, device_of, tensors_in


@dataclass(frozen=True)
class LayerCost:
    """One layer at rest."""

    shape: tuple[int, ...]
    """Of the last tensor it gives, with the batch of one."""
    macs: int
    live_bytes: int
    """Most bytes of activations that are alive while it runs, its own and those that wait for later layers."""


@dataclass(frozen=True)
class Costs:
    """At one input size, for one image."""

    layers: dict[Place, LayerCost]
    peak_bytes: int
    """Most bytes of activations alive at once at rest, the image and the logits among them."""


@dataclass
class TrainingMemory:
    """Of one step with one image."""

    kept_bytes: int = 0
    """Alive between the way forward and the way back: the image, the logits and all that gradients need."""
    peak_bytes: int = 0
    """Most bytes alive at once in the step, gradients of parameters left out."""
    total_peak_bytes: int = 0
    """The same with gradients of parameters; weights themselves and the optimiser's state come on top."""
    gradient_bytes: int = 0
    """Gradients of parameters behind the step."""
    layers: dict[Place, int] = field(default_factory=dict)
    """Bytes that each layer has made and that are kept for the way back."""


class Storages:
    """Bytes of the tensors alive, each storage once."""

    def __init__(self, left_out: list[Tensor]) -> None:
        self.left_out = {tensor.untyped_storage()._cdata for tensor in left_out}
        self.alive: dict[int, tuple[int, Place | None]] = {}
        self.gradients: set[int] = set()
        self.now = self.peak = self.total_peak = self.of_gradients = 0

    def born(self, tensor: Tensor, place: Place | None) -> None:
        """Count a tensor's storage until it dies, if it is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.alive or key in self.left_out:
            return
        self.alive[key] = (storage.nbytes(), place)
        self.now += storage.nbytes()
        weakref.finalize(storage, self._dies, key)

    def _dies(self, key: int) -> None:
        size, _ = self.alive.pop(key, (0, None))
        self.now -= size
        if key in self.gradients:
            self.gradients.discard(key)
            self.of_gradients -= size

    def is_gradient(self, parameter: Tensor) -> None:
        """The parameter's gradient is complete: it counts apart from activations."""
        assert parameter.grad is not None
        self.set_apart(parameter.grad)

    def set_apart(self, gradient: Tensor) -> None:
        """Count a tensor as the gradient of a parameter."""
        key = gradient.untyped_storage()._cdata
        if key in self.alive and key not in self.gradients:
            self.gradients.add(key)
            self.of_gradients += self.alive[key][0]

    def look(self) -> None:
        """Take note of how much is alive now."""
        self.total_peak = max(self.total_peak, self.now)
        self.peak = max(self.peak, self.now - self.of_gradients)


class CostTrace(Watch):  # type: ignore[no-untyped-call]
    """Counts while a model runs."""

    def __init__(self, model: nn.Module, image: Tensor, *, memory: bool = True) -> None:
        super().__init__(model)
        self.macs: Counter[Place] = Counter()
        self.shapes: dict[Place, tuple[int, ...]] = {}
        self.live: dict[Place, int] = {}
        self.memory = memory
        self.storages = Storages([*model.parameters(), *model.buffers()])
        self.storages.born(image, None)

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        place = self.place(func)
        counted = MACS.get(name_of(func))
        if counted:
            self.macs[place] += counted(args, out)
        tensors = tensors_in(out)
        if tensors:
            self.shapes[place] = tuple(tensors[0].shape)
        if self.memory:
            for tensor in tensors:
                self.storages.born(tensor, place)
            if name_of(func) == "convolution_backward" and args[2].untyped_storage()._cdata in self.storages.left_out:
                for gradient in tensors_in(out[1:]):
                    self.storages.set_apart(gradient)
            self.storages.look()
            self.live[place] = max(self.live.get(place, 0), self.storages.now)


def _convolution(args: tuple[Any, ...], out: Tensor) -> int:
    weight = args[1]
    positions = (args[0] if args[6] else out).shape
    return positions[0] * math.prod(positions[2:]) * int(weight.numel())


def _product(args: tuple[Any, ...], out: Tensor) -> int:
    left = args[0] if args[0].shape[-1] != out.shape[-1] or len(args) == 2 else args[1]
    return out.numel() * int(left.shape[-1])


def _added_product(args: tuple[Any, ...], out: Tensor) -> int:
    return out.numel() * int(args[1].shape[-1])


def _attention(args: tuple[Any, ...], _out: Any) -> int:
    query, key, value = args[:3]
    return int(math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


MACS: dict[str, Callable[[tuple[Any, ...], Any], int]] = {
    "convolution": _convolution,
    "mm": _product,
    "bmm": _product,
    "addmm": _added_product,
    "baddbmm": _added_product,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_flash_attention": _attention,
}


@torch.no_grad()
def trace_costs(model: nn.Module, size: tuple[int, int], *, memory: bool = True) -> Costs:
    """Run a resting model once at an input of (H, W) and count.

    Args:
        model: on the meta device, or where it can run; its mode is changed to evaluation.
        memory: follow the tensors' lives too; without it `live_bytes` and `peak_bytes` are 0.
    """
    image = torch.zeros(1, channels_of(model), *size, device=device_of(model))
    trace = CostTrace(model.eval(), image, memory=memory)
    with trace.watching():
        model(image)
    layers = {
        place: LayerCost(shape, trace.macs[place], trace.live.get(place, 0)) for place, shape in trace.shapes.items()
    }
    return Costs(layers, trace.storages.peak)


def trace_training(model: nn.Module, size: tuple[int, int]) -> TrainingMemory:
    """Run one step of training without a loss: a gradient of the logits' size comes back through the model.

    A model on the meta device runs as if it were on a processor, since some keep less for the gradient there.

    Args:
        model: as for `trace_costs`; one that is not on the meta device changes to training and loses its gradients.
    """
    if device_of(model).type != "meta":
        return _step(model, torch.zeros(1, channels_of(model), *size, device=device_of(model)))
    pretending, mode = as_if_on_processor(model)
    with mode:
        return _step(pretending, torch.zeros(1, channels_of(model), *size))


@torch.enable_grad()
def _step(model: nn.Module, image: Tensor) -> TrainingMemory:
    trace = CostTrace(model.train(), image)
    model.zero_grad(set_to_none=True)
    hooks = [
        parameter.register_post_accumulate_grad_hook(trace.storages.is_gradient)  # type: ignore[no-untyped-call]
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    memory = TrainingMemory()
    with trace.watching():
        outputs = _outputs(model, image)
        memory.kept_bytes = trace.storages.now
        for size_, place in trace.storages.alive.values():
            if place is not None:
                memory.layers[place] = memory.layers.get(place, 0) + size_
        if any(output.requires_grad for output in outputs):
            torch.autograd.backward(outputs, [torch.zeros_like(output) for output in outputs])
        trace.storages.look()
    for hook in hooks:
        hook.remove()
    memory.peak_bytes, memory.total_peak_bytes = trace.storages.peak, trace.storages.total_peak
    memory.gradient_bytes = trace.storages.of_gradients
    model.zero_grad(set_to_none=True)
    return memory


def _outputs(model: Any, image: Tensor) -> list[Tensor]:
    """The logits, and with deep supervision the auxiliary ones."""
    if getattr(getattr(model, "config", None), "deep_supervision", False):
        logits, others = model.with_auxiliary(image)
        return [logits, *others]
    return [model(image)]
