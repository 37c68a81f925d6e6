"""All sums that cross-entropy and losses of regions need, from one softmax, with a gradient written down by hand.

For p = softmax(z) over classes, t the true class of a counted pixel and weights w, the sums are

    nll = sum w (-log p_t)    I_k = sum p_k [t = k]    P_k = sum p_k    Q_k = sum p_k²    T_k = sum [t = k]

and with a_k = dL/dP_k + 2 p_k dL/dQ_k + [t = k] dL/dI_k the gradient of any loss L of them is

    dL/dz_j = p_j (a_j - sum_k p_k a_k) + w dL/dnll (p_j - [t = j])

so that nothing but the logits is kept between the passes: each makes the softmax of a piece, uses it and drops it.
Ignored pixels are left out of all of it. `kernel.c` does the same in compiled code, on processors that have a compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.classes import IGNORE
from intarsia.losses.kernel import KERNEL, Kernel, fitting, wrong_class
from intarsia.ops.pieces import readable

Statistics = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor]
PIECE = {"cpu": 1 << 18, "other": 1 << 26}
"""Logits that are worked on at once: what a core's own cache holds, for each thread; elsewhere few and large steps."""


def softmax_statistics(
    logits_NKP: Tensor, mask_NP: Tensor, weights_NP: Tensor | None = None, *, squares: bool = False
) -> Statistics:
    """nll (N,), sum of w (N,), I, P, Q (None unless `squares`) and T (N, K) each; differentiable in the logits, once.

    Args:
        logits_NKP: float32 or float64.
        mask_NP: class numbers, 255 ignored.
        weights_NP: w; None: 1.

    Raises:
        ConfigError: the mask has a number that is neither a class nor 255 (on other devices than processors: torch's error).
    """
    kernel, given = _kernel_for(logits_NKP, mask_NP), (logits_NKP, mask_NP, weights_NP, squares)
    found = _KernelStatistics.apply(kernel, *given) if kernel else _SoftmaxStatistics.apply(*given)
    nll, weight, intersection, probability, square, truth = cast(tuple[Tensor, ...], found)
    return nll, weight, intersection, probability, square if squares else None, truth


def pixel_nll(logits_NKP: Tensor, mask_NP: Tensor) -> Tensor:
    """(N, P) -log p of the true class of each pixel; 0, without gradient, where ignored.

    Raises:
        ConfigError: the mask has a number that is neither a class nor 255 (without the kernel: torch's error).
    """
    if kernel := _kernel_for(logits_NKP, mask_NP):
        return cast(Tensor, _KernelNll.apply(kernel, logits_NKP, mask_NP))
    truth_NP = torch.where(mask_NP != IGNORE, mask_NP, mask_NP.new_full((), IGNORE)).long()
    return F.cross_entropy(logits_NKP, truth_NP, ignore_index=IGNORE, reduction="none")


def has_kernel(logits_NKP: Tensor, mask_NP: Tensor) -> bool:
    """Whether all sums cost less than cross-entropy alone does in torch."""
    return _kernel_for(logits_NKP, mask_NP) is not None


class _SoftmaxStatistics(torch.autograd.Function):
    """Plain torch, piece by piece, so that temporary tensors are small."""

    @staticmethod
    def forward(
        ctx: Any, logits_NKP: Tensor, mask_NP: Tensor, weights_NP: Tensor | None, squares: bool
    ) -> tuple[Tensor, ...]:
        num_images, num_classes, _ = logits_NKP.shape
        device, kind = logits_NKP.device, logits_NKP.dtype
        wide = torch.float32 if device.type == "mps" else torch.float64
        nll_2N = torch.zeros(2, num_images, dtype=wide, device=device)
        sums_4NK = torch.zeros(4, num_images, num_classes, dtype=wide, device=device)
        with torch.autocast(device.type, enabled=False):
            for n, at in _pieces(logits_NKP):
                counted_NP, truth_NP = _truth(mask_NP[n, at])
                if device.type == "cpu" and truth_NP.numel() and _outside(truth_NP, num_classes):
                    raise wrong_class(mask_NP, num_classes)
                w_NP = counted_NP.to(kind)
                log_p_NKP = torch.log_softmax(logits_NKP[n, :, at], 1)
                picked_NP = log_p_NKP.gather(1, truth_NP.unsqueeze(1)).squeeze(1)
                p_NKP = log_p_NKP.exp_()
                sums_4NK[0, n].scatter_add_(1, truth_NP, (picked_NP.exp() * w_NP).to(wide))
                sums_4NK[1, n] += (p_NKP @ w_NP.unsqueeze(2)).squeeze(2)
                if squares:
                    sums_4NK[2, n] += (p_NKP.square_() @ w_NP.unsqueeze(2)).squeeze(2)
                sums_4NK[3, n].scatter_add_(1, truth_NP, w_NP.to(wide))
                if weights_NP is not None:
                    w_NP = torch.where(counted_NP, weights_NP[n, at].to(kind), 0)
                nll_2N[0, n] -= torch.where(counted_NP, picked_NP * w_NP, 0).sum(1, dtype=wide)
                nll_2N[1, n] += w_NP.sum(1, dtype=wide)
        ctx.save_for_backward(logits_NKP, mask_NP, weights_NP)
        ctx.squares = squares
        found = (*nll_2N.to(kind).unbind(), *sums_4NK.to(kind).unbind())
        ctx.mark_non_differentiable(found[1], found[5])
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        logits_NKP, mask_NP, weights_NP = ctx.saved_tensors
        d_nll_N, _, d_intersection_NK, d_probability_NK, d_square_NK, _ = grads
        out_NKP = torch.empty_like(logits_NKP)
        with torch.autocast(logits_NKP.device.type, enabled=False):
            for n, at in _pieces(logits_NKP):
                counted_NP, truth_NP = _truth(mask_NP[n, at])
                one_NP, row = counted_NP.to(logits_NKP.dtype), truth_NP.unsqueeze(1)
                w_NP = one_NP if weights_NP is None else torch.where(counted_NP, weights_NP[n, at].to(one_NP.dtype), 0)
                w_NP = w_NP * d_nll_N[n].unsqueeze(1)
                p_NKP = torch.softmax(logits_NKP[n, :, at], 1)
                # p_j (a_j - sum p a + w dnll) - w dnll [t = j], in a: what all classes have, then the true class's own
                own_NP = d_intersection_NK[n].gather(1, truth_NP) * p_NKP.gather(1, row).squeeze(1) * one_NP
                all_NP = w_NP - own_NP - (d_probability_NK[n].unsqueeze(1) @ p_NKP).squeeze(1) * one_NP
                if ctx.squares:
                    p_NKP.mul_(one_NP.unsqueeze(1))
                    all_NP -= (2 * d_square_NK[n].unsqueeze(1) @ p_NKP.square()).squeeze(1)
                a_NKP = torch.addcmul(all_NP.unsqueeze(1), one_NP.unsqueeze(1), d_probability_NK[n].unsqueeze(2))
                if ctx.squares:
                    a_NKP.addcmul_(p_NKP, d_square_NK[n].unsqueeze(2), value=2)
                piece_NKP = torch.mul(p_NKP, a_NKP, out=out_NKP[n, :, at])
                piece_NKP.scatter_add_(1, row, (own_NP - w_NP).unsqueeze(1))
        return out_NKP, None, None, None


