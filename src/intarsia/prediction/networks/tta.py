"""Test-time augmentation: views of an image whose logits are brought back and averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from intarsia.ops.running_mean import Maps
from intarsia.prediction.config import PredictConfig


@dataclass(frozen=True)
class View:
    """Turned by `turns` times 90 degrees, then mirrored; the network sees it `scale` times as large."""

    turns: int = 0
    mirrored: tuple[int, ...] = ()
    """Axes of NCHW: 2 upside down, 3 left and right changed."""
    scale: float = 1.0

    def of(self, image_NCHW: Maps) -> Maps:
        """The image, an array or a tensor, as this view shows it."""
        return _mirrored(_turned(image_NCHW, self.turns), self.mirrored)

    def back(self, logits_NKHW: Maps) -> Maps:
        """Logits of the view as those of the image."""
        return _turned(_mirrored(logits_NKHW, self.mirrored), -self.turns)


def _turned(maps: Maps, turns: int) -> Maps:
    if not turns:
        return maps
    return np.rot90(maps, turns, (2, 3)) if isinstance(maps, np.ndarray) else maps.rot90(turns, (2, 3))


def _mirrored(maps: Maps, axes: tuple[int, ...]) -> Maps:
    if not axes:
        return maps
    return np.flip(maps, axes) if isinstance(maps, np.ndarray) else maps.flip(axes)


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
