"""Scores of membrane segmentation in electron microscopy: the ISBI 2012 challenge, in NumPy.

Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics", doi
10.3389/fnana.2015.00142, and its reference code, the metrics of Fiji's Trainable Segmentation, whose protocol this follows so
that numbers compare. 1 is the inside of a cell, 0 membrane. Not run against Fiji itself; tests hold a literal flooding.

T are the true regions, S the proposed ones, p_ij the share of pixels in S = i and T = j among the n pixels inside true
regions, s_i = sum_j p_ij, t_j = sum_i p_ij.

| score | definition |
|---|---|
| V_Rand | sum p_ij² / (a sum s_i² + (1 - a) sum t_j²), a = 1/2: the F-score of the two below |
| - split, a = 0 | sum p_ij² / sum t_j²: falls where a cell was cut |
| - merge, a = 1 | sum p_ij² / sum s_i²: falls where cells ran together |
| V_Info | I(S; T) / (a H(S) + (1 - a) H(T)), a = 1/2; I = H(S) + H(T) - H(S, T) |
| adapted Rand error | 1 - V_Rand of the connected parts as they are, without thinning |
| warping error | see `warp`: mismatches that no deformation removes / pixels (Jain et al. 2010) |
| pixel error | 1 - F-score of the pixels inside cells, pooled over the stack; 2 TP / (2 TP + FP + FN) |
| squared error | mean of (probability - truth)², without a threshold |

Protocol: a proposal is inside where probability > t, for t = 0, 0.1, ..., 1, added up as the reference does, so that the last
is 0.9999999999999999 and a sure pixel stays inside. True regions are the 4-connected parts of truth 1; pixels of truth 0 are
dropped. The proposal is thinned (`thin`) and its regions are compared; a pixel of a membrane line that lies in a true region
is a region of its own, and sums are divided by n², not n (n - 1) / 2. Scores are per slice, then a mean over slices, and the
best threshold is that of the whole stack.

Where this differs from the reference: 255 is ignored, which the reference does not know. A slice without true regions has no
score, and one with a single true region no V_Info (I = 0 whatever is proposed; Fiji says 0): NaN, and left out of the mean.
scikit-image's `adapted_rand_error` counts pairs, makes line pixels one region, and neither thins nor looks for a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE
from intarsia.errors import ConfigError, DataError
from intarsia.metrics.instances import contingency, same_shape, sums_by
from intarsia.metrics.plain import plain
from intarsia.ops.objects import parts_of

THRESHOLDS = tuple(accumulate([0.0] + [0.1] * 10))
"""0 to 1 by 0.1, with the rounding of a running sum."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class RegionOverlap:
    """Sums over the n pixels of true regions, from which V_Rand and V_Info follow."""

    pixels: int
    """n"""
    both: int
    """n² sum p_ij²"""
    proposal: int
    """n² sum s_i²"""
    truth: int
    """n² sum t_j²"""
    log_both: float
    """sum of c log c over n_ij, so that H(S, T) = log n - log_both / n"""
    log_proposal: float
    log_truth: float

    @property
    def v_rand(self) -> float:
        """2 sum p² / (sum s² + sum t²); NaN without a true region."""
        return 2 * self.both / (self.proposal + self.truth) if self.pixels else math.nan

    @property
    def adapted_rand_error(self) -> float:
        """1 - V_Rand."""
        return 1 - self.v_rand

    @property
    def v_rand_split(self) -> float:
        """sum p² / sum t²: 1 where no true region was cut."""
        return self.both / self.truth if self.pixels else math.nan

    @property
    def v_rand_merge(self) -> float:
        """sum p² / sum s²: 1 where no true regions ran together."""
        return self.both / self.proposal if self.pixels else math.nan

    @property
    def v_info(self) -> float:
        """2 I(S; T) / (H(S) + H(T)); NaN with less than two true regions, 0 if the proposal is one region."""
        if self.truth == self.pixels**2:
            return math.nan
        if self.proposal == self.pixels**2:
            return 0.0
        own = [math.log(self.pixels) - part / self.pixels for part in (self.log_proposal, self.log_truth)]
        together = math.log(self.pixels) - self.log_both / self.pixels
        return min(1.0, max(0.0, 2 * (sum(own) - together) / sum(own)))


