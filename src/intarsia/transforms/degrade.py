"""What a worse camera, scanner or store would have made of an image: blur, low resolution, noise, JPEG, on the 0..1 scale.

Shapes and float32 stay, with any number of channels and from 1 x 1 pixels on; the mask is not touched.
"""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from intarsia.images.preprocess import scaled_size
from intarsia.ops.pad import mirror_index
from intarsia.transforms.prepare import resize_image


class Damage(NamedTuple):
    """What is done to one image; None: not that."""

    blur: float | None = None
    low_resolution: float | None = None
    noise: tuple[NDArray[np.float32], float] | None = None
    """(C, h, w) Gaussian numbers of deviation 1, and the deviation they get."""
    jpeg: int | None = None


def draw_damage(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    *,
    blur: float = 0.0,
    low_resolution: float = 1.0,
    noise: float = 0.0,
    jpeg: int | None = None,
    share: float = 1.0,
) -> Damage:
    """Blur, low resolution, noise, JPEG, in the order of a camera; each with probability `share`, its strength uniform.

    What is off (a default, or a share of 0) draws nothing.

    Args:
        shape: (C, h, w) of the image.
        blur: largest sigma, in pixels.
        low_resolution: least factor on both sides, in (0, 1].
        noise: largest standard deviation.
        jpeg: least quality, 1..100; None: never.
    """

    def strikes() -> bool:
        return share > 0 and rng.random() < share

    sigma = float(rng.uniform(0, blur)) if blur > 0 and strikes() else None
    factor = float(rng.uniform(low_resolution, 1)) if low_resolution < 1 and strikes() else None
    added = None
    if noise > 0 and strikes():
        std = float(rng.uniform(0, noise))
        added = rng.standard_normal(shape, dtype=np.float32), std
    quality = int(rng.integers(jpeg, 101)) if jpeg is not None and strikes() else None
    return Damage(sigma, factor, added, quality)


def damaged(unit_CHW: Tensor, damage: Damage, *, bounded: bool = True) -> Tensor:
    """The image on the 0..1 scale after what was drawn; the one given is not changed.

    Args:
        bounded: whether 0..1 is all there can be, as in 8 bits: noise beyond it is cut.
    """
    if damage.blur is not None:
        unit_CHW = gaussian_blur(unit_CHW, damage.blur)
    if damage.low_resolution is not None:
        unit_CHW = lower_resolution(unit_CHW, damage.low_resolution)
    if damage.noise is not None:
        noisy = add_noise(unit_CHW, *damage.noise)
        unit_CHW = noisy.clamp_(0, 1) if bounded else noisy
    if damage.jpeg is not None:
        unit_CHW = compress_jpeg(unit_CHW, damage.jpeg)
    return unit_CHW


def gaussian_blur(unit_CHW: Tensor, sigma: float) -> Tensor:
    """B_h x B_w', row i of B the weights exp(-(j - i)² / (2 sigma²)) / sum, up to 4 sigma away; mirrored at the border pixels.

    Args:
        unit_CHW: any values, float32.
        sigma: pixels; below 1/8 nothing happens.
    """
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return unit_CHW
    height, width = unit_CHW.shape[1:]
    rows, columns = (_blurring(side, sigma, radius).to(unit_CHW.device) for side in (height, width))
    return rows @ unit_CHW @ columns.T


def _blurring(side: int, sigma: float, radius: int) -> Tensor:
    """(side, side) weights of the pixels in each blurred one. A dense product, for one plane faster than a convolution."""
    away = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = (-(away**2) / (2 * sigma**2)).exp()
    weights = (weights / weights.sum()).float()
    seen = mirror_index(side, radius, radius).unfold(0, 2 * radius + 1, 1)
    return torch.zeros(side, side).scatter_add_(1, seen, weights.expand(side, -1))


def lower_resolution(unit_CHW: Tensor, factor: float) -> Tensor:
    """Shrunk by `factor`, bilinear with antialiasing as `data.scale` does, and enlarged again, bilinear.

    nnU-Net shrinks by nearest pixel, which aliases as no camera does.

    Args:
        unit_CHW: any values, float32.
        factor: on both sides, in (0, 1]; 1 is the identity.
    """
    height, width = unit_CHW.shape[1:]
    return resize_image(resize_image(unit_CHW, scaled_size(height, width, factor)), (height, width))


def add_noise(unit_CHW: Tensor, numbers_CHW: NDArray[np.float32], std: float) -> Tensor:
    """x + std n.

    Args:
        unit_CHW: any values, float32.
        numbers_CHW: n, Gaussian of deviation 1, by itself in each pixel and channel.
        std: on the 0..1 scale.
    """
    return torch.from_numpy(numbers_CHW).to(unit_CHW.device).mul(std).add_(unit_CHW)


def compress_jpeg(unit_CHW: Tensor, quality: int) -> Tensor:
    """round(255 clip(x, 0, 1)) through JPEG and back, /255: 3 channels as RGB, colour at half resolution, others one by one.

    Args:
        unit_CHW: what lies outside 0..1 is cut.
        quality: 1..100, of libjpeg.
    """
    bytes_HWC = (unit_CHW.clamp(0, 1) * 255).round_().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    if bytes_HWC.shape[2] == 3:
        decoded = _through_jpeg(bytes_HWC, quality)
    else:
        planes = [_through_jpeg(plane, quality) for plane in np.ascontiguousarray(bytes_HWC.transpose(2, 0, 1))]
        decoded = np.stack(planes, axis=-1)
    return torch.from_numpy(decoded).to(unit_CHW.device).permute(2, 0, 1).float().contiguous() / 255


def _through_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """(H, W) grey or (H, W, 3) RGB."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file, formats=("JPEG",)) as image:
        return np.array(image)
