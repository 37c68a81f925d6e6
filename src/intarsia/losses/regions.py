"""What losses of regions share: sums over the batch or each image, classes that take part, their mean."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from intarsia.losses.base import LossConfig, Pixels


class RegionConfig(LossConfig):
    """A cost of each class from its sums, then the mean over classes (and images)."""

    per_image: bool = False
    """Take the sums over each image and average, instead of over the batch."""
    background: bool = True
    """Whether class 0 takes part in the mean."""
    absent: Literal["count", "skip"] = "count"
    """A class without a pixel in the truth: count (predicting it costs) or skip (it takes no part in the mean)."""
    smooth: float = Field(1.0, gt=0)
    """s, added above and below the fraction; makes a class that neither is there nor is predicted a perfect one."""

    @property
    def regional(self) -> bool:
        return True

    def of(self, pixels: Pixels) -> Tensor:
        found = pixels.class_sums()
        parts = [found.intersection, found.probability, found.square if self.squares else None, found.truth]
        if not self.per_image:
            parts = [None if part is None else part.sum(0, keepdim=True) for part in parts]
        if not self.background and pixels.num_classes > 1:
            parts = [None if part is None else part[:, 1:] for part in parts]
        intersection, probability, square, truth = parts
        assert intersection is not None
        assert probability is not None
        assert truth is not None
        return self.mean(self.cost(intersection, probability if square is None else square, truth), truth)

    def cost(self, intersection: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
        """(G, K) costs from sum p t, sum p (sum p² where squares are asked for) and sum t."""
        raise NotImplementedError

    def mean(self, cost_GK: Tensor, truth_GK: Tensor) -> Tensor:
        """The mean over images and classes that take part; 0 if none does."""
        if self.absent == "count":
            return cost_GK.mean()
        present_GK = (truth_GK > 0).to(cost_GK.dtype)
        return (cost_GK * present_GK).sum() / present_GK.sum().clamp(min=1)
