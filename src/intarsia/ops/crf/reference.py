"""The dense CRF, exact and slow: every pair of pixels, NumPy float64. For tests and small images (memory grows with (H W)²).

Krähenbühl and Koltun, arXiv:1210.5644, equations 2 to 4 and algorithm 1, with features and symbols of DeepLab,
arXiv:1412.7062, equation 3:

    k1(i, j) = exp(-|p_i - p_j|² / (2 sigma_alpha²) - |I_i - I_j|² / (2 sigma_beta²))
    k2(i, j) = exp(-|p_i - p_j|² / (2 sigma_gamma²))

The paper's sum runs over j != i. The authors' code and pydensecrf, which wraps it, let a pixel see itself, and DeepLab's
weights were found with that; so does this by default. They normalise each kernel to D^-1/2 K D^-1/2, D the sums of its rows.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from intarsia.ops.crf.config import CrfConfig

Floats = NDArray[np.float64]
Normalisation = Literal["symmetric", "none"]
TINY = 1e-20
"""Added to sums of a kernel, as in pydensecrf."""


def exact_dense_crf(
    logits_KHW: NDArray[Any],
    image_CHW: NDArray[Any],
    config: CrfConfig,
    *,
    normalisation: Normalisation = "symmetric",
    sees_itself: bool = True,
) -> Floats:
    """(K, H, W) log Q after `config.iterations` steps.

    Args:
        logits_KHW: before softmax.
        image_CHW: 0..255.
        normalisation: of each kernel: D^-1/2 K D^-1/2, or none.
        sees_itself: count the pair (i, i), as pydensecrf does; the paper does not.
    """
    kernel_PP = exact_kernel(image_CHW, config, normalisation=normalisation, sees_itself=sees_itself)
    classes = len(logits_KHW)
    unary_KP = -_log_softmax(logits_KHW.reshape(classes, -1).astype(np.float64))
    if config.least_probability > 0:
        unary_KP = np.minimum(unary_KP, -np.log(config.least_probability))
    potts_KK = 1.0 - np.eye(classes)
    log_q_KP = _log_softmax(-unary_KP)
    for _ in range(config.iterations):
        message_KP = np.exp(log_q_KP) @ kernel_PP.T
        log_q_KP = _log_softmax(-unary_KP - potts_KK @ message_KP)
    return log_q_KP.reshape(logits_KHW.shape)


def exact_kernel(
    image_CHW: NDArray[Any],
    config: CrfConfig,
    *,
    normalisation: Normalisation = "symmetric",
    sees_itself: bool = True,
) -> Floats:
    """(P, P) w1 k1 + w2 k2 over all pairs of pixels, each normalised; arguments as of `exact_dense_crf`."""
    channels, height, width = image_CHW.shape
    places_P2 = np.argwhere(np.ones((height, width), bool)).astype(np.float64)
    colours_PC = image_CHW.reshape(channels, -1).T.astype(np.float64)
    near, alike = _squares(places_P2), _squares(colours_PC)
    kernels = (
        (config.bilateral_weight, near / config.position_std**2 + alike / config.colour_std**2),
        (config.smoothness_weight, near / config.smoothness_std**2),
    )
    total_PP = np.zeros_like(near)
    for weight, squares_PP in kernels:
        kernel_PP = np.exp(-0.5 * squares_PP)
        if not sees_itself:
            np.fill_diagonal(kernel_PP, 0)
        if normalisation == "symmetric":
            root_P = 1 / np.sqrt(kernel_PP.sum(1) + TINY)
            kernel_PP *= root_P[:, None] * root_P
        total_PP += weight * kernel_PP
    return total_PP


def _squares(points_PD: Floats) -> Floats:
    """Squared distances of all pairs."""
    squares: Floats = ((points_PD[:, None] - points_PD[None]) ** 2).sum(-1)
    return squares


def _log_softmax(z_KP: Floats) -> Floats:
    z_KP = z_KP - z_KP.max(0)
    log_softmax: Floats = z_KP - np.log(np.exp(z_KP).sum(0))
    return log_softmax
