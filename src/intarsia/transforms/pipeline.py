"""Augmentation of one sample. All randomness comes from the generator that is handed in.

| preset | after |
|---|---|
| `default` | what serves most photographs: zoom, aspect, mirror, colour |
| `none` | windows of the image alone |
| `fcn` | mirror and shifts up to 32 pixels, which "yielded no noticeable improvement" (arXiv:1411.4038, section 4.3) |
| `unet` | shift, rotation, elastic deformation (3 x 3 vectors, 10 pixels), grey values (arXiv:1505.04597, section 3.1) |
| `fcdensenet` | windows and mirror, left and right: the released code's; the paper says "vertical flips" (arXiv:1611.09326) |
| `nnunet_like` | zoom, mirrors, colour; a fifth each: rotation, blur, low resolution, noise; a third looks at rare classes |

nnU-Net's noise has a deviation of up to 0.1 in images of deviation 1; of photographs on the 0..1 scale, 0.25, that is 0.025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from intarsia.config import NamedConfig
from intarsia.images.preprocess import Preprocess
from intarsia.images.ranges import BYTES
from intarsia.registry import Registry
from intarsia.transforms.colour import Colour, coloured, draw_colour
from intarsia.transforms.degrade import Damage, damaged, draw_damage
from intarsia.transforms.geometry import Window, cut_weights, cut_window, draw_window
from intarsia.transforms.prepare import bounds
from intarsia.transforms.rare import draw_place
from intarsia.transforms.sample import Sample
from intarsia.transforms.warp import Bend, draw_bend
from intarsia.transforms.warp_batch import warp_all


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
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Of the image; masks take the nearest pixel. Bicubic is sharper, and slower: it is not compiled."""
    outside: Literal["ignore", "reflect"] = "ignore"
    """What lies outside the image is mirrored in it; the loss ignores it, or the mask is mirrored too."""
    colour: float = Field(0.25, ge=0, le=1)
    """Strength of brightness, contrast, saturation and gamma changes; 0: none."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Turn of the hues by up to this share of the colour circle, either way; RGB only."""
    blur: float = Field(0.0, ge=0, le=20)
    """Largest sigma of Gaussian blur, in pixels of the sample."""
    low_resolution: float = Field(1.0, gt=0, le=1)
    """Least factor of a simulated lower resolution: 0.5 is half the pixels each way."""
    noise: float = Field(0.0, ge=0, le=1)
    """Largest standard deviation of Gaussian noise, on the 0..1 scale."""
    jpeg: int | None = Field(None, ge=1, le=100)
    """Least quality of JPEG compression, 1 to 100; null: never compressed."""
    degraded: float = Field(0.2, ge=0, le=1)
    """Share of the samples for each of blur, low resolution, noise and JPEG, drawn by itself for each."""
    focus: float = Field(0.0, ge=0, le=1)
    """Share of samples whose window looks at a pixel of a rare class, one with fewer pixels than the mean of the classes."""
    cutmix: float = Field(0.0, ge=0, le=1)
    """Share of samples with a rectangle of another one, label and all (arXiv:1905.04899)."""
    mosaic: float = Field(0.0, ge=0, le=1)
    """Share of samples that are put together of quarters of four."""
    copy_paste: float = Field(0.0, ge=0, le=1)
    """Share of samples onto which a rare class of another one is pasted (arXiv:2012.07177)."""

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

    @model_validator(mode="after")
    def _at_most_one_mix(self) -> Self:
        if self.cutmix + self.mosaic + self.copy_paste > 1 + 1e-9:
            raise ValueError("cutmix, mosaic and copy_paste are shares of the samples: their sum must be at most 1")
        return self

    @property
    def mixes(self) -> bool:
        """Whether a sample may hold parts of others."""
        return self.cutmix + self.mosaic + self.copy_paste > 0

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
_nnunet = _still.replace(zoom=(0.7, 1.4), mirror="both", rotation=180, bent=0.2, colour=0.25)
AUGMENTS.preset("nnunet_like", _nnunet.replace(blur=1.0, low_resolution=0.5, noise=0.025, focus=0.33))


def resolve_augment(value: str | Mapping[str, Any] | AugmentConfig) -> AugmentConfig:
    """A preset's name, settings, or a value itself, as a value; settings without a name are changes of the default's."""
    if isinstance(value, Mapping) and not value.get("name"):
        value = {**value, "name": "default"}
    return AUGMENTS.resolve(value)


