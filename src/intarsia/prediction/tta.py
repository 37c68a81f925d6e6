"""Test-time augmentation: views of an image whose logits are brought back and averaged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.prediction.config import PredictConfig


@dataclass(frozen=True)
class View:
    """Turned by `turns` times 90 degrees, then mirrored; the network sees it `scale` times as large."""

    turns: int = 0
    mirrored: tuple[int, ...] = ()
    """Axes of NCHW: 2 upside down, 3 left and right changed."""
    scale: float = 1.0

    def of(self, image_NCHW: Tensor) -> Tensor:
        """The image as this view shows it."""
        turned = torch.rot90(image_NCHW, self.turns, (2, 3)) if self.turns else image_NCHW  # both copy in any case
        return torch.flip(turned, self.mirrored) if self.mirrored else turned

    def back(self, logits_NKHW: Tensor) -> Tensor:
        """Logits of the view as those of the image."""
        mirrored = torch.flip(logits_NKHW, self.mirrored) if self.mirrored else logits_NKHW
        return torch.rot90(mirrored, -self.turns, (2, 3)) if self.turns else mirrored


def views_of(config: PredictConfig) -> tuple[View, ...]:
    """Every view that the settings ask for, each once; the image as it is comes first."""
    flips: dict[str, tuple[tuple[int, ...], ...]] = {
        "none": ((),),
        "horizontal": ((), (3,)),
        "vertical": ((), (2,)),
        "both": ((), (3,), (2,), (2, 3)),
    }
    found: dict[tuple[int, bool, float], View] = {}
    for scale in dict.fromkeys(config.scales):
        for turns in range(4 if config.rotations else 1):
            for mirrored in flips[config.mirrors]:
                twice = mirrored == (2, 3)  # a turn by 180 degrees; (2,) is (3,) and such a turn
                turned = (turns + 2 * (twice or mirrored == (2,))) % 4
                found.setdefault((turned, len(mirrored) == 1, scale), View(turns, mirrored, scale))
    return tuple(found.values())
