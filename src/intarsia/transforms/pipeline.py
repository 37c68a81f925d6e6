"""Augmentation of one sample. All randomness comes from the generator that is handed in.

| preset | after |
|---|---|
| `default` | what serves most photographs: zoom, aspect, mirror, colour |
| `none` | windows of the image alone |
| `fcn` | mirror and shifts up to 32 pixels, which "yielded no noticeable improvement" (arXiv:1411.4038, section 4.3) |
| `unet` | shift, rotation, elastic deformation (3 x 3 vectors, 10 pixels), grey values (arXiv:1505.04597, section 3.1) |
| `fcdensenet` | windows and mirror, left and right: the released code's; the paper says "vertical flips" (arXiv:1611.09326) |
| `nnunet_like` | zoom 0.7 to 1.4, mirrors, colour, any rotation of a fifth of the samples; no noise or blur |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator
from torch import Tensor

from intarsia.config import NamedConfig
from intarsia.registry import Registry
from intarsia.transforms.colour import jitter_colour
from intarsia.transforms.geometry import cut_weights, cut_window, draw_window
from intarsia.transforms.preprocess import Preprocess
from intarsia.transforms.warp import draw_bend, warp


class AugmentConfig(NamedConfig):
    """What is drawn for each training sample. All geometry is one field, applied once."""

    zoom: tuple[float, float] = (0.6, 1.7)
    """Least and largest enlargement of a sample, relative to data.scale; drawn log-uniformly."""
    aspect: float = Field(1.15, ge=1, le=4)
    """Largest factor between the zoom of height and width."""
    mirror: Literal["none", "horizontal", "both"] = "horizontal"
    """Mirroring: none, left and right, or both axes."""
    turn: bool = False
    """Quarter turns, for images without an upright such as microscopy and satellite images."""
    shift: int | None = Field(None, ge=0)
    """Pixels by which a window may lie off the image's middle; null: it may lie anywhere in the image."""
    rotation: float = Field(0.0, ge=0, le=180)
    """Rotation by up to so many degrees, either way."""
    shear: float = Field(0.0, ge=0, lt=80)
    """Shear by up to so many degrees."""
    perspective: float = Field(0.0, ge=0, lt=0.9)
    """How much larger one end may become: 0.1 is a tenth."""
    elastic: float = Field(0.0, ge=0)
    """Standard deviation of the elastic displacements, in pixels (U-Net: 10)."""
    elastic_grid: tuple[int, int] = (3, 3)
    """Rows and columns of displacement vectors over the image."""
    bent: float = Field(1.0, ge=0, le=1)
    """Share of the samples that are rotated, sheared, seen in perspective and deformed at all."""
    colour: float = Field(0.25, ge=0, le=1)
    """Strength of brightness, contrast, saturation and gamma changes; 0: none."""

    @field_validator("zoom")
    @classmethod
    def _rising(cls, zoom: tuple[float, float]) -> tuple[float, float]:
        if not 0 < zoom[0] <= zoom[1]:
            raise ValueError("zoom must be two positive numbers, least first")
        return zoom

    @field_validator("elastic_grid")
    @classmethod
    def _at_least_two(cls, grid: tuple[int, int]) -> tuple[int, int]:
        if min(grid) < 2:
            raise ValueError("elastic_grid needs at least two vectors each way")
        return grid

    @property
    def bends(self) -> bool:
        """Whether there is more than windows, zoom, mirrors and quarter turns."""
        return self.bent > 0 and any((self.rotation, self.shear, self.perspective, self.elastic))


AUGMENTS: Registry[AugmentConfig] = Registry("transforms", "transforms")
_still = AugmentConfig(zoom=(1, 1), aspect=1, mirror="none", colour=0)
AUGMENTS.preset("default", AugmentConfig())
AUGMENTS.preset("none", _still)
AUGMENTS.preset("fcn", _still.replace(mirror="horizontal", shift=32))
AUGMENTS.preset("unet", _still.replace(rotation=180, elastic=10, colour=0.15))
AUGMENTS.preset("fcdensenet", _still.replace(mirror="horizontal"))
AUGMENTS.preset("nnunet_like", _still.replace(zoom=(0.7, 1.4), mirror="both", rotation=180, bent=0.2, colour=0.25))


def resolve_augment(value: str | Mapping[str, Any] | AugmentConfig) -> AugmentConfig:
    """A preset's name, settings, or a value itself, as a value; settings without a name are changes of the default's."""
    if isinstance(value, Mapping) and not value.get("name"):
        value = {**value, "name": "default"}
    return AUGMENTS.resolve(value)


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
        shift=config.shift,
    )
    if config.bends and (config.bent == 1 or rng.random() < config.bent):
        bend = draw_bend(
            rng,
            rotation=config.rotation,
            shear=config.shear,
            perspective=config.perspective,
            elastic=config.elastic,
            grid=config.elastic_grid,
        )
        image, mask, weights = warp(image_CHW, mask_HW, window, bend, size, weights_HW)
    else:
        image, mask = cut_window(image_CHW, mask_HW, window, size)
        weights = None if weights_HW is None else cut_weights(weights_HW, window, size)
    return Sample(jitter_colour(preprocess.to_unit(image), rng, config.colour), mask, weights)
