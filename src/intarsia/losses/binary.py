"""Losses by sigmoid: one class against the rest (binary), or classes that may overlap (multilabel).

z are logits, p = sigmoid(z), t the truth, 0 or 1; 255 is ignored: not counted, no gradient. Inside, both kinds are (N, K, P)
elements, a binary one with K = 1. They are functions and types, not names of the registry: a recipe's model has a softmax over
two classes or more.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from intarsia.classes import IGNORE
from intarsia.errors import ConfigError
from intarsia.losses.base import LossConfig, Pixels
from intarsia.losses.focal import focal_cost


def binary_targets(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Which elements of a mask of 0, 1 and 255 are counted, and which are 1."""
    counted, truth = mask != IGNORE, mask == 1
    strange = counted & ~truth & (mask != 0)
    if bool(strange.any()):
        raise ConfigError(
            f"mask: holds {mask[strange][0].item():g}; this loss takes 0, 1 and {IGNORE} (ignored). "
            "Use a loss by softmax for class numbers."
        )
    return counted, truth


class Elements(NamedTuple):
    """What a loss by sigmoid is made from, (N, K, P) each."""

    z: Tensor
    """Logits; 0, without gradient, where ignored."""
    t: Tensor
    """0 or 1, as numbers; 0 where ignored."""
    counted: Tensor
    """Which elements are counted."""

    def nll(self) -> Tensor:
        """-log of the probability of the truth: max(z, 0) - z t + log(1 + exp(-|z|))."""
        return F.binary_cross_entropy_with_logits(self.z, self.t, reduction="none")

    def mean(self, cost: Tensor) -> Tensor:
        """Over counted elements; 0 if there are none."""
        return torch.where(self.counted, cost, cost.new_zeros(())).sum() / self.counted.sum().clamp(min=1)

    def dice_cost(self, *, squared: bool, smooth: float, per_image: bool) -> Tensor:
        """Mean over classes (and images) of 1 - (2 sum p t + s) / (sum p + sum t + s)."""
        p = self.z.sigmoid() * self.counted
        axes = (2,) if per_image else (0, 2)
        predicted = (p.square() if squared else p).sum(axes)
        return (1 - (2 * (p * self.t).sum(axes) + smooth) / (predicted + self.t.sum(axes) + smooth)).mean()


class SigmoidLossConfig(LossConfig):
    """A loss by sigmoid, for models whose classes do not exclude each other."""

    shapes: ClassVar[str]
    """The shapes that are expected, in words."""

    def of(self, pixels: Pixels) -> Tensor:
        z, mask = pixels.logits_NKP, pixels.mask_NP
        if mask.numel() != z.numel():
            raise self.refusal(f"{tuple(z.shape)} and {tuple(mask.shape)} with pixels in one row")
        counted, truth = binary_targets(mask.reshape(z.shape))
        return self.cost(Elements(torch.where(counted, z, z.new_zeros(())), truth.to(z.dtype), counted))

    def cost(self, elements: Elements) -> Tensor:
        """The loss."""
        raise NotImplementedError

    def refusal(self, met: str) -> ConfigError:
        """The error for shapes that do not fit."""
        return ConfigError(f"loss {self.name or type(self).__name__}: takes {self.shapes}, got {met}.")


