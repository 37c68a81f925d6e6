"""From decoded pixels to what a network takes: channels, range, scale, normalisation. Saved with every model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from intarsia.config import Config
from intarsia.errors import DataError
from intarsia.images.files import Array
from intarsia.images.ranges import BYTES, ValueRange

LARGEST_SAMPLE = 512
"""Pixels a side of training samples where nobody says how large they are."""
Floats = NDArray[np.float32]


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """(height, width) after a resize by `scale`."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def median_size(sizes: Sequence[tuple[int, int]], scale: float) -> tuple[int, int]:
    """(height, width) of samples where nobody says it: that of the median image after scaling, at most 512 a side."""
    scaled = np.array([scaled_size(height, width, scale) for height, width in sizes])
    height, width = (int(side) for side in np.median(scaled, axis=0))
    return min(height, LARGEST_SAMPLE), min(width, LARGEST_SAMPLE)


class Preprocess(Config):
    """x = ((pixel - low) / (high - low) - mean) / std, after a resize by `scale`."""

    channels: int = Field(3, ge=1)
    """Channels that the network takes: 1 grey, 3 RGB, else bands."""
    bands: tuple[int, ...] | None = None
    """Bands of an image file that are taken, from 1; null: all but transparency."""
    value_range: ValueRange = BYTES
    """Stored values that become 0 and 1: (0, 255) for 8-bit, else the data set's range, perhaps of each band. Never clipped."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Mean of each channel on the 0..1 scale."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Standard deviation of each channel on the 0..1 scale."""
    scale: float = Field(1.0, gt=0, le=8)
    """Factor on both sides of an image before the network; the logits are brought back to the image's size."""

    @model_validator(mode="after")
    def _fits(self) -> Preprocess:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} numbers each")
        low, high = (np.asarray(bound) for bound in self.value_range)
        if low.shape != high.shape or low.size not in (1, self.channels):
            raise ValueError(f"value_range needs two numbers, or twice {self.channels}")
        if min(self.std) <= 0 or (high <= low).any():
            raise ValueError("std must be positive, and value_range must rise")
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocess) and self.to_dict() == other.to_dict()  # the table of bytes is no setting

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in type(self).model_fields))

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize by `scale`."""
        return scaled_size(height, width, self.scale)

    def __call__(self, pixels: Array) -> Floats:
        """A decoded image, (H, W) or (H, W, bands), as the network takes it: (C, h, w) float32."""
        return self.normalise(self.resized(pixels))

    def resized(self, pixels: Array) -> Array:
        """(C, h, w) stored values of an image: uint8, or float32."""
        return resize_planes(to_channels(pixels, self.channels), self.scaled_size(*pixels.shape[:2]))

    def normalise(self, pixels_CHW: Array) -> Floats:
        """(C, h, w) stored values to mean 0 and deviation 1; of bytes by a table of all 256, in a third of the time."""
        if pixels_CHW.dtype != np.uint8:
            return self._normalised(pixels_CHW.astype(np.float32))
        found = np.empty(pixels_CHW.shape, np.float32)
        for table, plane, out in zip(self._of_bytes, pixels_CHW, found, strict=True):
            np.take(table, plane, out=out, mode="wrap")  # never out of range; "raise" would go through a copy
        return found

    @cached_property
    def _of_bytes(self) -> Floats:
        """(C, 256)"""
        every = np.broadcast_to(np.arange(256, dtype=np.float32), (self.channels, 1, 256))
        return self._normalised(every)[:, 0]

    def _normalised(self, pixels_CHW: Floats) -> Floats:
        low, high, mean, std = (
            np.asarray(each, np.float32).reshape(-1, 1, 1) for each in (*self.value_range, self.mean, self.std)
        )
        found: Floats = (((pixels_CHW - low) / (high - low)) - mean) / std
        return found


def to_channels(pixels: Array, channels: int) -> Array:
    """(H, W) or (H, W, bands) as (C, H, W): grey is repeated, RGB is weighed to grey (ITU-R BT.601).

    uint8 stays uint8; uint16 becomes float32, which holds it exactly.

    Raises:
        DataError: the image has other bands than the network takes.
    """
    image: NDArray[Any] = pixels.astype(np.float32) if pixels.dtype == np.uint16 else pixels
    if image.ndim == 2:
        return np.broadcast_to(image, (channels, *image.shape))
    if image.ndim != 3:
        raise DataError(f"an image must be (height, width) or (height, width, bands), got {image.shape}.")
    if image.shape[2] == channels:
        return np.moveaxis(image, 2, 0)
    if channels == 1 and image.shape[2] == 3:
        grey = (image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[None]
        return grey.round().astype(np.uint8) if image.dtype == np.uint8 else grey
    raise DataError(f"the network takes {channels} bands, the image has {image.shape[2]}.")


def resize_planes(image_CHW: Array, size: tuple[int, int]) -> Array:
    """(C, h, w): bilinear with antialiasing, half-pixel centres; the type (uint8 or float32) stays."""
    if image_CHW.shape[-2:] == size:
        return image_CHW
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size[::-1], Image.Resampling.BILINEAR))
        for plane in image_CHW
    ]
    return np.stack(planes)
