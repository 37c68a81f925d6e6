"""Probabilities of logits in NumPy, for programs that import neither torch nor SciPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def softmax_of(logits: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """exp(x) / sum exp(x) over the classes on an axis, without overflow."""
    found: NDArray[np.float32] = np.exp(logits - logits.max(axis=axis, keepdims=True))
    found /= found.sum(axis=axis, keepdims=True)
    return found
