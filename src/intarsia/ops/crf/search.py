"""The CRF's settings found on validation images: DeepLab's grid, coarse and then fine.

arXiv:1412.7062, section 5.1: w2 = 3 and sigma_gamma = 3 fixed; w1 in [5, 10], sigma_alpha in [50 : 10 : 100], sigma_beta in
[3 : 1 : 10] on 100 validation images, then smaller steps around the first round's best. arXiv:1606.00915, section 4.1.2: w1 in
[3 : 6], sigma_alpha in [30 : 10 : 100], sigma_beta in [3 : 6].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from intarsia.classes import IGNORE
from intarsia.errors import ConfigError, DataError
from intarsia.ops.class_map import class_map
from intarsia.ops.crf.config import CRFS, CrfConfig
from intarsia.ops.crf.dense import AnyLattice, check_pair, lattice_of, refined
from intarsia.progress import Progress, Silent

Triple: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Logits (K, H, W), the image (C, H, W) 0..255, and the mask (H, W), 255 ignored."""
Point: TypeAlias = tuple[float, float, float]
"""w1, sigma_alpha, sigma_beta."""


@dataclass(frozen=True)
class CrfGrid:
    """Where to look; the default is DeepLab v2's. After it, each round halves the steps around the best point."""

    bilateral_weights: Sequence[float] = (3, 4, 5, 6)
    position_stds: Sequence[float] = tuple(range(30, 101, 10))
    colour_stds: Sequence[float] = (3, 4, 5, 6)
    rounds: int = 1
    """Rounds with halved steps."""

    def points(self) -> list[Point]:
        """All of the first round; w1 runs fastest, since it needs no other lattice."""
        axes = self.position_stds, self.colour_stds, self.bilateral_weights
        return [(w, a, b) for a, b, w in itertools.product(*axes)]

    def around(self, best: Point, share: float) -> list[Point]:
        """The best point and those one step, times `share`, beside it; all above 0."""
        steps = [share * _step(axis) for axis in (self.bilateral_weights, self.position_stds, self.colour_stds)]
        w, a, b = (
            [x + sign * step for sign in (-1, 0, 1) if x + sign * step > 0] for x, step in zip(best, steps, strict=True)
        )
        return list(dict.fromkeys((w_, a_, b_) for a_, b_, w_ in itertools.product(a, b, w)))


V1 = CrfGrid((5, 6, 7, 8, 9, 10), tuple(range(50, 101, 10)), tuple(range(3, 11)))
"""DeepLab v1's."""
V2 = CrfGrid()
"""DeepLab v2's."""


@dataclass(frozen=True)
class Tried:
    """Settings and their mean IoU; without settings, that of the network alone."""

    config: CrfConfig | None
    mean_iou: float


@dataclass
class _Counts:
    """Confusion counts (K, K), truth by prediction, of each point."""

    by_point: dict[Point | None, Tensor] = field(default_factory=dict)

    def add(self, point: Point | None, log_q_KHW: Tensor, mask_HW: Tensor) -> None:
        k = len(log_q_KHW)
        kept = mask_HW != IGNORE
        found = class_map(log_q_KHW.unsqueeze(0))[0]
        codes = mask_HW[kept].long() * k + found[kept].long()
        counts = torch.bincount(codes, minlength=k * k).reshape(k, k).cpu()
        self.by_point[point] = self.by_point.get(point, torch.zeros_like(counts)) + counts


