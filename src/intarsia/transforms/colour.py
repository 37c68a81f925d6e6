"""Random colour: brightness, contrast, saturation, hue and gamma on the 0..1 scale, as one matrix and one power."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the grey of a colour (ITU-R BT.601)."""


def jitter_colour(
    stored_CHW: Tensor,
    rng: np.random.Generator,
    strength: float,
    *,
    hue: float = 0.0,
    bounded: bool = True,
    black: Tensor | float = 0.0,
    white: Tensor | float = 1.0,
) -> Tensor:
    """Brightness and contrast by up to `strength`, saturation by up to twice that (RGB only), gamma by up to half.

    x -> clip(c S H (x - m) + H m + b, 0, 1)^g of x on the 0..1 scale, S the saturation matrix, H the hue's, m the image's
    mean. A strength of 0 with a hue of 0 changes nothing.

    Args:
        stored_CHW: float image.
        rng: four numbers are drawn from it, and a fifth if `hue` is not 0.
        strength: 0..1.
        hue: largest turn, a share of the colour circle, either way; RGB only.
        bounded: whether 0..1 is all there can be, as in 8 bits. False cuts nothing: x^g from 0 on, x below it.
        black, white: values that become 0 and 1, numbers or (C, 1, 1).

    Returns:
        The image on the 0..1 scale.
    """
    brightness, contrast, saturation, gamma = rng.uniform(-1, 1, 4) * strength
    turn = float(rng.uniform(-hue, hue)) if hue else 0.0
    channels = stored_CHW.shape[0]
    turned = turn != 0 and channels == 3
    if strength == 0 and not turned:
        return (stored_CHW - black).div_(white - black)
    matrix = torch.eye(channels) * (1 + contrast)
    if channels == 3:
        keep = 1 + max(-1.0, 2 * saturation)
        grey = torch.tensor(GREY).expand(3, 3)
        matrix = (1 + contrast) * (keep * torch.eye(3) + (1 - keep) * grey)
    matrix = matrix.to(stored_CHW.device)
    black_C1, span_C1 = (stored_CHW.new_zeros(channels, 1, 1).add_(each)[..., 0] for each in (black, white - black))
    mean_C1 = (stored_CHW.mean(dim=(1, 2))[:, None] - black_C1) / span_C1
    kept_C1 = mean_C1
    if turned:
        hues = hue_matrix(turn).to(stored_CHW.device)
        matrix, kept_C1 = matrix @ hues, hues @ mean_C1
    scaled = matrix / span_C1.T
    offset_C1 = kept_C1 + brightness - matrix @ mean_C1 - scaled @ black_C1
    mixed = torch.addmm(offset_C1, scaled, stored_CHW.reshape(channels, -1)).reshape(stored_CHW.shape)
    power = math.exp(gamma * 0.5)
    if bounded:
        return _powered(mixed.clamp_(max=1), power)
    return _powered(mixed.clone(), power).add_(mixed.clamp_(max=0))


def _powered(x: Tensor, power: float) -> Tensor:
    """x^power, 0 below 0, in place: five times as fast as pow, to 1e-6. Logarithms of 0 are slow: 1e-20 stands for it."""
    return x.clamp_(min=1e-20).log_().mul_(power).exp_()


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
