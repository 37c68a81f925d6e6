"""Preparation of an image on tensors, as training cuts its samples: `images/preprocess.py` does the same on arrays."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.images.files import Array
from intarsia.images.preprocess import Preprocess
from intarsia.images.preprocess import to_channels as channels_of


def normalise(preprocess: Preprocess, unit_CHW: Tensor, out: Tensor | None = None) -> Tensor:
    """(..., C, H, W) on the 0..1 scale to mean 0 and deviation 1, into `out` if there is one."""
    mean = torch.tensor(preprocess.mean, device=unit_CHW.device).reshape(-1, 1, 1)
    std = torch.tensor(preprocess.std, device=unit_CHW.device).reshape(-1, 1, 1)
    return torch.sub(unit_CHW, mean, out=out).div_(std)


def bounds(preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Tensor]:
    """The value range as two tensors, (1, 1, 1) or (C, 1, 1)."""
    low, high = (
        torch.tensor(bound, dtype=torch.float32, device=device).reshape(-1, 1, 1) for bound in preprocess.value_range
    )
    return low, high


def to_channels(pixels: Array, channels: int) -> Tensor:
    """(C, H, W) of a decoded image, uint8 or float32."""
    grey = pixels.ndim == 2
    image_CHW = torch.from_numpy(_own(channels_of(pixels, 1 if grey else channels)))
    return image_CHW.expand(channels, -1, -1) if grey else image_CHW  # repeated, not copied


def _own(array: Array) -> Array:
    """One that torch takes: writeable, in an order of memory that goes forward."""
    return array if array.flags.writeable and min(array.strides) >= 0 else array.copy()


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