def search_crf(
    pairs: Sequence[Triple] | Callable[[], Iterable[Triple]],
    config: CrfConfig | str | Mapping[str, Any] = "deeplab",
    *,
    grid: CrfGrid = V2,
    progress: Progress | None = None,
) -> tuple[CrfConfig, list[Tried]]:
    """The settings with the best mean IoU, over all pixels of all images, and all that were tried, in their order.

    The first row of the table is the network without a CRF. Of equals the earlier one is taken. Images are gone through once a
    round, and only counts are kept.

    Args:
        pairs: of the validation set, never of the test set; a sequence, or a function that gives a fresh iterator.
        config: everything that is not searched: w2, sigma_gamma and iterations; the papers' w2 = 3, sigma_gamma = 3 by default.
        grid: where to look.

    Raises:
        DataError: there is no image, or no pixel with truth.
    """
    settings, progress = CRFS.resolve(config), progress or Silent()
    tried: dict[Point | None, float] = {}
    for number in range(grid.rounds + 1):
        points: list[Point | None] = (
            list(grid.points()) if number == 0 else list(grid.around(_best(tried), 0.5**number))
        )
        points = [point for point in ([None, *points] if number == 0 else points) if point not in tried]
        if number == 0 and len(points) == 1:
            raise ConfigError("crf search: the grid has no points; give at least one value of each setting.")
        tried.update(_scores(pairs, settings, points, progress))
    best = _best(tried)
    return _at(settings, best), [
        Tried(None if point is None else _at(settings, point), iou) for point, iou in tried.items()
    ]


def mean_iou(counts_KK: Tensor) -> float:
    """Mean over classes of TP / (TP + FP + FN); classes that neither the masks nor the predictions have are left out."""
    counts = counts_KK.double()
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    there = union > 0
    return float((counts.diag()[there] / union[there]).mean())


def _scores(
    pairs: Sequence[Triple] | Callable[[], Iterable[Triple]],
    settings: CrfConfig,
    points: list[Point | None],
    progress: Progress,
) -> dict[Point | None, float]:
    """Mean IoU of each point, in one pass over the images."""
    counts = _Counts()
    total = len(pairs) if isinstance(pairs, Sequence) else 0
    with progress.task(f"crf search: {len(points)} settings", total) as task:
        for number, (logits_KHW, image_CHW, mask_HW) in enumerate(pairs() if callable(pairs) else pairs, 1):
            _check(logits_KHW, image_CHW, mask_HW)
            lattice: AnyLattice | None = None
            built: tuple[float, float] | None = None
            for point in points:
                if point is None:
                    counts.add(None, logits_KHW.float(), mask_HW)
                    continue
                here = _at(settings, point)
                if built != point[1:]:
                    lattice, built = lattice_of(image_CHW, here, logits_KHW.device, always=True), point[1:]
                counts.add(point, refined(logits_KHW, lattice, here), mask_HW)
            task.update(number)
    if not counts.by_point and points:
        raise DataError("crf search: there are no images; give the validation set.")
    if any(not int(each.sum()) for each in counts.by_point.values()):
        raise DataError("crf search: no pixel has a true class; give masks that are not all 255.")
    return {point: mean_iou(each) for point, each in counts.by_point.items()}


def _check(logits_KHW: Tensor, image_CHW: Tensor, mask_HW: Tensor) -> None:
    check_pair(logits_KHW.unsqueeze(0), image_CHW.unsqueeze(0))
    if mask_HW.shape != logits_KHW.shape[1:]:
        raise DataError(
            f"mask: is {tuple(mask_HW.shape)}, but the logits are {tuple(logits_KHW.shape[1:])}; they must be equal."
        )
    wrong = (mask_HW != IGNORE) & ((mask_HW < 0) | (mask_HW >= len(logits_KHW)))
    if bool(wrong.any()):
        raise DataError(
            f"mask: holds class {int(mask_HW[wrong].max())}, but the logits have {len(logits_KHW)} classes, counted from 0; "
            f"{IGNORE} is ignored."
        )


def _best(tried: Mapping[Point | None, float]) -> Point:
    return max((point for point in tried if point is not None), key=lambda point: tried[point])


def _at(settings: CrfConfig, point: Point) -> CrfConfig:
    weight, position, colour = point
    return settings.replace(bilateral_weight=weight, position_std=position, colour_std=colour)


def _step(axis: Sequence[float]) -> float:
    """The least distance of two values; 0 where there is one."""
    ordered = sorted(axis)
    return min((b - a for a, b in itertools.pairwise(ordered)), default=0.0)