class BinaryLossConfig(SigmoidLossConfig):
    """One class against the rest."""

    shapes = "logits (N, 1, H, W) or (N, H, W) and a mask (N, H, W)"

    def __call__(self, logits_N1HW: Tensor, mask_NHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        """The loss of a batch; logits may be (N, H, W), masks hold 0, 1 and 255."""
        z = logits_N1HW.unsqueeze(1) if logits_N1HW.ndim == 3 else logits_N1HW
        if z.ndim != 4 or z.shape[1] != 1 or z[:, 0].shape != mask_NHW.shape:
            raise self.refusal(f"{tuple(logits_N1HW.shape)} and {tuple(mask_NHW.shape)}")
        return super().__call__(z, mask_NHW, weights_NHW)


class MultilabelLossConfig(SigmoidLossConfig):
    """Classes that may overlap, each against the rest."""

    shapes = "logits and targets (N, K, H, W)"

    def __call__(self, logits_NKHW: Tensor, mask_NKHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        """The loss of a batch; targets hold 0, 1 and 255 for each class."""
        if logits_NKHW.ndim != 4 or logits_NKHW.shape != mask_NKHW.shape:
            raise self.refusal(f"{tuple(logits_NKHW.shape)} and {tuple(mask_NKHW.shape)}")
        return super().__call__(logits_NKHW, mask_NKHW, weights_NHW)


class _DiceSettings(SigmoidLossConfig):
    squared: bool = False
    """Denominator sum p² + sum t² (V-Net, arXiv:1606.04797, section 3) instead of sum p + sum t."""
    smooth: float = Field(1.0, gt=0)
    """s, added above and below the fraction; makes an absent class that is not predicted a perfect one."""
    per_image: bool = False
    """Average the Dice of single images instead of taking the sums over the batch."""

    def cost(self, elements: Elements) -> Tensor:
        return elements.dice_cost(squared=self.squared, smooth=self.smooth, per_image=self.per_image)


class BinaryCrossEntropyConfig(BinaryLossConfig):
    """Mean over counted pixels of -t log p - (1 - t) log(1 - p), p = sigmoid(z)."""

    def cost(self, elements: Elements) -> Tensor:
        return elements.mean(elements.nll())


class BinaryDiceConfig(_DiceSettings, BinaryLossConfig):
    """1 - (2 sum p t + s) / (sum p + sum t + s), p = sigmoid(z)."""


class BinaryFocalConfig(BinaryLossConfig):
    """Mean over counted pixels of -alpha_t (1 - p_t)^gamma log p_t, p = sigmoid(z)."""

    gamma: float = Field(2.0, ge=0)
    """How strongly pixels that are right already are held down; 0: cross-entropy."""
    alpha: float | None = Field(None, gt=0, lt=1)
    """Factor of pixels of the class; the others have 1 - alpha (the paper: 0.25); null: 1 for both."""

    def cost(self, elements: Elements) -> Tensor:
        cost = focal_cost(elements.nll(), self.gamma)
        if self.alpha is not None:
            cost = cost * ((1 - self.alpha) + (2 * self.alpha - 1) * elements.t)
        return elements.mean(cost)


class MultilabelCrossEntropyConfig(MultilabelLossConfig):
    """Mean over counted pixels and classes of -t log p - (1 - t) log(1 - p), p = sigmoid(z)."""

    def cost(self, elements: Elements) -> Tensor:
        return elements.mean(elements.nll())


class MultilabelDiceConfig(_DiceSettings, MultilabelLossConfig):
    """1 - mean over classes of (2 sum p t + s) / (sum p + sum t + s), p = sigmoid(z)."""


def binary_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean of -t log p - (1 - t) log(1 - p) over counted pixels, p = sigmoid(z).

    Args:
        logits: (N, 1, H, W) or (N, H, W), before sigmoid.
        mask: (N, H, W), 0 or 1, 255 ignored.
    """
    return BinaryCrossEntropyConfig(name="binary_ce")(logits, mask)


def binary_soft_dice(
    logits: Tensor, mask: Tensor, *, squared: bool = False, smooth: float = 1.0, per_image: bool = False
) -> Tensor:
    """1 - (2 sum p t + s) / (sum p + sum t + s) over counted pixels, p = sigmoid(z); the class alone, not its complement.

    Args:
        logits: (N, 1, H, W) or (N, H, W), before sigmoid.
        mask: (N, H, W), 0 or 1, 255 ignored.
        squared: sum p² + sum t² in the denominator (V-Net, arXiv:1606.04797, section 3).
        smooth: s, above 0.
        per_image: sums over each image, then the mean over images.
    """
    return BinaryDiceConfig(name="binary_dice", squared=squared, smooth=smooth, per_image=per_image)(logits, mask)


def binary_focal(logits: Tensor, mask: Tensor, *, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """Mean of -alpha_t (1 - p_t)^gamma log p_t over counted pixels (Lin et al., arXiv:1708.02002, equation 5).

    p_t is p = sigmoid(z) where t = 1, else 1 - p; alpha_t is alpha where t = 1, else 1 - alpha. gamma = 0 without alpha is
    binary cross-entropy.

    Args:
        logits: (N, 1, H, W) or (N, H, W), before sigmoid.
        mask: (N, H, W), 0 or 1, 255 ignored.
        gamma: 0 or more; the paper's best is 2.
        alpha: between 0 and 1; the paper's best is 0.25. None: 1 for both.
    """
    return BinaryFocalConfig(name="binary_focal", gamma=gamma, alpha=alpha)(logits, mask)


def multilabel_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -t log p - (1 - t) log(1 - p) over counted pixels and classes, p = sigmoid(z).

    Args:
        logits: (N, K, H, W), before sigmoid.
        targets: (N, K, H, W), 0 or 1 for each class, which may overlap; 255 ignored for that class.
    """
    return MultilabelCrossEntropyConfig(name="multilabel_ce")(logits, targets)


def multilabel_soft_dice(
    logits: Tensor, targets: Tensor, *, squared: bool = False, smooth: float = 1.0, per_image: bool = False
) -> Tensor:
    """1 - mean_k (2 sum p t + s) / (sum p + sum t + s), sums over counted pixels, p = sigmoid(z).

    Args:
        logits: (N, K, H, W), before sigmoid.
        targets: (N, K, H, W), 0 or 1 for each class, which may overlap; 255 ignored for that class.
        squared: sum p² + sum t² in the denominator (V-Net, arXiv:1606.04797, section 3).
        smooth: s, above 0.
        per_image: sums over each image, then the mean over images and classes.
    """
    config = MultilabelDiceConfig(name="multilabel_dice", squared=squared, smooth=smooth, per_image=per_image)
    return config(logits, targets)