def region_overlap(truth_regions: NDArray[Any], proposal_regions: NDArray[Any]) -> RegionOverlap:
    """Compare two sets of regions, numbers from 1 on. Truth 0 is dropped; each proposal 0 in a true region is a region."""
    same_shape(truth_regions, proposal_regions, "proposal")
    inside = truth_regions != 0
    row, column, cells = contingency(truth_regions[inside], proposal_regions[inside])
    line = column == 0
    singles = int(cells[line].sum())
    both, proposal, truth = cells[~line], sums_by(column[~line], cells[~line])[1], sums_by(row, cells)[1]
    return RegionOverlap(
        pixels=int(cells.sum()),
        both=int(both @ both) + singles,
        proposal=int(proposal @ proposal) + singles,
        truth=int(truth @ truth),
        log_both=_logs(both),  # 1 log 1 = 0: singles add nothing
        log_proposal=_logs(proposal),
        log_truth=_logs(truth),
    )


def thin(inside_HW: Mask) -> NDArray[np.int32]:
    """(H, W) regions 1..n grown from the 4-connected parts until only lines of 1 pixel, 0, part them.

    The watershed by flooding of Soille and Vincent (1990) of the binary image in which membrane is high, 4-connected. From
    the parts, water rises over the membrane one pixel at a time: a pixel takes the region of its neighbours, or becomes a
    line if they are of two regions, or if all it has are lines. A proposal without any inside is one region.

    Where two floods meet on a membrane of even width, the pixel that is flooded first takes its region and the other becomes
    the line. Order: first come, first served; the first pixels come column by column, each from the top, and a pixel calls
    its neighbours left, above, right, below. This is the order of the reference, and hence a line of even membrane may move
    by a pixel when the image is mirrored or transposed. A distance is flooded in one step here; within it, the order is
    settled by repeating until nothing changes, which gives what pixel by pixel gives.
    """
    seeds = parts_of(inside_HW, 4).T
    if not seeds.any():
        return np.ones(inside_HW.shape, np.int32)
    grid = np.full((seeds.shape[0] + 2, seeds.shape[1] + 2), -2, np.int32)  # -2 outside the image, -1 not yet flooded
    grid[1:-1, 1:-1] = np.where(seeds > 0, seeds, -1)
    regions, around = grid.ravel(), np.array([-grid.shape[1], -1, grid.shape[1], 1])
    place = np.full(regions.size, -1, np.int64)  # in the present queue
    dry = np.flatnonzero(regions == -1)
    queue = dry[(regions[dry[:, None] + around] > 0).any(axis=1)]
    while queue.size:
        beside = queue[:, None] + around
        turn = np.arange(queue.size)
        place[queue] = turn
        at = place[beside]
        place[queue] = -1
        regions[queue] = _flooded(regions[beside], np.where(at < turn[:, None], at, -1))
        called = beside.ravel()
        called = called[regions[called] == -1]
        first = np.arange(called.size)
        place[called[::-1]] = first[::-1]  # the last to write is the first that called
        queue = called[place[called] == first]
        place[called] = -1
    return np.ascontiguousarray(grid[1:-1, 1:-1].T)


def warp(truth_HW: Mask, proposal_HW: Floats, threshold: float, counted_HW: Mask | None = None) -> Mask:
    """The truth, deformed towards the proposal as far as its topology allows (Jain et al. 2010).

    Pixels where the truth differs from proposal > threshold are flipped one at a time, those with the largest
    |proposal - threshold| first, equal ones column by column, if they are simple: a flip that changes neither the number of
    4-connected parts inside nor that of 8-connected parts outside. This is repeated until no pixel flips. Around the image
    is membrane. Another order may leave other mismatches. As only pixels that differ flip, a line moves by its width at most.

    A pixel is simple if the neighbours inside, x_0..x_7 around it from the one above, have a 4-connectivity number (Yokoi et
    al. 1975) of sum over sides k of x_k - x_k x_(k+1) x_(k+2) = 1.

    Args:
        truth_HW: True inside.
        proposal_HW: probability of inside.
        threshold: t.
        counted_HW: pixels that may flip; all if None.
    """
    wide = truth_HW.shape[0] + 2
    grid = np.pad(np.ascontiguousarray(truth_HW.T), 1)
    # above, then clockwise, in the transposed grid
    ring = (-1, wide - 1, wide, wide + 1, 1, 1 - wide, -wide, -wide - 1)
    code = np.zeros(grid.size, np.int64)
    places = np.arange(grid.size).reshape(grid.shape)[1:-1, 1:-1].ravel()
    for bit, step in enumerate(ring):
        code[places] |= grid.ravel()[places + step].astype(np.int64) << bit
    wrong = (truth_HW != (proposal_HW > threshold)) & (True if counted_HW is None else counted_HW)
    far = np.abs(proposal_HW - threshold).astype(np.float32).T[wrong.T]
    waiting = places[wrong.T.ravel()][np.argsort(-far, kind="stable")].tolist()
    codes, simple, flipped = code.tolist(), _simple(), []
    opposite = [(step, 1 << (bit + 4) % 8) for bit, step in enumerate(ring)]
    while waiting:
        left = []
        for pixel in waiting:
            if simple[codes[pixel]]:
                flipped.append(pixel)
                for step, bit in opposite:
                    codes[pixel + step] ^= bit
            else:
                left.append(pixel)
        if len(left) == len(waiting):
            break
        waiting = left
    grid.ravel()[flipped] ^= True
    return np.ascontiguousarray(grid[1:-1, 1:-1].T)


