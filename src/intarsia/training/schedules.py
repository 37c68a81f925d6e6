"""Learning rate as a pure function of the share of the run that is done."""

from __future__ import annotations

import math

from intarsia.recipes.recipe import TrainConfig


def lr_factor(share: float, config: TrainConfig) -> float:
    """Factor on the learning rate after `share` (0..1) of the run: linear warm-up, then the schedule down to zero."""
    if share < config.warmup:
        return max(share / config.warmup, 1e-3)
    t = min(1.0, (share - config.warmup) / (1 - config.warmup))
    if config.schedule == "poly":
        return float((1 - t) ** 0.9)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * t))
    return 1.0
