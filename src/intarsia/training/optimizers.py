"""Optimisers, with weight decay where it belongs."""

from __future__ import annotations

import torch
from torch import nn

from intarsia.recipes.recipe import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of a recipe. Each group knows its peak rate as `peak`; biases and norms are not decayed."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    encoder = tuple(f"{part}." for part in getattr(model, "encoder_parts", ("encoder",)))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(encoder), parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": config.lr * (config.encoder_lr if of_encoder else 1.0),
            "peak": config.lr * (config.encoder_lr if of_encoder else 1.0),
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (of_encoder, decayed), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=config.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(settings, lr=config.lr, fused=True)
