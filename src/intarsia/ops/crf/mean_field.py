"""Mean-field inference of the dense CRF in plain torch, on any device.

Krähenbühl and Koltun, arXiv:1210.5644, algorithm 1: Q = softmax(log p), then in each iteration

    Q_i(k) = softmax_k( log p_i(k) + w1 [F_bilateral Q(k)]_i + w2 [F_smoothness Q(k)]_i )

Potts' compatibility [k != l] gives -(sum of all classes - the class itself); the sum of all is the same for every k and falls
out of the softmax, so the class itself is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from intarsia.errors import DataError
from intarsia.ops.crf.config import CrfConfig
from intarsia.ops.crf.gaussian import smoothed
from intarsia.ops.crf.lattice import BilateralFilter

NOT_NUMBERS = "logits: hold NaN, infinity or no finite class at a pixel; look at the network that gave them."


def log_probabilities(logits_KHW: Tensor, least: float) -> Tensor:
    """log max(softmax, least), float32 at least.

    Raises:
        DataError: a pixel has no softmax.
    """
    wide = logits_KHW if logits_KHW.dtype == torch.float64 else logits_KHW.float()
    if not bool(torch.isfinite(wide.logsumexp(0)).all()):
        raise DataError(NOT_NUMBERS)
    log_p = wide.log_softmax(0)
    return log_p.clamp(min=math.log(least)) if least > 0 else log_p


def mean_field(logits_KHW: Tensor, lattice: BilateralFilter | None, config: CrfConfig) -> Tensor:
    """(K, H, W) log Q after `config.iterations` steps.

    Args:
        lattice: of the image; None where bilateral_weight is 0.
    """
    log_p = log_probabilities(logits_KHW, config.least_probability)
    log_q = log_p.log_softmax(0)
    filters: list[tuple[float, Callable[[Tensor], Tensor]]] = []
    if lattice is not None and config.bilateral_weight:
        filters.append((config.bilateral_weight, lambda q: by_lattice(lattice, q)))
    if config.smoothness_weight:
        filters.append((config.smoothness_weight, lambda q: smoothed(q, config.smoothness_std)))
    for _ in range(config.iterations):
        q = log_q.exp()
        log_q = (log_p + sum(weight * kernel(q) for weight, kernel in filters)).log_softmax(0)
    return log_q


def by_lattice(lattice: BilateralFilter, map_KHW: Tensor) -> Tensor:
    """F_bilateral of each map."""
    return lattice.filter(map_KHW.flatten(1).T).T.reshape(map_KHW.shape)
