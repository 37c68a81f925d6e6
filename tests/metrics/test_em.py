"""Scores of membranes against values worked out by hand, slow definitions and scikit-image."""

import math
from collections import deque

import numpy as np
import pytest
from scipy import ndimage

from intarsia.errors import ConfigError, DataError
from intarsia.metrics.em import (
    THRESHOLDS,
    RegionOverlap,
    em_counts,
    em_scores,
    region_overlap,
    thin,
    warp,
    warping_error,
)
from intarsia.metrics.em import _simple as simple_neighbourhoods
from intarsia.ops.objects import parts_of

SIDES = ((-1, 0), (0, -1), (0, 1), (1, 0))


def cells(height=8, widths=(8, 8), membrane=1):
    """Cells side by side, 1, with membranes of the given width between them."""
    parts = []
    for width in widths:
        parts += [np.ones((height, width), np.uint8), np.zeros((height, membrane), np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def slow_thin(inside):
    """The flooding as it is described, one pixel at a time, first in first out."""
    height, width = inside.shape
    labels, queue = parts_of(inside, 4) - (~inside).astype(int), deque()
    if not inside.any():
        return np.ones(inside.shape, int)

    def beside(row, column):
        for down, right in ((0, -1), (-1, 0), (0, 1), (1, 0)):
            if 0 <= row + down < height and 0 <= column + right < width:
                yield row + down, column + right

    queued = np.zeros(inside.shape, bool)
    for column in range(width):
        for row in range(height):
            if not inside[row, column] and any(labels[near] > 0 for near in beside(row, column)):
                queue.append((row, column))
                queued[row, column] = True
    while queue:
        pixel = queue.popleft()
        regions = {labels[near] for near in beside(*pixel) if labels[near] > 0}
        labels[pixel] = regions.pop() if len(regions) == 1 else 0
        for near in beside(*pixel):
            if labels[near] == -1 and not queued[near]:
                queue.append(near)
                queued[near] = True
    return labels


def slow_scores(truth, proposal):
    """V_Rand and V_Info from p_ij, each proposal 0 being a region of its own."""
    proposal = proposal.astype(int).copy()
    line = proposal == 0
    proposal[line] = proposal.max() + 1 + np.arange(line.sum())
    kept = truth > 0
    pairs = list(zip(truth[kept].tolist(), proposal[kept].tolist(), strict=True))
    p, s, t = {}, {}, {}
    for i, j in pairs:
        for table, key in ((p, (i, j)), (t, i), (s, j)):
            table[key] = table.get(key, 0) + 1 / len(pairs)
    square = [sum(value**2 for value in table.values()) for table in (p, s, t)]
    entropy = [-sum(value * math.log(value) for value in table.values()) for table in (p, s, t)]
    return 2 * square[0] / (square[1] + square[2]), 2 * (entropy[1] + entropy[2] - entropy[0]) / (
        entropy[1] + entropy[2]
    )


def cell_tissue(seed, size=40, count=8):
    """Voronoi cells with membranes, and a noisy probability."""
    rng = np.random.default_rng(seed)
    points = rng.random((count, 2)) * size
    row, column = np.mgrid[:size, :size]
    distance = np.sort(np.hypot(row[..., None] - points[:, 0], column[..., None] - points[:, 1]), axis=2)
    gap = distance[..., 1] - distance[..., 0]
    noise = ndimage.gaussian_filter(rng.normal(size=(size, size)), 1.5) * 4
    return (gap > 3).astype(np.uint8), 1 / (1 + np.exp(3 - gap - noise))


def rand_and_info(truth, inside):
    overlap = region_overlap(parts_of(truth == 1, 4), thin(inside))
    return overlap.v_rand, overlap.v_info


def test_perfect():
    truth = cells()
    scores = em_scores(truth[None].astype(float), truth[None])
    assert (scores.v_rand, scores.v_info, scores.slices) == (1, 1, 1)
    assert (scores.adapted_rand_error, scores.warping_error, scores.pixel_error, scores.squared_error) == (0, 0, 0, 0)
    assert scores.v_rand_threshold == 0  # the first of equal ones
    assert scores.v_rand_at == (1,) * 11  # a sure pixel is above the last threshold too


def test_one_split_by_hand():
    truth = np.ones((4, 9), np.uint8)
    proposal = truth.copy()
    proposal[:, 4] = 0  # 16 pixels, a line of 4, 16 pixels; n = 36
    overlap = region_overlap(parts_of(truth, 4), thin(proposal == 1))
    # sum p² = sum s² = (256 + 256 + 4) / 36², each pixel of the line alone; sum t² = 1.
    assert overlap.v_rand == pytest.approx(2 * 516 / (516 + 1296))
    assert overlap.v_rand_split == pytest.approx(516 / 1296)
    assert overlap.v_rand_merge == 1
    assert overlap.adapted_rand_error == pytest.approx(1 - 2 * 516 / (516 + 1296))
    assert math.isnan(overlap.v_info)  # one true region


def test_one_merge_by_hand():
    truth = cells(4, (4, 4))  # 16 and 16 pixels; n = 32
    overlap = region_overlap(parts_of(truth, 4), thin(np.ones(truth.shape, bool)))
    # sum p² = 2 / 4, sum s² = 1, sum t² = 1 / 2.
    assert overlap.v_rand == pytest.approx(2 / 3)
    assert (overlap.v_rand_split, overlap.v_rand_merge) == (1, 0.5)
    assert overlap.v_info == 0


def test_information_by_hand():
    truth = np.repeat([1, 2], 8)
    proposal = np.repeat([1, 2, 3], [8, 4, 4])
    # In bits H(T) = 1, H(S) = 1/2 + 2 * 2/4 = 1.5, I = 1 (T follows from S).
    assert region_overlap(truth, proposal).v_info == pytest.approx(2 / 2.5)
    proposal[-1] = 0  # 3 and 1 alone: H(S) = 1/2 + 2/4 + 3/16 log2(16/3) + 4/16
    entropy = 1.25 + 3 / 16 * math.log2(16 / 3)
    assert region_overlap(truth, proposal).v_info == pytest.approx(2 / (1 + entropy))


def test_one_missing_pixel_of_membrane_merges_two_cells():
    truth = cells(9, (8, 8))
    proposal = truth.copy()
    proposal[4, 8] = 1
    # 72 and 72 pixels of one region, as if there were no membrane: 2/3, where 1 pixel of 153 is wrong.
    assert rand_and_info(truth, proposal == 1) == (pytest.approx(2 / 3), 0)
    assert warping_error(truth == 1, proposal.astype(float), 0.5) == pytest.approx(1 / 153)


def test_thick_and_thin_membranes_score_alike():
    truth = cells(9, (8, 8, 8))
    thin_membrane = truth.astype(bool)
    thick = ndimage.binary_erosion(thin_membrane, np.ones((3, 3)), border_value=1)  # 3 wide
    thicker = ndimage.binary_erosion(thin_membrane, np.ones((5, 5)), border_value=1)
    for proposal in (thin_membrane, thick, thicker):
        assert rand_and_info(truth, proposal) == (1, 1)
    without = [region_overlap(parts_of(truth, 4), parts_of(part, 4)).v_rand for part in (thin_membrane, thick, thicker)]
    assert without[0] == 1 > without[1] > without[2]  # without thinning, width costs


def test_membrane_of_even_width_gives_a_line_of_one_pixel():
    even = cells(3, (4, 4), membrane=2).astype(bool)
    assert thin(even)[1].tolist() == [1] * 5 + [0] + [2] * 4  # the left one is flooded first
    assert thin(even.T)[:, 1].tolist() == [1] * 5 + [0] + [2] * 4


def test_all_inside_and_nothing_inside_are_one_region():
    truth = cells(4, (4, 4))
    for inside in (True, False):
        proposal = np.full(truth.shape, inside)
        assert (thin(proposal) == 1).all()
        assert rand_and_info(truth, proposal) == (pytest.approx(2 / 3), 0)


def test_slice_without_true_regions_has_no_score_and_leaves_the_mean_alone():
    truth, empty = cells(), np.zeros(cells().shape, np.uint8)
    alone = em_scores(truth[None].astype(float), empty[None])
    assert math.isnan(alone.v_rand)
    assert math.isnan(alone.v_rand_threshold)
    assert alone.slices == 0
    assert alone.to_dict()["v_rand"] is None
    assert alone.to_dict()["v_rand_at"] == [None] * 11
    both = em_scores(np.stack([truth, truth]).astype(float), np.stack([truth, empty]))
    assert (both.v_rand, both.v_info, both.slices) == (1, 1, 1)


@pytest.mark.parametrize("seed", range(40))
def test_thinning_equals_flooding_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    inside = rng.random(rng.integers(1, 22, 2)) < rng.choice([0.02, 0.1, 0.3, 0.6, 0.9])
    regions, slow = thin(inside), slow_thin(inside)
    assert np.array_equal(regions == 0, slow == 0)
    pairs = set(zip(regions.ravel().tolist(), slow.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(regions)) == len(np.unique(slow))


@pytest.mark.parametrize("seed", range(10))
def test_thinning_keeps_regions_and_parts_them(seed):
    inside = cell_tissue(seed)[1] > 0.5
    regions = thin(inside)
    assert np.array_equal(np.unique(regions[inside]), np.arange(1, parts_of(inside, 4).max() + 1))
    assert (regions[inside] > 0).all()
    for a, b in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1])):
        assert ((a == b) | (a == 0) | (b == 0)).all()


