"""Every change of geometry of a sample as one field, applied once: window, zoom, mirror, turn, rotation, shear, perspective,
elastic deformation.

A pixel of the result at (row, column) looks at p + d(p) in the image. p is a homography of the result's own place (all but the
elastic part in one matrix), d a smooth displacement that belongs to the image: random vectors on a coarse grid over it,
interpolated bicubically (Ronneberger, Fischer, Brox, arXiv:1505.04597, section 3.1: 3 x 3 vectors, Gaussian, 10 pixels).

Image and weights are interpolated bilinearly, the mask takes the nearest pixel. What lies outside is mirrored in the image, 255
in the mask and 0 in the weights. Where the result shrinks, the image is brought to the result's resolution first, antialiased.
All places are continuous: the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from intarsia.classes import IGNORE
from intarsia.transforms.geometry import Window
from intarsia.transforms.preprocess import resize_image

SHARP = 1.25
"""Shrinking by more than this is antialiased."""


@dataclass(frozen=True)
class Bend:
    """What a window alone cannot do; the default is nothing."""

    rotation: float = 0.0
    """Degrees, anticlockwise in the picture."""
    shear: float = 0.0
    """Degrees by which columns lean."""
    perspective: tuple[float, float] = (0.0, 0.0)
    """How much larger the far end is, over height and over width: 0.1 is a tenth."""
    nodes: NDArray[np.float64] | None = None
    """(2, n, m) displacement of rows and columns on a grid from the image's first corner to its last, in pixels."""

    @property
    def is_none(self) -> bool:
        """Whether nothing is bent."""
        return not (self.rotation or self.shear or any(self.perspective)) and self.nodes is None


def draw_bend(
    rng: np.random.Generator,
    *,
    rotation: float,
    shear: float,
    perspective: float,
    elastic: float,
    grid: tuple[int, int] = (3, 3),
) -> Bend:
    """Angles and perspective uniform up to their bound on either side, displacements Gaussian of deviation `elastic` (pixels).

    What is 0 is not drawn, so that it does not change what else is.
    """
    return Bend(
        rotation=float(rng.uniform(-rotation, rotation)) if rotation else 0.0,
        shear=float(rng.uniform(-shear, shear)) if shear else 0.0,
        perspective=(
            (float(rng.uniform(-perspective, perspective)), float(rng.uniform(-perspective, perspective)))
            if perspective
            else (0.0, 0.0)
        ),
        nodes=rng.normal(0, elastic, (2, *grid)) if elastic else None,
    )