def warping_error(truth_HW: Mask, proposal_HW: Floats, threshold: float, counted_HW: Mask | None = None) -> float:
    """Share of counted pixels in which the warped truth differs from proposal > threshold; NaN if none is counted."""
    counted = np.ones(truth_HW.shape, np.bool_) if counted_HW is None else counted_HW
    wrong = warp(truth_HW, proposal_HW, threshold, counted) != (proposal_HW > threshold)
    return float(wrong[counted].mean()) if counted.any() else math.nan


@dataclass(frozen=True)
class EmCounts:
    """What is kept of D slices at T thresholds: `a + b` sets slices side by side; then `scores`."""

    thresholds: tuple[float, ...]
    slices: Floats
    """(4, T, D) V_Rand, V_Info, Rand error without thinning, warping error."""
    pixels: NDArray[np.int64]
    """(T, 3) TP, FP, FN of the pixels inside cells."""
    squared_error: float
    """Sum over pixels."""
    counted: int

    def __add__(self, other: EmCounts) -> EmCounts:
        if self.thresholds != other.thresholds:
            raise ConfigError(f"thresholds differ: {self.thresholds} and {other.thresholds}. Use the same ones.")
        return EmCounts(
            self.thresholds,
            np.concatenate([self.slices, other.slices], axis=2),
            self.pixels + other.pixels,
            self.squared_error + other.squared_error,
            self.counted + other.counted,
        )

    def scores(self) -> EmScores:
        """Means over slices, at the threshold that is best for the whole stack."""
        v_rand, v_info, rand_error, warping = (_slice_means(part) for part in self.slices)
        right, added, missed = self.pixels.T.astype(np.float64)
        with np.errstate(invalid="ignore"):
            pixel_error = 1 - 2 * right / (2 * right + added + missed)
        return EmScores(
            v_rand=float(v_rand[_best(-v_rand)]),
            v_info=float(v_info[_best(-v_info)]),
            adapted_rand_error=float(rand_error[_best(rand_error)]),
            warping_error=float(warping[_best(warping)]),
            pixel_error=float(pixel_error[_best(pixel_error)]),
            squared_error=self.squared_error / self.counted if self.counted else math.nan,
            v_rand_threshold=self._threshold(-v_rand),
            v_info_threshold=self._threshold(-v_info),
            v_rand_at=tuple(v_rand.tolist()),
            v_info_at=tuple(v_info.tolist()),
            slices=int(np.count_nonzero(~np.isnan(self.slices[0]).all(axis=0))),
        )

    def _threshold(self, errors: Floats) -> float:
        at = _best(errors)
        return math.nan if np.isnan(errors[at]) else round(self.thresholds[at], 9)


@dataclass(frozen=True)
class EmScores:
    """Scores of a stack, each at its own best threshold; NaN where there is no score."""

    v_rand: float
    """Thinned, the first of the challenge's two."""
    v_info: float
    """Thinned."""
    adapted_rand_error: float
    """1 - F, without thinning. This and the next two are the challenge's old scores, which depend on the membrane's width."""
    warping_error: float
    pixel_error: float
    squared_error: float
    v_rand_threshold: float
    v_info_threshold: float
    v_rand_at: tuple[float, ...]
    """At each threshold."""
    v_info_at: tuple[float, ...]
    slices: int
    """With a true region."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; null where there is no score."""
        return {name: plain(value) for name, value in asdict(self).items()}


