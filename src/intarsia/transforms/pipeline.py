"""Augmentation of one sample. All randomness comes from the generator that is handed in."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator
from torch import Tensor

from intarsia.config import NamedConfig
from intarsia.transforms.colour import jitter_colour
from intarsia.transforms.geometry import cut_weights, cut_window, draw_window
from intarsia.transforms.preprocess import Preprocess


class AugmentConfig(NamedConfig):
    """What is drawn for each training sample."""

    zoom: tuple[float, float] = (0.6, 1.7)
    """Least and largest enlargement of a sample, relative to data.scale; drawn log-uniformly."""
    aspect: float = Field(1.15, ge=1, le=4)
    """Largest factor between the zoom of height and width."""
    mirror: Literal["none", "horizontal", "both"] = "horizontal"
    """Mirroring: none, left and right, or both axes."""
    turn: bool = False
    """Quarter turns, for images without an upright such as microscopy and satellite images."""
    colour: float = Field(0.25, ge=0, le=1)
    """Strength of brightness, contrast, saturation and gamma changes; 0: none."""

    @field_validator("zoom")
    @classmethod
    def _rising(cls, zoom: tuple[float, float]) -> tuple[float, float]:
        if not 0 < zoom[0] <= zoom[1]:
            raise ValueError("zoom must be two positive numbers, least first")
        return zoom


class Sample(NamedTuple):
    """One image, its mask, and the weights of its pixels if there are any."""

    image: Tensor
    """(C, h, w)"""
    mask: Tensor
    """(h, w), 255 ignored."""
    weights: Tensor | None = None
    """(h, w) float32"""


def augment(
    image_CHW: Tensor,
    mask_HW: Tensor,
    size: tuple[int, int],
    config: AugmentConfig,
    preprocess: Preprocess,
    rng: np.random.Generator,
    weights_HW: Tensor | None = None,
) -> Sample:
    """A random sample of `size`: image on the 0..1 scale, mask and weights, 255 and 0 outside the image.

    Args:
        image_CHW: stored values at data.scale, uint8 or float.
        mask_HW: uint8 class numbers, the same size.
        size: (height, width) of the result.
        preprocess: its value range is used, not its normalisation.
        rng: source of all randomness.
        weights_HW: float32 weights of the pixels, the same size; what is drawn does not depend on them.
    """
    window = draw_window(
        (mask_HW.shape[0], mask_HW.shape[1]),
        size,
        rng,
        zoom=config.zoom,
        aspect=config.aspect,
        mirror=config.mirror,
        turn=config.turn,
    )
    image, mask = cut_window(image_CHW, mask_HW, window, size)
    weights = None if weights_HW is None else cut_weights(weights_HW, window, size)
    return Sample(jitter_colour(preprocess.to_unit(image), rng, config.colour), mask, weights)
