"""Boundary loss: probability mass, weighted by its signed distance to the true outline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intarsia.classes import IGNORE
from intarsia.errors import ConfigError
from intarsia.losses.base import LOSSES, LossConfig, Pixels
from intarsia.ops.distance import distance


@LOSSES.family("boundary")
class BoundaryConfig(LossConfig):
    """Mean over counted pixels and classes of p phi, phi the signed distance to the outline, below 0 inside."""

    background: bool = False
    """Whether class 0 takes part."""

    def of(self, pixels: Pixels) -> Tensor:
        masks_NHW = pixels.mask_NP.reshape(-1, *pixels.size_HW).cpu().numpy()
        first = self.first(pixels.num_classes)
        phi = np.stack([_distances(mask_HW, range(first, pixels.num_classes)) for mask_HW in masks_NHW])
        return self.cost(pixels, torch.from_numpy(phi))

    def cost(self, pixels: Pixels, phi_NCHW: Tensor) -> Tensor:
        """The loss for known distances of the classes that take part."""
        p_NCP = pixels.logits_NKP.softmax(dim=1)[:, self.first(pixels.num_classes) :]
        phi_NCP = phi_NCHW.to(p_NCP).flatten(2)
        phi_NCP = torch.where(pixels.counted_NP.unsqueeze(1), phi_NCP, phi_NCP.new_zeros(()))
        return (p_NCP * phi_NCP).sum() / (pixels.counted_NP.sum() * p_NCP.shape[1]).clamp(min=1)

    def first(self, num_classes: int) -> int:
        """The first class that takes part."""
        return 0 if self.background or num_classes == 1 else 1


def boundary(logits: Tensor, mask: Tensor, *, distance: Tensor | None = None, background: bool = False) -> Tensor:
    """Mean of p phi over counted pixels and classes (Kervadec et al., arXiv:1812.07032, equation 5), p the softmax.

    phi is the `signed_distance` of the true region: positive outside, so that probability far outside costs most, and
    negative inside, so that the best value is below 0. An ignored pixel has phi 0, no gradient, and is not counted. The
    authors add it to generalised Dice, with a factor that grows over the training.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        distance: (N, K, H, W), phi in pixels, such as `signed_distance` of each mask; None: made from the mask.
        background: whether class 0 takes part; with one class alone it does.
    """
    config = BoundaryConfig(background=background)
    if distance is None:
        return config(logits, mask)
    if distance.shape != logits.shape:
        raise ConfigError(
            f"distance: must have the shape of the logits, {tuple(logits.shape)}, got {tuple(distance.shape)}. "
            "Stack signed_distance of each mask."
        )
    return config.cost(Pixels(logits, mask), distance[:, config.first(logits.shape[1]) :])


def signed_distance(mask_HW: NDArray[Any], num_classes: int) -> NDArray[np.float32]:
    """phi = edt(outside) outside - (edt(inside) - 1) inside for each class, (K, H, W) in pixels.

    edt is the Euclidean distance to the nearest pixel of the other kind; pixels on the inner rim have 0, those next to them
    outside 1. phi is 0 everywhere for a class that is absent or that fills the image: there is no outline. Ignored pixels
    (255) are outside of every class while distances are measured, and have phi 0 themselves.

    Args:
        mask_HW: class numbers, 255 ignored.
        num_classes: K.
    """
    return _distances(mask_HW, range(num_classes))


def _distances(mask_HW: NDArray[Any], classes: range) -> NDArray[np.float32]:
    """phi of some classes, (C, H, W)."""
    phi_CHW = np.zeros((len(classes), *mask_HW.shape), np.float32)
    present = set(np.unique(mask_HW).tolist())
    for place, index in enumerate(classes):
        if index in present:
            _measure(mask_HW == index, phi_CHW[place])
    phi_CHW[:, mask_HW == IGNORE] = 0
    return phi_CHW


def _measure(inside_HW: NDArray[np.bool_], phi_HW: NDArray[np.float32]) -> None:
    """Write phi of one region that is not empty."""
    if inside_HW.all():
        return
    phi_HW[...] = distance(~inside_HW)
    # The nearest pixel outside is never beyond the rectangle around the region, grown by one.
    rows, columns = (np.flatnonzero(inside_HW.any(axis)) for axis in (1, 0))
    window = np.s_[max(0, rows[0] - 1) : rows[-1] + 2, max(0, columns[0] - 1) : columns[-1] + 2]
    within = inside_HW[window]
    np.subtract(1, distance(within), out=phi_HW[window], where=within)