@pytest.mark.parametrize("seed", range(12))
def test_scores_equal_the_slow_definition(seed):
    rng = np.random.default_rng(seed)
    truth, proposal = rng.integers(0, 4, (9, 11)), rng.integers(0, 5, (9, 11))
    if seed % 2:
        proposal = np.where(rng.random(truth.shape) < 0.9, truth, proposal)
    overlap = region_overlap(truth, proposal)
    assert (overlap.v_rand, overlap.v_info) == pytest.approx(slow_scores(truth, proposal))


@pytest.mark.parametrize("seed", range(6))
def test_scores_do_not_depend_on_numbers_or_direction(seed):
    rng = np.random.default_rng(seed)
    truth, proposal = rng.integers(0, 4, (9, 11)), rng.integers(0, 5, (9, 11))
    scores = region_overlap(truth, proposal)
    others = [
        (np.array([0, 3, 1, 2])[truth], np.array([0, 9, 70_000, 2, 5])[proposal]),
        (truth.T, proposal.T),
        (truth[:, ::-1], proposal[:, ::-1]),
        (truth[::-1], proposal[::-1]),
    ]
    for other in others:
        found = region_overlap(*other)
        assert (found.v_rand, found.v_info) == pytest.approx((scores.v_rand, scores.v_info))
    assert 0 <= scores.v_info <= 1
    assert 0 <= scores.v_rand <= 1


