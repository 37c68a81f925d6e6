"""Lovász losses: the Jaccard index of a class, made convex in its errors. Berman et al., arXiv:1705.08790.

For errors e >= 0 of the pixels of one class, sorted from large to small, the loss is sum_i e_i g_i (equations 8 and 9,
algorithm 1), where g_i is what wrongly labelling the i-th pixel adds to the Jaccard loss 1 - |y ∩ y'| / |y ∪ y'| after the
pixels before it. With T pixels of the class in all, and F of the class and B others before pixel i,

    g_i = 1 / (T + B)                              for a pixel of the class,
    g_i = (T - F) / ((T + B) (T + B + 1))          for another one.

g is constant where the order is, so it is the gradient by e. Equal errors may stand in any order: the sum of their g, and
with it the loss, is the same; the gradient is then one of several that are right. Behind the last pixel of the class g is 0,
so only pixels with errors above the least one of the class are sorted. On a processor the float's bits and the pixel's number
are sorted as one integer, which NumPy does about ten times as fast as `torch.sort` sorts the floats with their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import field_validator
from torch import Tensor

from intarsia.classes import IGNORE
from intarsia.errors import ConfigError
from intarsia.losses.base import LOSSES, LossConfig, Pixels
from intarsia.losses.binary import binary_targets

Classes = Literal["present", "all"] | tuple[int, ...]


@LOSSES.family("lovasz_softmax")
class LovaszSoftmaxConfig(LossConfig):
    """Mean over classes of the Lovász extension of the Jaccard loss at |t - p|, p the softmax."""

    classes: Classes = "present"
    """Classes that take part: present (those in the masks), all, or a list of class numbers."""
    per_image: bool = False
    """Take the loss of each image and average, instead of over the batch."""

    @field_validator("classes")
    @classmethod
    def _some(cls, classes: Classes) -> Classes:
        if isinstance(classes, tuple) and (min(classes, default=-1) < 0 or len(set(classes)) < len(classes)):
            raise ValueError("classes must be present, all, or a list of different class numbers")
        return classes

    def of(self, pixels: Pixels) -> Tensor:
        if isinstance(self.classes, tuple) and max(self.classes) >= pixels.num_classes:
            raise ConfigError(
                f"loss.classes: holds {max(self.classes)}, but there are {pixels.num_classes} classes, counted from 0."
            )
        with torch.no_grad():
            value, gradient_NKP = _softmax_loss(
                pixels.logits_NKP.detach(), pixels.mask_NP, self.classes, per_image=self.per_image
            )
        return _given(pixels.logits_NKP, value, gradient_NKP)


@LOSSES.family("lovasz_hinge")
class LovaszHingeConfig(LossConfig):
    """Lovász extension of the Jaccard loss at max(0, 1 - z s), s = 1 in the class and -1 elsewhere; two classes."""

    per_image: bool = True
    """Average the loss of single images instead of taking it over the batch."""

    def of(self, pixels: Pixels) -> Tensor:
        z_NKP, mask_NP = pixels.logits_NKP, pixels.mask_NP
        if pixels.num_classes > 2:
            raise ConfigError(
                f"loss lovasz_hinge: is for one class against the rest, with 1 or 2 channels of logits, got "
                f"{pixels.num_classes}. Use lovasz_softmax."
            )
        z_NP = z_NKP[:, 0] if pixels.num_classes == 1 else z_NKP[:, 1] - z_NKP[:, 0]
        with torch.no_grad():
            value, gradient_NP = _hinge_loss(z_NP.detach(), mask_NP, per_image=self.per_image)
        return _given(z_NP, value, gradient_NP)


def lovasz_softmax(
    logits: Tensor,
    mask: Tensor,
    *,
    classes: Literal["present", "all"] | Sequence[int] = "present",
    per_image: bool = False,
) -> Tensor:
    """Mean over classes of the Lovász extension of 1 - Jaccard at the errors |t - p| (arXiv:1705.08790, Lovász-Softmax).

    p is the softmax, t the one-hot mask. For p of 0 and 1 it is 1 - Jaccard exactly. Ignored pixels are left out; 0, without
    gradient, where nothing is counted. A class that takes part and is absent costs its largest p.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        classes: present (in the batch or, with per_image, the image), all, or class numbers.
        per_image: the loss of each image, then the mean over images in which a pixel is counted.
    """
    chosen = classes if isinstance(classes, str) else tuple(classes)
    return LovaszSoftmaxConfig(classes=chosen, per_image=per_image)(logits, mask)


def lovasz_hinge(logits: Tensor, mask: Tensor, *, per_image: bool = True) -> Tensor:
    """Lovász extension of 1 - Jaccard at the errors max(0, 1 - z s), s = 2 t - 1 (arXiv:1705.08790, Lovász hinge).

    Ignored pixels are left out; 0, without gradient, where nothing is counted. In an image without the class it is the
    largest error.

    Args:
        logits: z, (N, 1, H, W) or (N, H, W); of (N, 2, H, W) the difference z1 - z0.
        mask: (N, H, W), 0 or 1, 255 ignored.
        per_image: the loss of each image, then the mean over images in which a pixel is counted.
    """
    z = logits.unsqueeze(1) if logits.ndim == 3 else logits
    if z.ndim != 4 or z.shape[1] > 2 or z[:, 0].shape != mask.shape:
        raise ConfigError(
            "loss lovasz_hinge: takes logits (N, 1, H, W), (N, H, W) or (N, 2, H, W) and a mask (N, H, W), got "
            f"{tuple(logits.shape)} and {tuple(mask.shape)}."
        )
    return LovaszHingeConfig(per_image=per_image)(z, mask)


def _softmax_loss(z_NKP: Tensor, mask_NP: Tensor, classes: Classes, *, per_image: bool) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient by the logits; class by class, so that little but the gradient is held."""
    p_NKP = z_NKP.softmax(dim=1)
    slope_NKP = torch.zeros_like(p_NKP)
    means = []
    for part in _groups(mask_NP, per_image=per_image):
        sizes = torch.bincount(mask_NP[part].flatten(), minlength=IGNORE + 1).tolist()
        ignored, sizes[IGNORE] = sizes[IGNORE], 0
        if not any(sizes):
            continue
        if any(sizes[p_NKP.shape[1] :]):
            highest = max(index for index, size in enumerate(sizes) if size)
            raise ConfigError(
                f"mask: holds class {highest}, but the logits have {p_NKP.shape[1]} classes, counted from 0."
            )
        taken = classes if isinstance(classes, tuple) else tuple(range(p_NKP.shape[1]))
        if classes == "present":
            taken = tuple(index for index in taken if sizes[index])
        total = p_NKP.new_zeros(())
        for index in taken:
            truth_NP = mask_NP[part] == index
            error_NP = (p_NKP[part, index] - truth_NP.to(p_NKP.dtype)).abs_()
            if ignored:
                error_NP.masked_fill_(mask_NP[part] == IGNORE, -1)
            value, step_P = _extension(error_NP.flatten(), truth_NP.flatten(), sizes[index])
            total += value
            slope_NKP[part, index] = step_P.view_as(error_NP)
        slope_NKP[part] /= len(taken)
        means.append(total / len(taken))
    for p_KP, slope_KP in zip(p_NKP, slope_NKP, strict=True):  # dp_k/dz_j = p_k ([k = j] - p_j)
        slope_KP.sub_((p_KP * slope_KP).sum(0)).mul_(p_KP)
    return _mean(means, slope_NKP)


