"""What is drawn and done to one image, in one call."""

import torch

from intarsia.transforms.colour import coloured, draw_colour
from intarsia.transforms.degrade import damaged, draw_damage


def jitter_colour(image: torch.Tensor, rng, strength, *, hue=0.0, bounded=True) -> torch.Tensor:
    """An image on the 0..1 scale with its colours changed."""
    return coloured(image[None], [draw_colour(rng, strength, hue)], bounded=bounded)[0]


def degrade(image: torch.Tensor, rng, *, bounded=True, **settings) -> torch.Tensor:
    """An image on the 0..1 scale, degraded."""
    return damaged(image, draw_damage(rng, tuple(image.shape), **settings), bounded=bounded)