@pytest.mark.parametrize("turn", [np.transpose, np.fliplr, np.flipud])
def test_thinned_scores_hardly_depend_on_direction(turn):
    truth, probability = cell_tissue(2, size=60)
    here = rand_and_info(truth, probability > 0.5)
    there = rand_and_info(turn(truth), turn(probability > 0.5))
    assert there == pytest.approx(here, abs=0.02)  # lines in even membranes move by a pixel
    odd = cells(9, (5, 7, 6), membrane=3)
    assert np.array_equal(thin(turn(odd) == 1) == 0, turn(thin(odd == 1) == 0))


def test_scores_equal_scikit_image_where_no_line_is():
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image, the other implementation, is not installed")
    rng = np.random.default_rng(0)
    for noise in (0.0, 0.1, 0.8):
        truth = np.kron(rng.integers(0, 5, (4, 4)), np.ones((5, 5), int))
        proposal = np.where(rng.random(truth.shape) < noise, rng.integers(1, 5, truth.shape), truth + 1)
        overlap = region_overlap(truth, proposal)
        # scikit-image counts pairs of different pixels: n is taken from each sum.
        n = overlap.pixels
        error, precision, recall = metrics.adapted_rand_error(truth, proposal, ignore_labels=(0,))
        assert error == pytest.approx(1 - 2 * (overlap.both - n) / (overlap.proposal + overlap.truth - 2 * n))
        assert precision == pytest.approx((overlap.both - n) / (overlap.truth - n))  # the two names are exchanged there
        assert recall == pytest.approx((overlap.both - n) / (overlap.proposal - n))
        split, merge = metrics.variation_of_information(truth, proposal, ignore_labels=(0,))
        own, proposed = (math.log2(n) - part / n / math.log(2) for part in (overlap.log_truth, overlap.log_proposal))
        assert overlap.v_info == pytest.approx((own + proposed - split - merge) / (own + proposed))


