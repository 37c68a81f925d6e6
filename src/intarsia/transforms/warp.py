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

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from intarsia.classes import IGNORE
from intarsia.compiled import Compiled, Unfit
from intarsia.ops.pad import mirrored
from intarsia.transforms.geometry import Window
from intarsia.transforms.prepare import resize_image

Warped = tuple[Tensor, Tensor, Tensor | None]

SHARP = 1.25
"""Shrinking by more than this is antialiased."""
MOST_NODES = 64
"""Up to so many displacements each way warp.c adds up all of them for every pixel."""


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


def fields(
    matrices: NDArray[np.float64],
    nodes: Sequence[NDArray[np.float64] | None],
    sides_N2: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """(N, 2, h, w) float32 row and column in each image that each pixel of its result looks at.

    Args:
        matrices: (N, 3, 3), of `homography`.
        nodes: displacements of each, or None for all.
        sides_N2: height and width of each image; the result is on its device.
        size: (height, width) of the results.
    """
    device = sides_N2.device
    lines = torch.from_numpy(matrices).to(device)[..., None, None]
    rows = torch.arange(size[0], dtype=torch.float64, device=device)[:, None] + 0.5
    columns = torch.arange(size[1], dtype=torch.float64, device=device) + 0.5
    found = lines[:, :, 0] * rows + lines[:, :, 1] * columns + lines[:, :, 2]
    places_N2hw = found[:, :2] / found[:, 2:]
    drawn = [each for each in nodes if each is not None]
    if drawn:
        bends_N2nm = torch.from_numpy(np.stack(drawn)).to(device)
        places_N2hw = places_N2hw + displacement(bends_N2nm, places_N2hw, sides_N2)
    return places_N2hw.float()


def displacement(nodes_N2nm: Tensor, places_N2hw: Tensor, sides_N2: Tensor) -> Tensor:
    """(N, 2, h, w) the displacements at places of images: bicubic through the nodes, those of the border beyond it."""
    at = (2 * places_N2hw / sides_N2[..., None, None] - 1).clamp(-1, 1)
    on_Nhw2 = torch.stack((at[:, 1], at[:, 0]), dim=-1)
    found: Tensor = F.grid_sample(
        nodes_N2nm.to(on_Nhw2), on_Nhw2, mode="bicubic", padding_mode="border", align_corners=True
    )
    return found


def warp(
    image_CHW: Tensor,
    mask_HW: Tensor,
    window: Window,
    bend: Bend,
    size: tuple[int, int],
    weights_HW: Tensor | None = None,
    *,
    cubic: bool = False,
    reflect: bool = False,
) -> Warped:
    """Image (float32), mask and weights of `size`, each sampled once. The compiled form serves where neither option is set.

    Args:
        image_CHW: stored values, uint8 or float.
        mask_HW: uint8, of the image's size, as are the weights.
        window: the part of the image, how it is mirrored and turned.
        bend: what else is done to it.
        size: (height, width) of the result.
        cubic: interpolate the image bicubically.
        reflect: mirror mask and weights outside the image as the image is.
    """
    usual = not cubic and not reflect and _fits(image_CHW, mask_HW, weights_HW, bend)
    library = LIBRARY.load() if usual else None
    if library is not None:
        return _compiled(library, image_CHW, mask_HW, window, bend, size, weights_HW)
    return _plain(image_CHW, mask_HW, window, bend, size, weights_HW, cubic=cubic, reflect=reflect)


def _plain(
    image_CHW: Tensor,
    mask_HW: Tensor,
    window: Window,
    bend: Bend,
    size: tuple[int, int],
    weights_HW: Tensor | None,
    *,
    cubic: bool = False,
    reflect: bool = False,
) -> Warped:
    """On any device, in torch."""
    image_size = (mask_HW.shape[0], mask_HW.shape[1])
    matrix = homography(window, size, bend)
    sides_N2 = torch.tensor([image_size], device=mask_HW.device)
    at_2hw = fields(matrix[None], [bend.nodes], sides_N2, size)[0]
    row, column = at_2hw.floor().long()
    if reflect:
        row, column = (mirrored(index, side) for index, side in zip((row, column), image_size, strict=True))
    inside = (row >= 0) & (row < image_size[0]) & (column >= 0) & (column < image_size[1])
    nearest = row.clamp(0, image_size[0] - 1) * image_size[1] + column.clamp(0, image_size[1] - 1)
    outside = mask_HW.new_tensor(IGNORE)
    mask = torch.where(inside, mask_HW.reshape(-1)[nearest], outside)
    part, start, scale = antialiased(image_CHW, matrix, bend, window, size)
    shifted = (at_2hw - at_2hw.new_tensor(start)[:, None, None]) * at_2hw.new_tensor(scale)[:, None, None]
    image = (_cubically_sampled if cubic else _sampled)(part, shifted.float())
    weights = None
    if weights_HW is not None:
        found = _sampled(weights_HW[None], at_2hw)[0]
        weights = torch.where(inside, found, 0)
    return image, mask, weights


def antialiased(
    image_CHW: Tensor, matrix: NDArray[np.float64], bend: Bend, window: Window, size: tuple[int, int]
) -> tuple[Tensor, tuple[float, float], tuple[float, float]]:
    """The part that is looked at, not finer than the result; its start in the image and its scale."""
    sides = (size[1], size[0]) if window.quarter_turns % 2 else size
    factors = [max(1.0, part / side) for part, side in zip((window.height, window.width), sides, strict=True)]
    if max(factors) <= SHARP:
        return image_CHW, (0.0, 0.0), (1.0, 1.0)
    corners = matrix @ np.array([[0, 0, size[0], size[0]], [0, size[1], 0, size[1]], [1, 1, 1, 1]], np.float64)
    seen = corners[:2] / corners[2]
    reach = 0.0 if bend.nodes is None else 2 * float(np.abs(bend.nodes).max())
    parts = []
    for axis, (extent, factor) in enumerate(zip(image_CHW.shape[1:], factors, strict=True)):
        least, most = seen[axis].min() - reach - 2 * factor, seen[axis].max() + reach + 2 * factor
        whole = least < 0 or most > extent  # mirrored places lie inside again, anywhere
        parts.append((0, extent) if whole else (math.floor(least), math.ceil(most)))
    (top, bottom), (left, right) = parts
    part = image_CHW[:, top:bottom, left:right]
    ratios = [factor if factor > SHARP else 1.0 for factor in factors]
    small = max(1, round(part.shape[1] / ratios[0])), max(1, round(part.shape[2] / ratios[1]))
    scale = small[0] / part.shape[1], small[1] / part.shape[2]
    return resize_image(part, small), (float(top), float(left)), scale


def _sampled(image_CHW: Tensor, at_2hw: Tensor) -> Tensor:
    """(C, h, w) float32: bilinear between pixel centres, mirrored at the outermost ones."""
    last = at_2hw.new_tensor([max(1, side - 1) for side in image_CHW.shape[1:]])[:, None, None]
    on_2hw = 2 * (at_2hw - 0.5) / last - 1
    on_hw2 = torch.stack((on_2hw[1], on_2hw[0]), dim=-1)
    found: Tensor = F.grid_sample(
        image_CHW[None].float(), on_hw2[None], mode="bilinear", padding_mode="reflection", align_corners=True
    )
    return found[0]


def _cubically_sampled(image_CHW: Tensor, at_2hw: Tensor) -> Tensor:
    """The same by Keys's kernel with a = -1/2, as images are resized; `grid_sample` has -3/4, which bends straight ramps."""
    channels, height, width = image_CHW.shape
    flat, places_2hw = image_CHW.reshape(channels, -1).float(), at_2hw - 0.5
    first = places_2hw.floor()
    (along_rows, along_columns), (top, left) = (_keys(places_2hw - first), first.long())
    found = flat.new_zeros(channels, *top.shape)
    for down in range(4):
        row = mirrored(top + down - 1, height) * width
        line = flat.new_zeros(channels, *top.shape)
        for across in range(4):
            line += flat[:, row + mirrored(left + across - 1, width)] * along_columns[across]
        found += line * along_rows[down]
    return found


def _keys(t_2hw: Tensor) -> list[list[Tensor]]:
    """Weights of the four pixels from one before to two after, for rows and for columns; t in [0, 1)."""
    found = []
    for t in t_2hw:
        near, far = (
            [1.5 * d**3 - 2.5 * d**2 + 1 for d in (t, 1 - t)],
            [-0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 for d in (1 + t, 2 - t)],
        )
        found.append([far[0], near[0], near[1], far[1]])
    return found


class _Source(ctypes.Structure):
    """`Source` of warp.c."""

    _fields_ = (
        ("image", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("is_float", "channels", "channel_step", "row_step", "column_step")),
        *((name, ctypes.c_int64) for name in ("height", "width")),
        ("start", ctypes.c_double * 2),
        ("scale", ctypes.c_double * 2),
        ("mask", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("mask_height", "mask_width")),
        ("matrix", ctypes.c_double * 9),
        ("nodes", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("n", "m")),
    )


def _fits(image_CHW: Tensor, mask_HW: Tensor, weights_HW: Tensor | None, bend: Bend) -> bool:
    """Whether warp.c reads these."""
    given = [each for each in (image_CHW, mask_HW, weights_HW) if each is not None]
    types = image_CHW.dtype in (torch.uint8, torch.float32) and mask_HW.dtype == torch.uint8
    few = bend.nodes is None or max(bend.nodes.shape[1:]) <= MOST_NODES
    counted = 0 < mask_HW.numel() < 1 << 29  # offsets have four bytes
    return types and few and counted and all(each.device.type == "cpu" for each in given)


def _compiled(
    library: ctypes.CDLL,
    image_CHW: Tensor,
    mask_HW: Tensor,
    window: Window,
    bend: Bend,
    size: tuple[int, int],
    weights_HW: Tensor | None,
) -> Warped:
    """By warp.c."""
    matrix = homography(window, size, bend)
    part, start, scale = antialiased(image_CHW, matrix, bend, window, size)
    mask_HW = mask_HW.contiguous()
    planes = None if weights_HW is None else weights_HW.float().contiguous()
    nodes = None if bend.nodes is None else np.ascontiguousarray(bend.nodes, np.float64)
    source = _Source(
        *(part.data_ptr(), int(part.dtype == torch.float32), part.shape[0], *part.stride(), *part.shape[1:]),
        (ctypes.c_double * 2)(*start),
        (ctypes.c_double * 2)(*scale),
        mask_HW.data_ptr(),
        None if planes is None else planes.data_ptr(),
        *mask_HW.shape,
        (ctypes.c_double * 9)(*matrix.ravel()),
        None if nodes is None else nodes.ctypes.data,
        *((0, 0) if nodes is None else nodes.shape[1:]),
    )
    image = torch.empty(part.shape[0], *size, device="cpu")
    mask = torch.empty(size, dtype=torch.uint8, device="cpu")
    weights = None if planes is None else torch.empty(size, device="cpu")
    pointers = image.data_ptr(), mask.data_ptr(), None if weights is None else weights.data_ptr()
    library.warp_rows(ctypes.addressof(source), 0, size[0], *size, *pointers)
    return image, mask, weights


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, held against torch on a drawn image, bent in every way."""
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.warp_rows.argtypes, library.warp_rows.restype = [pointer, *[number] * 4, *[pointer] * 3], None
    rng = np.random.default_rng(0)
    plane = torch.from_numpy(np.add.outer(np.arange(40.0), 2 * np.arange(50.0)) + rng.random((40, 50))).float()
    image = torch.stack((plane, 150 - plane))
    mask = plane.to(torch.uint8)
    bend = Bend(10, 5, (0.1, -0.1), rng.normal(0, 2, (2, 3, 4)))
    for window in (Window(-4, -3, 60, 50, mirror_rows=True), Window(3, 4, 30, 40, quarter_turns=1)):
        for kind in (torch.uint8, torch.float32):
            given = image.to(kind), mask, window, bend, (33, 41), plane
            for ours, theirs in zip(_compiled(library, *given), _plain(*given), strict=True):
                assert ours is not None
                assert theirs is not None
                apart = (ours.float() - theirs.float()).abs() > 0.05
                if apart.float().mean() > 0.01:
                    raise Unfit("warp.c, compiled, gives other samples than torch")
    return library


LIBRARY = Compiled(Path(__file__).with_name("warp.c"), _checked)
