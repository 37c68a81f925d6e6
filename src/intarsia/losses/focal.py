"""Focal loss: cross-entropy in which pixels that are right already count little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor

from intarsia.errors import ConfigError
from intarsia.losses.base import LOSSES, LossConfig, Pixels


@LOSSES.family("focal")
class FocalConfig(LossConfig):
    """Mean over counted pixels of -alpha_t (1 - p_t)^gamma log p_t."""

    gamma: float = Field(2.0, ge=0)
    """How strongly pixels that are right already are held down; 0: cross-entropy."""
    alpha: float | tuple[float, ...] | None = None
    """A factor for all classes, or one number a class; null: 1."""

    @field_validator("alpha")
    @classmethod
    def _positive(cls, alpha: float | tuple[float, ...] | None) -> float | tuple[float, ...] | None:
        numbers = alpha if isinstance(alpha, tuple) else (alpha,) if alpha is not None else (1.0,)
        if min(numbers, default=-1) < 0 or sum(numbers) == 0:
            raise ValueError("alpha must not be negative, and not all zero")
        return alpha

    def of(self, pixels: Pixels) -> Tensor:
        cost_NP = focal_cost(pixels.nll_NP, self.gamma)
        if isinstance(self.alpha, tuple):
            if len(self.alpha) != pixels.num_classes:
                raise ConfigError(
                    f"loss.alpha: has {len(self.alpha)} numbers for {pixels.num_classes} classes. Give one number a class."
                )
            cost_NP = cost_NP * cost_NP.new_tensor(self.alpha)[pixels.truth_NP]
        elif self.alpha is not None:
            cost_NP = cost_NP * self.alpha
        return cost_NP.sum() / pixels.counted_NP.sum().clamp(min=1)


def focal(
    logits: Tensor, mask: Tensor, *, gamma: float = 2.0, alpha: float | Sequence[float] | Tensor | None = None
) -> Tensor:
    """Mean of -alpha_t (1 - p_t)^gamma log p_t over counted pixels (Lin et al., arXiv:1708.02002, equation 5).

    p is the softmax and t the true class, as the paper's footnote on many classes has it; one softmax, not one sigmoid a
    class. gamma = 0 is cross-entropy. The sum is divided by the number of counted pixels, not by the sum of alpha.

    Args:
        logits: (N, K, H, W), before softmax.
        mask: (N, H, W), class numbers, 255 ignored.
        gamma: 0 or more.
        alpha: a number for all classes, or (K,) one a class; None: 1.
    """
    numbers = alpha if alpha is None or isinstance(alpha, (int, float)) else tuple(float(number) for number in alpha)
    return FocalConfig(gamma=gamma, alpha=numbers)(logits, mask)


def focal_cost(nll: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma (-log p) from -log p, element by element; its slope at p = 1 is finite for every gamma."""
    return nll if gamma == 0 else cast(Tensor, _FocalCost.apply(nll, gamma))


class _FocalCost(torch.autograd.Function):
    """With n = -log p and w = 1 - p: w^gamma n, and its slope w^(gamma - 1) (w + gamma (1 - w) n)."""

    @staticmethod
    def forward(ctx: Any, nll: Tensor, gamma: float) -> Tensor:
        ctx.save_for_backward(nll)
        ctx.gamma = gamma
        return _wrong(nll).pow_(gamma).mul_(nll)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (nll,) = ctx.saved_tensors
        wrong = _wrong(nll)
        slope = (1 - wrong).mul_(nll).mul_(ctx.gamma).add_(wrong)
        return slope.mul_(wrong.pow_(ctx.gamma - 1)).mul_(grad), None


def _wrong(nll: Tensor) -> Tensor:
    """1 - p, exact where p is near 1, and never 0, so that every power of it is finite."""
    return torch.neg(nll).expm1_().neg_().clamp_(min=torch.finfo(nll.dtype).tiny)
