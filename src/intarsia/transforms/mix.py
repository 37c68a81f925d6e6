"""Samples made of several: image, mask and weights are pasted alike, so every pixel keeps the label that it was seen with.

| mix | what is pasted | after |
|---|---|---|
| `cutmix` | a rectangle of another sample, with 1 - lambda of the area, lambda ~ Beta(1, 1) | Yun et al., arXiv:1905.04899 |
| `mosaic` | a quarter of each of four samples, which meet at a drawn point | Bochkovskiy et al. (YOLOv4), arXiv:2004.10934 |
| `copy_paste` | all pixels of one rare class of another sample | Ghiasi et al., arXiv:2012.07177 |

Differs from the papers: the rectangle of CutMix lies wholly inside, so that its area is as drawn (the released code cuts what
hangs over), and labels are pasted by pixel instead of mixed by area. Mosaic's point lies in the middle half of both sides, and
the quarters keep their place. Copy-paste takes pixels of a class, not instances; scale is jittered by each sample's own
augmentation, edges are not blended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from intarsia.transforms.sample import Sample

Box = tuple[slice, slice]


def draw_box(size: tuple[int, int], rng: np.random.Generator) -> Box:
    """Rows and columns of a rectangle of the size's own shape, with 1 - lambda of its area, anywhere inside."""
    side = math.sqrt(1 - rng.beta(1.0, 1.0))
    parts = [round(length * side) for length in size]
    starts = [int(rng.integers(length - part + 1)) for length, part in zip(size, parts, strict=True)]
    rows, columns = (slice(start, start + part) for start, part in zip(starts, parts, strict=True))
    return rows, columns


def cutmix(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """The sample with a rectangle of the other, at the same place."""
    height, width = sample.mask.shape
    return _pasted(sample, [(other, draw_box((height, width), rng))])


def mosaic(samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """Four samples, each with its own quarter: above left, above right, below left, below right of a drawn point."""
    row, column = (int(rng.integers(side // 4, side - side // 4 + 1)) for side in samples[0].mask.shape)
    above, below, left, right = slice(None, row), slice(row, None), slice(None, column), slice(column, None)
    quarters = [(above, right), (below, left), (below, right)]
    return _pasted(samples[0], list(zip(samples[1:], quarters, strict=True)))


def copy_paste(sample: Sample, other: Sample, rare: Sequence[int], rng: np.random.Generator) -> Sample:
    """The sample with all pixels of one rare class of the other, drawn among those it shows; as it is if there is none."""
    shown = np.intersect1d(other.mask.cpu().numpy(), np.asarray(rare, np.uint8))
    if not len(shown):
        return sample
    taken = other.mask == int(rng.choice(shown))
    weights = None
    if sample.weights is not None and other.weights is not None:
        weights = torch.where(taken, other.weights, sample.weights)
    return Sample(torch.where(taken, other.image, sample.image), torch.where(taken, other.mask, sample.mask), weights)


def _pasted(sample: Sample, parts: Sequence[tuple[Sample, Box]]) -> Sample:
    image, mask = sample.image.clone(), sample.mask.clone()
    weights = None if sample.weights is None else sample.weights.clone()
    for other, (rows, columns) in parts:
        image[:, rows, columns] = other.image[:, rows, columns]
        mask[rows, columns] = other.mask[rows, columns]
        if weights is not None and other.weights is not None:
            weights[rows, columns] = other.weights[rows, columns]
    return Sample(image, mask, weights)