def _hinge_loss(z_NP: Tensor, mask_NP: Tensor, *, per_image: bool) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient by the logits."""
    counted_NP, truth_NP = binary_targets(mask_NP)
    error_NP = torch.where(truth_NP, 1 - z_NP, 1 + z_NP).masked_fill_(~counted_NP, -1)
    slope_NP = torch.zeros_like(z_NP)
    values = []
    for part in _groups(mask_NP, per_image=per_image):
        if counted_NP[part].any():
            value, step_P = _extension(error_NP[part].flatten(), truth_NP[part].flatten(), int(truth_NP[part].sum()))
            slope_NP[part] = step_P.view_as(slope_NP[part])
            values.append(value)
    return _mean(values, slope_NP)


def _groups(mask_NP: Tensor, *, per_image: bool) -> list[slice]:
    """The images whose pixels are sorted together."""
    return [slice(n, n + 1) for n in range(len(mask_NP))] if per_image else [slice(None)]


def _mean(values: list[Tensor], gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the groups' losses, and of their gradients; 0 if there is none."""
    if not values:
        return gradient.new_zeros(()), gradient
    return torch.stack(values).mean(), gradient.div_(len(values))


def _extension(error_P: Tensor, truth_P: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """sum_i max(0, e_i) g_i, and its gradient by the value whose distance from the truth e is (-g in the class, else g).

    Args:
        error_P: e; -1 where ignored, which stands behind every pixel that matters.
        truth_P: whether the pixel is of the class.
        size: pixels of the class.
    """
    step_P = torch.zeros_like(error_P)
    if not size:  # the first error alone makes the Jaccard loss 1
        value, place = error_P.max(dim=0)
        step_P[place] = (value > 0).to(step_P.dtype)
        return value.clamp(min=0), step_P
    packed = error_P.device.type == "cpu" and error_P.dtype == torch.float32 and len(error_P) < 2**31
    error_S, truth_S, order_S = (_sorted_packed if packed else _sorted)(error_P, truth_P)
    found_S = torch.cumsum(truth_S, 0, dtype=torch.int32 if packed else torch.int64)
    others_S = torch.arange(1, len(error_S) + 1, device=error_P.device, dtype=found_S.dtype) - found_S
    union_S = (others_S + size).to(error_P.dtype)  # for a pixel of another class, with itself
    g_S = torch.where(truth_S, -1 / union_S, (size - found_S) / (union_S * (union_S - 1)))
    g_S *= error_S > 0
    value = (error_S.clamp(min=0) * g_S.abs()).sum()  # in pairs: more exact than a dot product
    if packed:
        step_P.numpy()[order_S.numpy()] = g_S.numpy()
    else:
        step_P[order_S] = g_S
    return value, step_P


def _sorted(error_P: Tensor, truth_P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Errors from large to small, whether each is of the class, and the places they had."""
    error_S, order_S = torch.sort(error_P, descending=True)
    return error_S, truth_P[order_S], order_S


def _sorted_packed(error_P: Tensor, truth_P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same without pixels that have g = 0 or e <= 0, by sorting integers: error, place and class in 32, 31 and 1 bits.

    Bits of floats above 0 are ordered as the floats are. NaN stays, at the front, and makes the loss NaN.
    """
    error, truth = error_P.numpy(), truth_P.numpy()
    least = np.maximum(error[truth].min(), np.finfo(np.float32).tiny)
    key: NDArray[np.uint64] = (~error.view(np.uint32)).astype(np.uint64)
    key <<= np.uint64(32)
    key |= np.arange(0, 2 * len(error), 2, dtype=np.uint64)
    key |= truth
    kept = ~(error < least)
    if not kept.all():
        key = key[kept]
    key.sort()
    low = key.astype(np.uint32)
    key >>= np.uint64(32)
    error_S = (~key.astype(np.uint32)).view(np.float32)
    return (
        torch.from_numpy(error_S),
        torch.from_numpy((low & np.uint32(1)).astype(np.bool_)),
        torch.from_numpy((low >> np.uint32(1)).view(np.int32)),
    )


def _given(x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """`value` as a function of x whose gradient is known."""
    return cast(Tensor, _Given.apply(x, value, gradient))


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None