def parts_inside_and_outside(image):
    """4-connected parts inside, 8-connected parts outside, with membrane around the image."""
    padded = np.pad(image, 1)
    return ndimage.label(padded)[1], ndimage.label(~padded, np.ones((3, 3)))[1]


def test_simple_points_are_those_that_keep_the_number_of_parts():
    around = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))  # from above, clockwise
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    for code, simple in enumerate(simple_neighbourhoods()):
        near = np.zeros((3, 3), bool)
        for bit, place in enumerate(around):
            near[place] = code >> bit & 1
        # By definition: one 4-connected part of the neighbours inside touches by a side, one 8-connected part is outside.
        inside, _ = ndimage.label(near)
        sides = {inside[1 + down, 1 + right] for down, right in SIDES} - {0}
        outside = ndimage.label(~near & ring, np.ones((3, 3)))[1]
        # Outside pixels that meet across the centre only by being next to it: the label of a ring, centre left out.
        assert simple == (len(sides) == 1 and outside == 1)


@pytest.mark.parametrize("seed", range(10))
def test_warping_keeps_the_topology_and_goes_as_far_as_it_can(seed):
    truth, probability = cell_tissue(seed, size=24)
    inside, proposal = truth == 1, probability > 0.4
    warped = warp(inside, probability, 0.4)
    assert parts_inside_and_outside(warped) == parts_inside_and_outside(inside)
    assert not (warped != proposal)[inside == proposal].any()  # right pixels stay right
    assert np.array_equal(warp(warped, probability, 0.4), warped)
    assert warping_error(inside, probability, 0.4) == (warped != proposal).mean()


def test_warping_equals_flipping_one_by_one():
    truth, probability = cell_tissue(5, size=20)
    moving, target = truth == 1, probability > 0.6
    slow, before = moving.copy(), None
    wrong = sorted(
        np.argwhere((moving != target).T).tolist(), key=lambda at: -np.float32(abs(probability[at[1], at[0]] - 0.6))
    )
    while before is None or not np.array_equal(slow, before):
        before = slow.copy()
        for column, row in wrong:
            if slow[row, column] != target[row, column]:
                parts = parts_inside_and_outside(slow)
                slow[row, column] ^= True
                near = np.pad(slow, 1)[row : row + 3, column : column + 3]
                code = sum(
                    int(near[at]) << bit
                    for bit, at in enumerate([(0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)])
                )
                if parts_inside_and_outside(slow) != parts or not simple_neighbourhoods()[code]:
                    slow[row, column] ^= True
    assert np.array_equal(warp(moving, probability, 0.6), slow)


def test_a_shifted_membrane_is_no_warping_error_and_a_hole_is_one():
    truth = np.ones((9, 20), bool)
    truth[:, 8] = False
    shifted = np.ones((9, 20))
    shifted[:, 9] = 0
    assert warping_error(truth, shifted, 0.5) == 0
    hole = truth.astype(float)
    hole[4, 15] = 0  # a speck of membrane: one pixel that no deformation makes
    assert warping_error(truth, hole, 0.5) == 1 / 180
    counted = np.ones(truth.shape, bool)
    counted[4, 15] = False
    assert warping_error(truth, hole, 0.5, counted) == 0


