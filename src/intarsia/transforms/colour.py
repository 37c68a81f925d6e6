"""Random colour: brightness, contrast, saturation, hue and gamma on the 0..1 scale, as one matrix and one power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the grey of a colour (ITU-R BT.601)."""


class Colour(NamedTuple):
    """How the colours of one image change; the default is not at all."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    gamma: float = 0.0
    turn: float = 0.0
    """Of the hues, a share of the colour circle."""

    def changes(self, channels: int) -> bool:
        """Whether anything of an image of so many channels changes."""
        return any(self[:4]) or (self.turn != 0 and channels == 3)

    def matrices(self, channels: int) -> tuple[Tensor, Tensor]:
        """(C, C) of what differs from the mean, and (C, C) of the mean."""
        matrix, hues = torch.eye(channels) * (1 + self.contrast), torch.eye(channels)
        if channels == 3:
            keep = 1 + max(-1.0, 2 * self.saturation)
            grey = torch.tensor(GREY).expand(3, 3)
            matrix = (1 + self.contrast) * (keep * torch.eye(3) + (1 - keep) * grey)
            if self.turn:
                hues = hue_matrix(self.turn)
                matrix = matrix @ hues
        return matrix, hues


def draw_colour(rng: np.random.Generator, strength: float, hue: float = 0.0) -> Colour:
    """Uniform, either way; four numbers are drawn, and a fifth if `hue` is not 0.

    Args:
        strength: 0..1, of brightness and contrast; of saturation twice that (RGB only), of gamma half.
        hue: largest turn, a share of the colour circle (RGB only).
    """
    brightness, contrast, saturation, gamma = (rng.uniform(-1, 1, 4) * strength).tolist()
    turn = float(rng.uniform(-hue, hue)) if hue else 0.0
    return Colour(brightness, contrast, saturation, gamma, turn)


def coloured(
    stored_NCHW: Tensor,
    colours: Sequence[Colour],
    *,
    bounded: bool = True,
    black: Tensor | float = 0.0,
    white: Tensor | float = 1.0,
) -> Tensor:
    """Images on the 0..1 scale, each with its colours changed, on any device.

    x -> clip(c S H (x - m) + H m + b, 0, 1)^g of x on the 0..1 scale, S the saturation matrix, H the hue's, m the image's
    mean, b the brightness, c = 1 + contrast, g = exp(gamma / 2).

    Args:
        stored_NCHW: float images.
        colours: of each; the default changes nothing.
        bounded: whether 0..1 is all there can be, as in 8 bits. False cuts nothing: x^g from 0 on, x below it.
        black, white: values that become 0 and 1, numbers or (C, 1, 1).
    """
    count, channels = stored_NCHW.shape[:2]
    if not any(colour.changes(channels) for colour in colours):
        return (stored_NCHW - black).div_(white - black)
    pairs = [colour.matrices(channels) for colour in colours]
    matrix, hues = (torch.stack(each).to(stored_NCHW.device) for each in zip(*pairs, strict=True))
    black_C1, span_C1 = (stored_NCHW.new_zeros(channels, 1, 1).add_(each)[..., 0] for each in (black, white - black))
    mean_NC1 = (stored_NCHW.mean(dim=(2, 3))[..., None] - black_C1) / span_C1
    brightness = stored_NCHW.new_tensor([colour.brightness for colour in colours])[:, None, None]
    scaled = matrix / span_C1.T
    offset_NC1 = hues @ mean_NC1 + brightness - matrix @ mean_NC1 - scaled @ black_C1
    mixed = torch.baddbmm(offset_NC1, scaled, stored_NCHW.reshape(count, channels, -1)).reshape(stored_NCHW.shape)
    power = stored_NCHW.new_tensor([math.exp(colour.gamma * 0.5) for colour in colours])[:, None, None, None]
    if bounded:
        return _powered(mixed.clamp_(max=1), power)
    return _powered(mixed.clone(), power).add_(mixed.clamp_(max=0))


def _powered(x: Tensor, power: Tensor) -> Tensor:
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
