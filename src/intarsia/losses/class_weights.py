"""Weights of classes from how often they occur. Names that differ in the literature under one word are kept apart here.

| name | weight of class c | source |
|---|---|---|
| inverse | N / (K n_c), n_c pixels of c, N their sum, K classes: a pixel weighs 1 in the mean | |
| median_frequency | median(f) / f_c, f_c = n_c / pixels of images that hold c | Eigen & Fergus, arXiv:1411.4734 |
| median_frequency_global | median(n) / n_c: the same with all images in the denominator | as often implemented |
| enet | 1 / ln(1.02 + n_c / N) | Paszke et al., arXiv:1606.02147 |

A class that never occurs has weight 0 and no part in a median.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

Weighting = Literal["inverse", "median_frequency", "median_frequency_global", "enet"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)


def class_weights(how: Weighting, pixels: ArrayLike, image_pixels: ArrayLike) -> tuple[float, ...]:
    """One weight a class, rounded to six digits.

    >>> class_weights("inverse", [30, 10], [0, 0])
    (0.666667, 2.0)

    Args:
        how: a name of the table above.
        pixels: (K,) n_c, pixels of each class in the training set.
        image_pixels: (K,) pixels, ignored ones too, of the images that hold the class; for median_frequency alone.
    """
    count = np.asarray(pixels, np.float64)
    there = count > 0
    weights = np.zeros_like(count)
    if there.any():
        seen = count[there]
        if how == "inverse":
            weights[there] = seen.sum() / (len(count) * seen)
        elif how == "enet":
            weights[there] = 1 / np.log(1.02 + seen / seen.sum())
        else:
            frequency = seen / np.asarray(image_pixels, np.float64)[there] if how == "median_frequency" else seen
            weights[there] = np.median(frequency) / frequency
    return tuple(round(float(weight), 6) for weight in weights)
