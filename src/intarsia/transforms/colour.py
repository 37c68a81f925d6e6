"""Random colour: brightness, contrast, saturation, hue and gamma on the 0..1 scale, as one matrix and one power."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the grey of a colour (ITU-R BT.601)."""


def jitter_colour(
    unit_CHW: Tensor, rng: np.random.Generator, strength: float, *, hue: float = 0.0, bounded: bool = True
) -> Tensor:
    """Brightness and contrast by up to `strength`, saturation by up to twice that (RGB only), gamma by up to half.

    x -> clip(c S H (x - m) + H m + b, 0, 1)^g, S the saturation matrix, H the hue's, m the image's mean. A strength of 0
    with a hue of 0 is the identity.

    Args:
        unit_CHW: image on the 0..1 scale.
        rng: four numbers are drawn from it, and a fifth if `hue` is not 0.
        strength: 0..1.
        hue: largest turn, a share of the colour circle, either way; RGB only.
        bounded: whether 0..1 is all there can be, as in 8 bits. False cuts nothing: x^g from 0 on, x below it.
    """
    brightness, contrast, saturation, gamma = rng.uniform(-1, 1, 4) * strength
    turn = float(rng.uniform(-hue, hue)) if hue else 0.0
    channels = unit_CHW.shape[0]
    turned = turn != 0 and channels == 3
    if strength == 0 and not turned:
        return unit_CHW
    matrix = torch.eye(channels) * (1 + contrast)
    if channels == 3:
        keep = 1 + max(-1.0, 2 * saturation)
        grey = torch.tensor(GREY).expand(3, 3)
        matrix = (1 + contrast) * (keep * torch.eye(3) + (1 - keep) * grey)
    matrix = matrix.to(unit_CHW.device)
    mean = unit_CHW.mean(dim=(1, 2), keepdim=True)
    flat = (unit_CHW - mean).reshape(channels, -1)
    if turned:
        hues = hue_matrix(turn).to(unit_CHW.device)
        matrix, mean = matrix @ hues, (hues @ mean[..., 0])[..., None]
    mixed = (matrix @ flat).reshape(unit_CHW.shape) + mean + brightness
    power = math.exp(gamma * 0.5)
    unit: Tensor = (
        mixed.clamp_(0, 1).pow_(power) if bounded else mixed.clamp(min=0).pow_(power).add_(mixed.clamp_(max=0))
    )
    return unit


def hue_matrix(turn: float) -> Tensor:
    """(3, 3) H = R + 1 w' (I - R): R turns RGB about the grey axis, the rest moves each colour along it, back to its grey w'x.

    Grey stays what it is, w'H = w', H(a) H(b) = H(a + b); a third of the circle sends the chroma of red to green, of green to
    blue, of blue to red.

    Args:
        turn: share of the colour circle.
    """
    cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    rotation = cosine * torch.eye(3) + (1 - cosine) / 3 * torch.ones(3, 3) + sine / math.sqrt(3) * across
    return rotation + torch.tensor(GREY).expand(3, 3) @ (torch.eye(3) - rotation)
