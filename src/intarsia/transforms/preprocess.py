"""From decoded pixels to what a network takes: channels, range, scale, normalisation. Saved with every model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from intarsia.config import Config
from intarsia.errors import DataError
from intarsia.images.files import Array
from intarsia.images.ranges import BYTES, ValueRange

_FEW = 1 << 12
LARGEST_SAMPLE = 512
"""Pixels a side of training samples where nobody says how large they are."""


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

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize by `scale`."""
        return scaled_size(height, width, self.scale)

    def normalise(self, unit_CHW: Tensor, out: Tensor | None = None) -> Tensor:
        """(..., C, H, W) on the 0..1 scale to mean 0 and deviation 1, into `out` if there is one."""
        mean = torch.tensor(self.mean, device=unit_CHW.device).reshape(-1, 1, 1)
        std = torch.tensor(self.std, device=unit_CHW.device).reshape(-1, 1, 1)
        return torch.sub(unit_CHW, mean, out=out).div_(std)

    def to_unit(self, pixels_CHW: Tensor) -> Tensor:
        """Stored values to the 0..1 scale, float32."""
        low, high = self.bounds(pixels_CHW.device)
        return (pixels_CHW.float() - low).div_(high - low)

    def bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The value range as two tensors, (1, 1, 1) or (C, 1, 1)."""
        low, high = (
            torch.tensor(bound, dtype=torch.float32, device=device).reshape(-1, 1, 1) for bound in self.value_range
        )
        return low, high

    def __call__(self, pixels: Array) -> Tensor:
        """A decoded image, (H, W) or (H, W, bands), as the network takes it: (C, h, w) float32."""
        pixels_CHW = resize_image(to_channels(pixels, self.channels), self.scaled_size(*pixels.shape[:2]))
        if pixels_CHW.dtype == torch.uint8 and pixels_CHW.numel() > _FEW:
            return self._looked_up(pixels_CHW)
        return self.normalise(self.to_unit(pixels_CHW))

    def _looked_up(self, pixels_CHW: Tensor) -> Tensor:
        """The same of bytes, by a table of all 256 of each channel: a third of the time."""
        every = torch.arange(256, dtype=torch.uint8).expand(self.channels, 1, 256)
        tables = self.normalise(self.to_unit(every)).numpy()[:, 0]
        found = np.empty(pixels_CHW.shape, np.float32)
        for table, plane, out in zip(tables, pixels_CHW.numpy(), found, strict=True):
            np.take(table, plane, out=out, mode="wrap")  # never out of range; "raise" would go through a copy
        return torch.from_numpy(found)


def to_channels(pixels: Array, channels: int) -> Tensor:
    """(H, W) or (H, W, bands) as (C, H, W): grey is repeated, RGB is weighed to grey (ITU-R BT.601).

    uint8 stays uint8; uint16 becomes float32, which holds it exactly.

    Raises:
        DataError: the image has other bands than the network takes.
    """
    array = np.ascontiguousarray(pixels.astype(np.float32) if pixels.dtype == np.uint16 else pixels)
    image = torch.from_numpy(array if array.flags.writeable else array.copy())
    if image.ndim == 2:
        return image.unsqueeze(0).expand(channels, -1, -1)
    if image.ndim != 3:
        raise DataError(f"an image must be (height, width) or (height, width, bands), got {tuple(image.shape)}.")
    if image.shape[2] == channels:
        return image.permute(2, 0, 1)
    if channels == 1 and image.shape[2] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114])
        grey = (image.float() @ weights).unsqueeze(0)
        return grey.round().to(torch.uint8) if image.dtype == torch.uint8 else grey
    raise DataError(f"the network takes {channels} bands, the image has {image.shape[2]}.")


def resize_image(image_CHW: Tensor, size: tuple[int, int], *, cubic: bool = False) -> Tensor:
    """Bilinear or bicubic with antialiasing, half-pixel centres; the type (uint8 or float) stays."""
    if tuple(image_CHW.shape[-2:]) == size:
        return image_CHW
    if image_CHW.dtype == torch.uint8 and image_CHW.device.type != "cpu":  # there is no such kernel for bytes
        return resize_image(image_CHW.float(), size, cubic=cubic).round_().clamp_(0, 255).to(torch.uint8)
    mode = "bicubic" if cubic else "bilinear"
    resized = F.interpolate(image_CHW.unsqueeze(0), size, mode=mode, antialias=True, align_corners=False)
    return resized.squeeze(0)


def resize_mask(mask_HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest, pixel centres; no class appears that was not there."""
    if tuple(mask_HW.shape) == size:
        return mask_HW
    return F.interpolate(mask_HW[None, None], size, mode="nearest-exact")[0, 0]
