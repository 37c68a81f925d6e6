"""The dense CRF as a layer that learns: Zheng et al., "Conditional Random Fields as Recurrent Neural Networks",
arXiv:1502.03240, section 4 and algorithm 1.

Each iteration filters Q with both kernels, weighs the results per class (the paper's diagonal weights), mixes classes with
the compatibility matrix, subtracts the outcome from the logits and takes the softmax. The gradient of a filter is the
transposed filter: slice^T is splat, splat^T is slice, and the blur's directions run backwards.

Differs from the paper: the compatibility matrix is trained with a start at Potts' 1 - I, and its weights start at those of a
`CrfConfig`; the smoothness kernel is a truncated Gaussian, not a lattice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.errors import ConfigError
from intarsia.ops.crf.config import CRFS, CrfConfig
from intarsia.ops.crf.dense import check_pair, lattice_of
from intarsia.ops.crf.gaussian import smoothed
from intarsia.ops.crf.lattice import BilateralFilter, PlainLattice


class CrfLayer(nn.Module):
    """Logits and images to refined logits, by `iterations` steps of mean-field inference.

    Trained: `bilateral_weight` and `smoothness_weight` (K,), `compatibility` (K, K). There are gradients in these and in the
    logits, and none in the image. Standard deviations are fixed, as in the paper.

    Args:
        num_classes: K.
        config: start of the weights, and the standard deviations; one of `CRFS`, by value or name.
        iterations: T; the paper trains with 5 and tests with 10: set the attribute of this name.
    """

    def __init__(
        self, num_classes: int, config: CrfConfig | str | Mapping[str, Any] = "deeplab", *, iterations: int = 5
    ) -> None:
        super().__init__()
        if num_classes < 1 or iterations < 1:
            raise ConfigError(
                f"CrfLayer: num_classes and iterations must be at least 1, got {num_classes} and {iterations}."
            )
        self.config, self.num_classes, self.iterations = CRFS.resolve(config), num_classes, iterations
        self.bilateral_weight = nn.Parameter(torch.full((num_classes,), float(self.config.bilateral_weight)))
        self.smoothness_weight = nn.Parameter(torch.full((num_classes,), float(self.config.smoothness_weight)))
        self.compatibility = nn.Parameter(1 - torch.eye(num_classes))

    def forward(self, logits_NKHW: Tensor, image_NCHW: Tensor) -> Tensor:
        """(N, K, H, W) logits whose softmax is Q; the paper's last step, without its softmax, so that losses take them.

        Args:
            logits_NKHW: before softmax.
            image_NCHW: of the same size, 0..255, not normalised.

        Raises:
            DataError: the two do not fit, or the number of classes is another one.
        """
        check_pair(logits_NKHW, image_NCHW)
        if logits_NKHW.shape[1] != self.num_classes:
            raise ConfigError(f"CrfLayer: is built for {self.num_classes} classes, got {logits_NKHW.shape[1]}.")
        images = zip(logits_NKHW, image_NCHW.detach(), strict=True)
        return torch.stack(
            [self._refined(logits_KHW, self._lattice(image, logits_KHW)) for logits_KHW, image in images]
        )

    def _lattice(self, image_CHW: Tensor, logits_KHW: Tensor) -> BilateralFilter:
        with torch.no_grad():
            if logits_KHW.dtype == torch.float64:
                stds = self.config.position_std, self.config.colour_std
                return PlainLattice.of(image_CHW.to(logits_KHW.device), *stds, dtype=torch.float64)
            return lattice_of(image_CHW, self.config, logits_KHW.device, always=True)

    def _refined(self, logits_KHW: Tensor, lattice: BilateralFilter) -> Tensor:
        if logits_KHW.dtype != torch.float64:
            logits_KHW = logits_KHW.float()
        refined = logits_KHW
        for _ in range(self.iterations):
            q = refined.softmax(0)
            weighted = self.smoothness_weight[:, None, None] * smoothed(q, self.config.smoothness_std)
            near = _Filtered.apply(q.flatten(1).T, lattice).T.reshape(q.shape)
            weighted = weighted + self.bilateral_weight[:, None, None] * near
            refined = logits_KHW - torch.einsum("kl,lhw->khw", self.compatibility, weighted)
        return refined


class _Filtered(torch.autograd.Function):
    """F values; backward F^T."""

    @staticmethod
    def forward(ctx: Any, values_PK: Tensor, lattice: BilateralFilter) -> Tensor:
        ctx.lattice = lattice
        return lattice.filter(values_PK)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_PK: Tensor) -> tuple[Tensor, None]:
        return ctx.lattice.filter(gradient_PK, transposed=True), None