def homography(window: Window, size: tuple[int, int], bend: Bend) -> NDArray[np.float64]:
    """(3, 3): (row, column, 1) in the result, (height, width) = `size`, to the place in the image, up to a factor."""
    height, width = size
    unit = np.array([[1 / height, 0, -0.5], [0, 1 / width, -0.5], [0, 0, 1]])
    quarter = np.linalg.matrix_power(np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), window.quarter_turns % 4)
    flip = np.diag([-1.0 if window.mirror_rows else 1.0, -1.0 if window.mirror_columns else 1.0, 1.0])
    far = np.array([[1, 0, 0], [0, 1, 0], [*bend.perspective, 1.0]])
    scale = np.diag([float(window.height), float(window.width), 1.0])
    angle, lean = math.radians(bend.rotation), math.tan(math.radians(bend.shear))
    turned = np.array([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    leaning = np.array([[1.0, 0, 0], [lean, 1, 0], [0, 0, 1]])
    centre = np.eye(3)
    centre[:2, 2] = window.top + window.height / 2, window.left + window.width / 2
    matrix: NDArray[np.float64] = centre @ turned @ leaning @ scale @ flip @ quarter @ far @ unit
    return matrix


def places(
    matrix: NDArray[np.float64], nodes: NDArray[np.float64] | None, image_size: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """(2, h, w) float32 row and column in the image that each pixel of the result looks at."""
    rows = torch.arange(size[0], dtype=torch.float64)[:, None] + 0.5
    columns = torch.arange(size[1], dtype=torch.float64) + 0.5
    row, column, over = (line[0] * rows + line[1] * columns + line[2] for line in matrix.tolist())
    found = torch.stack((row / over, column / over))
    if nodes is not None:
        found += displacement(torch.from_numpy(nodes), found, image_size)
    return found.float()


def displacement(nodes_2nm: Tensor, places_2hw: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(2, h, w) the displacement at places of the image: bicubic through the nodes, that of the border beyond it."""
    extent = torch.tensor(image_size, dtype=places_2hw.dtype)[:, None, None]
    at_2hw = (2 * places_2hw / extent - 1).clamp(-1, 1)
    at_hw2 = torch.stack((at_2hw[1], at_2hw[0]), dim=-1)
    found: Tensor = F.grid_sample(
        nodes_2nm[None].to(places_2hw), at_hw2[None], mode="bicubic", padding_mode="border", align_corners=True
    )
    return found[0]


def warp(
    image_CHW: Tensor,
    mask_HW: Tensor,
    window: Window,
    bend: Bend,
    size: tuple[int, int],
    weights_HW: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Image (float32), mask and weights of `size`, each sampled once.

    Args:
        image_CHW: stored values, uint8 or float.
        mask_HW: uint8, of the image's size, as are the weights.
        window: the part of the image, how it is mirrored and turned.
        bend: what else is done to it.
        size: (height, width) of the result.
    """
    image_size = (mask_HW.shape[0], mask_HW.shape[1])
    at_2hw = places(homography(window, size, bend), bend.nodes, image_size, size)
    row, column = at_2hw.floor().long()
    inside = (row >= 0) & (row < image_size[0]) & (column >= 0) & (column < image_size[1])
    nearest = row.clamp(0, image_size[0] - 1) * image_size[1] + column.clamp(0, image_size[1] - 1)
    outside = torch.tensor(IGNORE, dtype=mask_HW.dtype)
    mask = torch.where(inside, mask_HW.reshape(-1)[nearest], outside)
    image = _sampled(*_antialiased(image_CHW, at_2hw, window, size))
    weights = None
    if weights_HW is not None:
        found = _sampled(weights_HW[None], at_2hw)[0]
        weights = torch.where(inside, found, 0)
    return image, mask, weights


def _antialiased(image_CHW: Tensor, at_2hw: Tensor, window: Window, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The part that is looked at, not finer than the result, and the places in it."""
    sides = (size[1], size[0]) if window.quarter_turns % 2 else size
    factors = [max(1.0, part / side) for part, side in zip((window.height, window.width), sides, strict=True)]
    starts, stops, ratios = [], [], []
    for axis, (extent, factor) in enumerate(zip(image_CHW.shape[1:], factors, strict=True)):
        least, most = (float(value) for value in at_2hw[axis].aminmax())
        # mirrored places lie inside again, so that a part beyond the border needs the whole side
        whole = least < 0 or most > extent
        start = 0 if whole else max(0, math.floor(least - 2 * factor))
        stop = extent if whole else min(extent, math.ceil(most + 2 * factor))
        starts.append(start)
        stops.append(max(start + 1, stop))
        ratios.append(factor if factor > SHARP else 1.0)
    part = image_CHW[:, starts[0] : stops[0], starts[1] : stops[1]]
    small = (max(1, round(part.shape[1] / ratios[0])), max(1, round(part.shape[2] / ratios[1])))
    scale = torch.tensor([small[0] / part.shape[1], small[1] / part.shape[2]])[:, None, None]
    shifted = (at_2hw - torch.tensor(starts, dtype=torch.float32)[:, None, None]) * scale
    return resize_image(part, small), shifted


def _sampled(image_CHW: Tensor, at_2hw: Tensor) -> Tensor:
    """(C, h, w) float32: bilinear between pixel centres, mirrored at the outermost ones."""
    last = torch.tensor([max(1, side - 1) for side in image_CHW.shape[1:]], dtype=at_2hw.dtype)[:, None, None]
    on_2hw = 2 * (at_2hw - 0.5) / last - 1
    on_hw2 = torch.stack((on_2hw[1], on_2hw[0]), dim=-1)
    found: Tensor = F.grid_sample(
        image_CHW[None].float(), on_hw2[None], mode="bilinear", padding_mode="reflection", align_corners=True
    )
    return found[0]
