"""The confusion matrix: counts that add, over images, batches and processes."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.classes import IGNORE


def confusion(prediction: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """(K, K) int64: number of pixels of each true class (row) that were predicted as each class (column).

    Args:
        prediction: class numbers 0..K-1, any shape.
        mask: true class numbers, the same shape; 255 is not counted.
        num_classes: K.
    """
    counted = mask != IGNORE
    pairs = mask[counted].long() * num_classes + prediction[counted].long()
    return torch.bincount(pairs, minlength=num_classes * num_classes).reshape(num_classes, num_classes)