class _KernelStatistics(torch.autograd.Function):
    """kernel.c."""

    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, logits_NKP: Tensor, mask_NP: Tensor, weights_NP: Tensor | None, squares: bool
    ) -> tuple[Tensor, ...]:
        given = fitting(logits_NKP, mask_NP, weights_NP)
        ctx.save_for_backward(*given)
        ctx.kernel, ctx.squares = kernel, squares
        sums = kernel.forward(*given, squares=squares).float()
        sums_4NK = sums[:, 2:].reshape(len(sums), 4, -1).transpose(0, 1).contiguous()
        found = sums[:, 0].clone(), sums[:, 1].clone(), *sums_4NK.unbind()
        ctx.mark_non_differentiable(found[1], found[5])
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None, None, None]:
        d_nll_N, _, d_intersection_NK, d_probability_NK, d_square_NK, _ = grads
        d_sums_NK = d_intersection_NK, d_probability_NK, d_square_NK if ctx.squares else None
        return None, ctx.kernel.backward(*ctx.saved_tensors, d_nll_N, d_sums_NK), None, None, None


class _KernelNll(torch.autograd.Function):
    """kernel.c; dL/dnll of each pixel is its weight in the gradient."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, logits_NKP: Tensor, mask_NP: Tensor) -> Tensor:
        logits_NKP, mask_NP, _ = fitting(logits_NKP, mask_NP, None)
        ctx.kernel = kernel
        ctx.save_for_backward(logits_NKP, mask_NP)
        return kernel.pixels(logits_NKP, mask_NP)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_NP: Tensor) -> tuple[None, Tensor, None]:
        logits_NKP, mask_NP = ctx.saved_tensors
        given = fitting(logits_NKP, mask_NP, grad_NP)
        none_NK = logits_NKP.new_zeros(logits_NKP.shape[:2])
        return None, ctx.kernel.backward(*given, none_NK.new_ones(len(none_NK)), (none_NK, none_NK, None)), None


def _kernel_for(logits_NKP: Tensor, mask_NP: Tensor) -> Kernel | None:
    """The kernel, for float32 on the processor, if there is one; it reads real tensors, not those of a tracing."""
    fits = logits_NKP.dtype == torch.float32 and readable(logits_NKP, mask_NP) and 0 < logits_NKP.shape[1] <= IGNORE
    return KERNEL.load() if fits else None


def _pieces(logits_NKP: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and pixels, piece by piece: several images where they are small, a part of one where it is large."""
    num_images, num_classes, num_pixels = logits_NKP.shape
    on_cpu = logits_NKP.device.type == "cpu"
    most = PIECE["cpu"] * torch.get_num_threads() if on_cpu else PIECE["other"]
    images = max(1, most // max(1, num_classes * num_pixels))
    pixels = max(1, most // num_classes) if images == 1 else max(1, num_pixels)
    for n in range(0, num_images, images):
        for start in range(0, num_pixels, pixels):
            yield slice(n, n + images), slice(start, start + pixels)


def _truth(mask_NP: Tensor) -> tuple[Tensor, Tensor]:
    """Which pixels are counted, and their class numbers (0 for the others)."""
    counted_NP = mask_NP != IGNORE
    return counted_NP, torch.where(counted_NP, mask_NP, 0).long()


def _outside(truth_NP: Tensor, num_classes: int) -> bool:
    least, most = truth_NP.aminmax()
    return bool(least < 0) or bool(most >= num_classes)