def test_the_threshold_is_that_of_the_whole_stack():
    truth = cells()
    low, high = np.where(truth == 1, 0.45, 0.05), np.where(truth == 1, 0.95, 0.35)
    both = em_scores(np.stack([low, high]), np.stack([truth, truth]))
    assert both.v_rand_threshold == 0.4  # the first at which 0.35 is membrane and 0.45 is not
    assert both.v_rand == 1
    assert em_scores(low[None], truth[None]).v_rand_threshold == 0.1
    only = [em_scores(part[None], truth[None]).v_rand_at for part in (low, high)]
    assert both.v_rand_at == pytest.approx(np.mean(only, axis=0))


def test_pixel_and_squared_error_by_hand():
    truth = np.array([[1, 1, 1, 0]], np.uint8)
    probability = np.array([[0.95, 0.95, 0.05, 0.55]])
    scores = em_scores(probability[None], truth[None])
    # t = 0: TP 3, FP 1: F = 6/7. t = .1 to .5: TP 2, FP 1, FN 1: 4/6. t = .6 to .9: TP 2, FN 1: 4/5.
    assert scores.pixel_error == pytest.approx(1 / 7)
    assert scores.squared_error == pytest.approx((0.05**2 * 2 + 0.95**2 + 0.55**2) / 4)


def test_ignored_pixels_count_nowhere():
    truth, probability = cell_tissue(1)
    ignored = truth.copy()
    ignored[:, 25:] = 255
    counts = em_counts(probability, ignored)
    changed = np.where(truth == 1, 1.0, 0.0)
    changed[:, 25:] = probability[:, 25:]
    scores = em_scores(changed[None], ignored[None], thresholds=(0.5,))
    assert (scores.pixel_error, scores.squared_error, scores.warping_error) == (0, 0, 0)
    assert counts.counted == 40 * 25
    assert (counts.pixels[:, [0, 2]].sum(axis=1) == (ignored == 1).sum()).all()


def test_counts_add_over_slices():
    stack = [cell_tissue(seed) for seed in range(3)]
    counts = [em_counts(probability, truth) for truth, probability in stack]
    truth, probability = (np.stack(part) for part in zip(*stack, strict=True))
    scores = (counts[0] + counts[1] + counts[2]).scores()
    assert scores == em_scores(probability, truth)
    for value in (scores.v_rand, scores.v_info, scores.adapted_rand_error, scores.warping_error, scores.pixel_error):
        assert 0 <= value <= 1
    with pytest.raises(ConfigError, match="thresholds differ"):
        counts[0] + em_counts(probability[0], truth[0], thresholds=(0.5,))
    assert math.isnan(em_scores(probability, truth, thresholds=(0.5,), warping=False).warping_error)


def test_thresholds_are_those_of_the_reference():
    assert len(THRESHOLDS) == 11
    assert THRESHOLDS[-1] < 1
    third = np.float32(0.3)  # above the double 0.3, as in the reference, which compares float pixels with doubles
    assert em_counts(np.full((2, 2), third), np.ones((2, 2), np.uint8)).pixels[3].tolist() == [4, 0, 0]


def test_what_cannot_be_scored_is_refused():
    truth = cells()
    with pytest.raises(DataError, match="Divide 8-bit values by 255"):
        em_counts(truth * 255, truth)
    with pytest.raises(DataError, match="must be finite"):
        em_counts(np.full(truth.shape, np.nan), truth)
    with pytest.raises(DataError, match="1 inside, 0 membrane"):
        em_counts(truth / 1, truth * 255)  # a mask of 0 and 255 is not one of ignored pixels
    with pytest.raises(DataError, match=r"must both be \(slices, height, width\)"):
        em_scores(truth / 1, truth)
    assert isinstance(region_overlap(truth, truth), RegionOverlap)