def augment(
    image_CHW: Tensor,
    mask_HW: Tensor,
    size: tuple[int, int],
    config: AugmentConfig,
    preprocess: Preprocess,
    rng: np.random.Generator,
    weights_HW: Tensor | None = None,
    places_n3: Tensor | None = None,
) -> Sample:
    """A random sample of `size`: image on the 0..1 scale, mask and weights, 255 and 0 outside the image.

    Args:
        image_CHW: stored values at data.scale, uint8 or float.
        mask_HW: uint8 class numbers, the same size.
        size: (height, width) of the result.
        preprocess: its value range is used, not its normalisation.
        rng: source of all randomness.
        weights_HW: float32 weights of the pixels, the same size; what is drawn does not depend on them.
        places_n3: class, row and column of pixels of rare classes, which a share of the windows looks at.
    """
    plan = draw_plan((image_CHW.shape[0], *mask_HW.shape), size, config, rng, places_n3)
    return apply_plans([Part(image_CHW, mask_HW, weights_HW, plan)], size, config, preprocess)[0]


class Plan(NamedTuple):
    """All that is drawn for a sample."""

    window: Window
    bend: Bend | None
    colour: Colour
    damage: Damage


class Part(NamedTuple):
    """A whole image and what is to become of it."""

    image: Tensor
    """(C, H, W) stored values"""
    mask: Tensor
    """(H, W) uint8"""
    weights: Tensor | None
    """(H, W) float32"""
    plan: Plan


def draw_plan(
    shape: tuple[int, ...],
    size: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
    places_n3: Tensor | None = None,
) -> Plan:
    """What `augment` draws for an image of (C, H, W) = `shape`."""
    looks = config.focus > 0 and rng.random() < config.focus
    window = draw_window(
        (shape[1], shape[2]),
        size,
        rng,
        zoom=config.zoom,
        aspect=config.aspect,
        mirror=config.mirror,
        turn=config.turn,
        shift=config.shift,
        middle=draw_place(places_n3, rng) if looks else None,
    )
    bend = None
    if config.bends and (config.bent == 1 or rng.random() < config.bent):
        bend = draw_bend(
            rng,
            rotation=config.rotation,
            shear=config.shear,
            perspective=config.perspective,
            elastic=config.elastic,
            grid=config.elastic_grid,
        )
    colour = draw_colour(rng, config.colour, config.hue)
    damage = draw_damage(
        rng,
        (shape[0], *size),
        blur=config.blur,
        low_resolution=config.low_resolution,
        noise=config.noise,
        jpeg=config.jpeg,
        share=config.degraded,
    )
    return Plan(window, bend, colour, damage)


def apply_plans(
    parts: Sequence[Part], size: tuple[int, int], config: AugmentConfig, preprocess: Preprocess
) -> list[Sample]:
    """The samples of several images together: fields and colours are computed for all at once where that is faster."""
    cubic, reflect = config.interpolation == "bicubic", config.outside == "reflect"
    bent = [part for part in parts if part.plan.bend is not None]
    warped = iter(
        warp_all(
            [(part.image, part.mask, part.weights, part.plan.window, part.plan.bend or Bend()) for part in bent],
            size,
            cubic=cubic,
            reflect=reflect,
        )
    )
    cut = []
    for image, mask, weights, plan in parts:
        if plan.bend is not None:
            cut.append(next(warped))
            continue
        here = cut_window(image, mask, plan.window, size, cubic=cubic, reflect=reflect)
        cut.append((*here, None if weights is None else cut_weights(weights, plan.window, size, reflect=reflect)))
    black, white = bounds(preprocess, parts[0].image.device)
    bounded = preprocess.value_range == BYTES
    stored = cut[0][0][None] if len(cut) == 1 else torch.stack([image for image, _, _ in cut])
    colours = [part.plan.colour for part in parts]
    units = coloured(stored.float(), colours, bounded=bounded, black=black, white=white)
    return [
        Sample(damaged(unit, part.plan.damage, bounded=bounded), mask, weights)
        for unit, part, (_, mask, weights) in zip(units, parts, cut, strict=True)
    ]
