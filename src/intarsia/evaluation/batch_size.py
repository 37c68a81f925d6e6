"""How many samples a training step can hold: an estimate from the tensors that autograd would keep, without computing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from intarsia.data.base import Dataset
from intarsia.devices import available_memory, choose_device
from intarsia.images.preprocess import median_size
from intarsia.models.base import SegmentationModel
from intarsia.recipes.recipe import Recipe

_PER_WEIGHT = 16
"""Bytes: weight, gradient and AdamW's two moments, float32."""
_MARGIN = 1.1
"""For the passing tensors of single operations, and for gaps."""
_KEPT_IN_BF16 = 0.55
"""Share of the bytes that is left where convolutions compute in bf16: normalisation and losses stay float32."""


@dataclass(frozen=True)
class BatchEstimate:
    """The largest batch that should fit, and what it was worked out from."""

    largest: int
    size: tuple[int, int]
    """(height, width) of a sample."""
    bytes_per_sample: int
    memory: int
    """Bytes that are free."""
    device: str
    model: str

    def text(self) -> str:
        each = f"{self.bytes_per_sample / (1 << 20):,.0f} MB a sample of {self.size[0]} x {self.size[1]}".replace(
            ",", " "
        )
        return f"about {self.largest} (an estimate: {self.model}, {each}, {self.memory / (1 << 30):.1f} GB free, {self.device})"

    def to_dict(self) -> dict[str, Any]:
        return {
            "largest": self.largest,
            "is_an_estimate": True,
            "model": self.model,
            "size": list(self.size),
            "bytes_per_sample": self.bytes_per_sample,
            "free_bytes": self.memory,
            "device": self.device,
        }


def largest_batch(recipe: Recipe, dataset: Dataset) -> BatchEstimate | None:
    """The largest batch of a recipe's model on a data set that should fit on this machine; None where it cannot be told."""
    device = choose_device(recipe.train.device, recipe.train.precision)
    config = recipe.model.without_start_weights()
    config = config.replace(
        num_classes=config.num_classes or dataset.table.count, in_channels=config.in_channels or dataset.channels
    )
    sizes = [(item.height, item.width) for item in dataset.items("train")]
    try:
        with torch.device("meta"):
            model = config.build()
        size = recipe.data.size or model.sample_size(*median_size(sizes, recipe.data.scale))
        each = _kept_bytes(model, size)
    except Exception:  # a network may look at values, which are not computed here: then there is no estimate
        return None
    each = int(each * _MARGIN * (_KEPT_IN_BF16 if device.precision == "bf16" else 1))
    memory = available_memory(device.torch_name)
    weights = sum(parameter.numel() for parameter in model.parameters()) * _PER_WEIGHT
    largest = max(0, (memory - weights) // max(1, each))
    return BatchEstimate(int(largest), size, each, memory, device.describe(), recipe.model.name)


def _kept_bytes(model: SegmentationModel, size: tuple[int, int]) -> int:
    """Bytes that a sample leaves behind for the backward pass."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)  # held, so that no number is given twice
        return tensor

    height, width = model.input_size(*size)
    samples = torch.zeros(
        2, model.config.channels, height, width, device="meta"
    )  # two: normalisation wants more than one
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model.train()(samples)
    return (
        sum(count for count, _ in kept.values()) // 2 + int(logits.nelement()) * 8
    )  # logits, softmax and their gradients
