"""The effective receptive field: how much each pixel of a real image matters for one logit, by its gradient.

Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", arXiv:1701.04128: the
gradient of the logit in the middle with respect to the image, |gradient| averaged over channels, draws and
images. Its mass is nearly Gaussian and far smaller than the theoretical field: for n layers of k x k uniform weights its
standard deviation is `sqrt(n (k² - 1) / 12)`, while the field grows with n.

The logits of all classes at the place are added with random signs, drawn anew each time, so that no class stands out.

Shapes: N images, C channels, H height, W width; K classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from intarsia.anatomy.trace import channels_of, device_of
from intarsia.errors import ConfigError
from intarsia.models.base import SegmentationModel, border_of
from intarsia.ops.pad import mirror_pad


@dataclass(frozen=True)
class EffectiveField:
    """Gradient mass of one logit over the image that the network was given."""

    mass: NDArray[np.float64]
    """(H, W), sums to 1; with the mirrored border of a network that loses it."""
    place: tuple[float, float]
    """(row, column) of the logit in the same frame: between pixels where the logits are coarser than the image."""
    border: tuple[int, int]
    """Rows and columns of mirrored border at the top and left."""
    drawn: bool = False
    """Whether layers that start at zero, through which no gradient passes, were drawn at random for the measurement."""

    def within(self, radius: float) -> float:
        """Share of the mass at most `radius` pixels from the logit's place, 0..1."""
        return float(self.mass[self._distance() <= radius].sum())

    def radius(self, share: float) -> float:
        """Pixels around the logit's place within which `share` of the mass lies."""
        distance = self._distance().ravel()
        order = np.argsort(distance)
        gathered = np.cumsum(self.mass.ravel()[order])
        return float(distance[order][min(int(np.searchsorted(gathered, share * (1 - 1e-12))), len(order) - 1)])

    def deviation(self) -> tuple[float, float]:
        """Standard deviation of the mass along rows and columns, in pixels."""
        found = []
        for axis in (0, 1):
            profile = self.mass.sum(1 - axis)
            at = np.arange(len(profile))
            mean = (at * profile).sum()
            found.append(float(np.sqrt(((at - mean) ** 2 * profile).sum())))
        return found[0], found[1]

    def _distance(self) -> NDArray[np.float64]:
        rows, columns = np.ogrid[: self.mass.shape[0], : self.mass.shape[1]]
        distance: NDArray[np.float64] = np.hypot(rows - self.place[0], columns - self.place[1])
        return distance


def effective_field(
    model: nn.Module,
    images_NCHW: Tensor | None = None,
    *,
    size: tuple[int, int] = (360, 480),
    draws: int = 4,
    seed: int = 0,
) -> EffectiveField:
    """Gradient mass of the logit in the middle of the image, for a resting model with its weights; the model stays as it is.

    Args:
        images_NCHW: normalised images; None: standard normal noise, a new one for each draw.
        size: (H, W) of the noise.
        draws: signs, and noise, drawn for each image.
        seed: of all that is drawn.

    Raises:
        ConfigError: fewer than one draw; no gradient reaches the image.
    """
    if draws < 1:
        raise ConfigError(f"draws: must be at least 1, got {draws}.")
    generator = torch.Generator().manual_seed(seed)
    resting, drawn = _with_gradients(copy.deepcopy(model).eval().requires_grad_(False), generator)
    images = [None] if images_NCHW is None else [images_NCHW[index : index + 1] for index in range(len(images_NCHW))]
    total, place, border = None, (0.0, 0.0), (0, 0)
    for image in images:
        for _ in range(draws):
            given = torch.randn(1, channels_of(model), *size, generator=generator) if image is None else image
            found, place, border = _one(resting, given.to(device_of(model)), generator)
            total = found if total is None else total + found
    assert total is not None
    if not np.isfinite(total).all() or total.sum() == 0:
        raise ConfigError("effective field: no gradient reaches the image. Train the model, or start it from weights.")
    return EffectiveField(total / total.sum(), place, border, drawn)


def _one(
    model: nn.Module, image_NCHW: Tensor, generator: torch.Generator
) -> tuple[NDArray[np.float64], tuple[float, float], tuple[int, int]]:
    """|gradient| (H, W) for one image and one draw of signs, the logit's place, the border before it."""
    height, width = image_NCHW.shape[-2:]
    top, left, bottom, right = border_of(model, height, width) if isinstance(model, SegmentationModel) else (0,) * 4
    given = mirror_pad(image_NCHW, top, bottom, left, right).detach().requires_grad_()
    with torch.enable_grad():
        logits = model(given)
        at = (logits.shape[-2] // 2, logits.shape[-1] // 2)
        signs = torch.randint(0, 2, (logits.shape[1],), generator=generator).to(logits) * 2 - 1
        (gradient,) = torch.autograd.grad((logits[0, :, at[0], at[1]] * signs).sum(), given)
    lost = any((top, left, bottom, right))
    place = []
    for first, index, side, out in zip((top, left), at, given.shape[-2:], logits.shape[-2:], strict=True):
        step = 1.0 if lost else side / out
        place.append(first + (index + 0.5) * step - 0.5)
    mass: NDArray[np.float64] = gradient[0].abs().mean(0).double().cpu().numpy()
    return mass, (place[0], place[1]), (top, left)


@torch.no_grad()
def _with_gradients(model: nn.Module, generator: torch.Generator) -> tuple[nn.Module, bool]:
    """The model, layers drawn that start at zero; whether there were any."""
    drawn = False
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1 and not parameter.any():
            parameter.copy_(0.01 * torch.randn(parameter.shape, generator=generator))
            drawn = drawn or bool(key)
    return model, drawn
