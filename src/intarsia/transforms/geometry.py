"""Random window of an image and its mask: zoom, aspect, shift, mirror, quarter turns, in one cut and one resize.

Image: bilinear or bicubic, antialiased when shrinking; weights: bilinear; mask: nearest. What lies outside the image is
mirrored in the image, ignored (255) in the mask and 0 in the weights, so that nothing that was not seen is trained; or all are
mirrored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intarsia.classes import IGNORE
from intarsia.transforms.prepare import resize_image, resize_mask


@dataclass(frozen=True)
class Window:
    """A rectangle in the image, (top, left, height, width) in pixels, and how it is turned."""

    top: int
    left: int
    height: int
    width: int
    mirror_columns: bool = False
    mirror_rows: bool = False
    quarter_turns: int = 0


def draw_window(
    image_size: tuple[int, int],
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    zoom: tuple[float, float],
    aspect: float,
    mirror: str,
    turn: bool,
    shift: int | None = None,
    middle: tuple[int, int] | None = None,
) -> Window:
    """A window of the image that becomes `size`: zoom is log-uniform, the place uniform over all that fit.

    Args:
        image_size: (height, width) of the image.
        size: (height, width) of the result.
        zoom: least and largest enlargement.
        aspect: largest factor by which height and width are zoomed differently, >= 1.
        mirror: none, horizontal or both.
        turn: whether quarter turns are drawn.
        shift: pixels by which the window's middle may lie off the image's; None: anywhere that fits.
        middle: (row, column) of the pixel that the window looks at: its own middle, unless it would hang over an edge of the
            image. Nothing is drawn for a side that is longer than the window's. It holds over `shift`.
    """
    factor = math.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1])))
    squeeze = math.exp(rng.uniform(-0.5, 0.5) * math.log(aspect))
    quarter_turns = int(rng.integers(4)) if turn else 0
    out = size if quarter_turns % 2 == 0 else (size[1], size[0])
    height, width = max(1, round(out[0] / (factor * squeeze))), max(1, round(out[1] / (factor / squeeze)))
    top, left = (
        _place(side, part, rng, shift if middle is None else None, at)
        for side, part, at in zip(image_size, (height, width), middle or (None, None), strict=True)
    )
    flips = rng.random(2) < 0.5
    return Window(
        top,
        left,
        height,
        width,
        bool(mirror != "none" and flips[0]),
        bool(mirror == "both" and flips[1]),
        quarter_turns,
    )


def _place(side: int, part: int, rng: np.random.Generator, shift: int | None, at: int | None) -> int:
    """Start of a part on a side; negative if the part is larger, so that the side lies anywhere within it."""
    spare = side - part
    if at is not None and spare > 0:
        return min(max(at - part // 2, 0), spare)
    if shift is not None:
        return spare // 2 + int(rng.integers(-shift, shift + 1))
    return int(rng.integers(min(0, spare), max(0, spare) + 1))


def cut_window(
    image_CHW: Tensor,
    mask_HW: Tensor,
    window: Window,
    size: tuple[int, int],
    *,
    cubic: bool = False,
    reflect: bool = False,
) -> tuple[Tensor, Tensor]:
    """The window of image and mask, turned and resized to `size`.

    Args:
        cubic: interpolate the image bicubically.
        reflect: mirror the mask outside the image as the image is.
    """
    height, width = mask_HW.shape
    bottom, right = window.top + window.height, window.left + window.width
    if _is_inside(mask_HW, window):
        image = image_CHW[:, window.top : bottom, window.left : right]
    else:
        rows = _mirrored(height, window.top, window.height)
        columns = _mirrored(width, window.left, window.width)
        top, left = int(rows.min()), int(columns.min())
        seen = image_CHW[:, top : int(rows.max()) + 1, left : int(columns.max()) + 1]  # of a file, no more is read
        image = seen[:, torch.from_numpy(rows - top)][:, :, torch.from_numpy(columns - left)]
    mask = _reflected(mask_HW, window) if reflect else _cut(mask_HW, window, outside=IGNORE)
    return resize_image(_turned(image, window), size, cubic=cubic), resize_mask(_turned(mask, window), size)


def _mirrored(side: int, start: int, part: int) -> NDArray[np.int64]:
    """Indices of a part of a side that is mirrored at its ends, as `mirror_index` does."""
    period = max(1, 2 * (side - 1))
    position = np.arange(start, start + part) % period
    index: NDArray[np.int64] = np.minimum(position, period - position) if side > 1 else np.zeros(part, np.int64)
    return index


def cut_weights(weights_HW: Tensor, window: Window, size: tuple[int, int], *, reflect: bool = False) -> Tensor:
    """The window of pixel weights (float), as `cut_window` cuts the mask they belong to."""
    weights = _reflected(weights_HW, window) if reflect else _cut(weights_HW, window, outside=0)
    return resize_image(_turned(weights, window).unsqueeze(0), size).squeeze(0)


def _is_inside(plane_HW: Tensor, window: Window) -> bool:
    height, width = plane_HW.shape
    rows_fit = window.top >= 0 and window.top + window.height <= height
    return rows_fit and window.left >= 0 and window.left + window.width <= width


def _reflected(plane_HW: Tensor, window: Window) -> Tensor:
    """The window of a plane that is mirrored at its border pixels."""
    height, width = plane_HW.shape
    rows = torch.from_numpy(_mirrored(height, window.top, window.height))
    columns = torch.from_numpy(_mirrored(width, window.left, window.width))
    return plane_HW[rows][:, columns]


def _cut(plane_HW: Tensor, window: Window, *, outside: int) -> Tensor:
    """The window of a plane, with one value outside it."""
    bottom, right = window.top + window.height, window.left + window.width
    inside = plane_HW[max(0, window.top) : bottom, max(0, window.left) : right]
    if _is_inside(plane_HW, window):
        return inside
    cut = plane_HW.new_full((window.height, window.width), outside)
    row, column = max(0, -window.top), max(0, -window.left)
    cut[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return cut


def _turned(x: Tensor, window: Window) -> Tensor:
    flipped = [axis for axis, flip in ((-1, window.mirror_columns), (-2, window.mirror_rows)) if flip]
    if flipped:
        x = x.flip(flipped)
    if window.quarter_turns:
        x = x.rot90(window.quarter_turns, (-2, -1))
    return x.contiguous()
