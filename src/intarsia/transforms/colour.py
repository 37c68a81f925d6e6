"""Random colour: brightness, contrast, saturation and gamma on the 0..1 scale, as one matrix and one power."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def jitter_colour(unit_CHW: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Brightness and contrast by up to `strength`, saturation by up to twice that (RGB only), gamma by up to half.

    x -> clip(c S (x - m) + m + b, 0, 1)^g, S the saturation matrix, m the image's mean. A strength of 0 is the identity.

    Args:
        unit_CHW: image on the 0..1 scale.
        rng: four numbers are drawn from it.
        strength: 0..1.
    """
    brightness, contrast, saturation, gamma = rng.uniform(-1, 1, 4) * strength
    if strength == 0:
        return unit_CHW
    channels = unit_CHW.shape[0]
    matrix = torch.eye(channels) * (1 + contrast)
    if channels == 3:
        keep = 1 + max(-1.0, 2 * saturation)
        grey = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
        matrix = (1 + contrast) * (keep * torch.eye(3) + (1 - keep) * grey)
    mean = unit_CHW.mean(dim=(1, 2), keepdim=True)
    flat = (unit_CHW - mean).reshape(channels, -1)
    mixed = (matrix @ flat).reshape(unit_CHW.shape) + mean + brightness
    power = math.exp(gamma * 0.5)
    unit: Tensor = mixed.clamp_(0, 1).pow_(power)
    return unit