def em_counts(
    probability_HW: NDArray[Any],
    truth_HW: NDArray[Any],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    warping: bool = True,
) -> EmCounts:
    """One slice at all thresholds.

    Args:
        probability_HW: of the inside of a cell, 0 to 1; a binary proposal is one of 0 and 1.
        truth_HW: 1 inside, 0 membrane, 255 ignored: not counted, in no true region, and left as it is by warping. Where a
            class table has membrane as 1, exchange 0 and 1, and give 1 - probability.
        thresholds: proposals are inside above them; (0.0,) for a binary proposal.
        warping: False leaves the warping error out (NaN).
    """
    probability, counted, inside = _checked(probability_HW, truth_HW)
    truth = parts_of(inside, 4)
    rows: list[tuple[float, ...]] = []
    pixels: list[list[int]] = []
    before, same = np.zeros(0, np.bool_), (math.nan, math.nan, math.nan)
    for threshold in thresholds:
        proposal = probability > threshold
        if not np.array_equal(proposal, before):
            thinned = region_overlap(truth, thin(proposal))
            same = (thinned.v_rand, thinned.v_info, region_overlap(truth, parts_of(proposal, 4)).adapted_rand_error)
        before = proposal
        rows.append((*same, warping_error(inside, probability, threshold, counted) if warping else math.nan))
        cells = proposal & inside, proposal & ~inside & counted, ~proposal & inside
        pixels.append([int(np.count_nonzero(cell)) for cell in cells])
    scores_4TD = np.array(rows, np.float64).T[:, :, None]
    error = float(np.square(probability - inside)[counted].sum())
    return EmCounts(tuple(thresholds), scores_4TD, np.array(pixels, np.int64), error, int(np.count_nonzero(counted)))


def em_scores(
    probability_DHW: NDArray[Any],
    truth_DHW: NDArray[Any],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    warping: bool = True,
) -> EmScores:
    """A stack, each slice by itself, at the thresholds that are best for all; arguments as in `em_counts`."""
    if np.ndim(probability_DHW) != 3 or np.shape(probability_DHW) != np.shape(truth_DHW) or not len(truth_DHW):
        met = f"{np.shape(probability_DHW)} and {np.shape(truth_DHW)}"
        raise DataError(f"probability and truth must both be (slices, height, width), got {met}.")
    slices = zip(probability_DHW, truth_DHW, strict=True)
    first, *others = (em_counts(p, t, thresholds=thresholds, warping=warping) for p, t in slices)
    return sum(others, first).scores()


def _flooded(beside: NDArray[np.int32], earlier: NDArray[np.int64]) -> NDArray[np.int32]:
    """(N,) what pixels become by their (N, 4) neighbours; of those in the same queue, the ones with an earlier turn count."""
    result = _meeting(beside)
    later = np.flatnonzero((earlier >= 0).any(axis=1))
    beside, earlier = beside[later], earlier[later]
    while later.size:
        now = _meeting(np.where(earlier >= 0, result[earlier], beside))
        if np.array_equal(now, result[later]):
            break
        result[later] = now
    return result


def _meeting(beside: NDArray[np.int32]) -> NDArray[np.int32]:
    """The one region among the neighbours, or 0 for a line: two regions, or none."""
    most = beside.max(axis=1)
    least = np.where(beside > 0, beside, np.iinfo(np.int32).max).min(axis=1)
    return np.where(most == least, most, 0).astype(np.int32)


@cache
def _simple() -> tuple[bool, ...]:
    """For each neighbourhood, bit k being x_k: is its centre simple?"""
    bits = (np.arange(256)[:, None] >> np.arange(10) % 8) & 1
    sides = sum(bits[:, k] * (1 - bits[:, k + 1] * bits[:, k + 2]) for k in (0, 2, 4, 6))
    return tuple((sides == 1).tolist())


def _checked(probability: NDArray[Any], truth: NDArray[Any]) -> tuple[Floats, Mask, Mask]:
    """Probability, counted pixels, pixels inside."""
    probability, truth = np.asarray(probability), np.asarray(truth)
    same_shape(truth, probability, "probability")
    values = set(np.unique(truth).tolist())
    if truth.ndim != 2 or not values <= {0, 1, IGNORE} or values == {0, IGNORE}:
        met = f"{truth.shape} with {sorted(values)[:5]}"
        raise DataError(f"truth must be (height, width) of 1 inside, 0 membrane, {IGNORE} ignored, got {met}.")
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
        met = f"{probability.min()} to {probability.max()}"
        raise DataError(f"probability must be finite and in [0, 1], got {met}. Divide 8-bit values by 255.")
    return probability.astype(np.float64), truth != IGNORE, truth == 1


def _logs(sizes: NDArray[np.int64]) -> float:
    return float((sizes * np.log(sizes)).sum())


def _slice_means(values_TD: Floats) -> Floats:
    scored = ~np.isnan(values_TD).all(axis=0)
    return values_TD[:, scored].mean(axis=1) if scored.any() else np.full(len(values_TD), np.nan)


def _best(errors: Floats) -> int:
    """The first of the smallest; NaN is never best."""
    return int(np.argmin(np.where(np.isnan(errors), np.inf, errors)))
