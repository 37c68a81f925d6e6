"""Object scores against values worked out by hand, slow definitions and scikit-learn."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

from intarsia.errors import ConfigError, DataError
from intarsia.metrics import instances
from intarsia.metrics.instances import (
    THRESHOLDS,
    MatchCounts,
    match_classes,
    match_objects,
    mean_panoptic_quality,
    object_scores,
)
from intarsia.ops.objects import parts_of


def bars(*lengths):
    """One row a bar of the given length, numbered from 1."""
    rows = np.zeros((len(lengths), 20), np.int64)
    for number, length in enumerate(lengths, 1):
        rows[number - 1, :length] = number
    return rows


def random_case(seed, shape=(14, 17), objects=6, noise=0.2):
    """Blocks of objects, and the same with pixels given to other objects."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, objects, (4, 4)), np.ones((4, 5), np.int64))[: shape[0], : shape[1]]
    prediction = np.where(rng.random(shape) < noise, rng.integers(0, objects, shape), truth)
    return truth, prediction


def slow_counts(truth, prediction, threshold):
    """TP, FP, FN and the IoU of the matches by the definition: every pair, the best assignment."""
    own = [truth == number for number in np.unique(truth) if number]
    found = [prediction == number for number in np.unique(prediction) if number]
    iou = np.array([[(a & b).sum() / (a | b).sum() for b in found] for a in own]).reshape(len(own), len(found))
    pairs = [
        (i, j)
        for i, j in zip(*linear_sum_assignment(-(iou > threshold).astype(float)), strict=True)
        if iou[i, j] > threshold
    ]
    return len(pairs), len(found) - len(pairs), len(own) - len(pairs), sum(iou[pair] for pair in pairs)


def test_perfect():
    scores = object_scores(match_objects(bars(5, 9), bars(5, 9)))
    assert scores.average_precision == scores.panoptic_quality == scores.segmentation_quality == 1
    assert scores.average_precision_at.tolist() == [1.0] * 10


def test_values_by_hand():
    # Objects of 10, 10, 10 pixels; found: 9 of the first (IoU .9), 6 of the second (.6), 4 of the third (.4, no match).
    counts = match_objects(bars(10, 10, 10), bars(9, 6, 4))
    # Above .50 and .55: 2 hits of 3; at .60 IoU .6 is not above .6; .60 to .85: 1 hit; at .90 .9 is not above .9: none.
    assert counts.true_positives == (2, 2, 1, 1, 1, 1, 1, 1, 0, 0)
    assert counts.false_positives == counts.false_negatives == (1, 1, 2, 2, 2, 2, 2, 2, 3, 3)
    scores = object_scores(counts)
    # 2 / (2 + 1 + 1) twice, 1 / (1 + 2 + 2) six times.
    assert scores.average_precision == pytest.approx((2 * 0.5 + 6 * 0.2) / 10)
    # PQ = (.9 + .6) / (2 + 1/2 + 1/2); SQ = .75; RQ = 2/3.
    assert scores.panoptic_quality == pytest.approx(0.5)
    assert scores.segmentation_quality == pytest.approx(0.75)
    assert scores.recognition_quality == pytest.approx(2 / 3)


def test_iou_of_exactly_the_threshold_is_no_match():
    for percent, length in [(50, 10), (55, 11), (70, 14), (95, 19)]:  # of 20; 0.55 and 0.7 have no exact float
        counts = match_objects(bars(20), bars(length))
        assert counts.true_positives == tuple(int(percent / 100 > t + 1e-9) for t in THRESHOLDS)


def test_split_and_merge_by_hand():
    whole, halves = bars(20), bars(20)
    halves[0, 12:] = 2
    split = match_objects(whole, halves)  # 12 / 20 matches up to .55, the other part is a false positive
    assert split.true_positives == (1, 1, *[0] * 8)
    assert (split.false_positives[0], split.false_negatives[0]) == (1, 0)
    merge = match_objects(halves, whole)
    assert (merge.false_positives[0], merge.false_negatives[0]) == (0, 1)
    assert merge.iou_sum == split.iou_sum == 0.6


def test_nothing_at_all_is_no_score_and_leaves_the_mean_alone():
    nothing = match_objects(np.zeros((3, 3), int), np.zeros((3, 3), int))
    scores = object_scores(nothing)
    assert np.isnan([scores.average_precision, scores.panoptic_quality, scores.recognition_quality]).all()
    assert np.isnan(scores.average_precision_at).all()
    assert scores.to_dict()["average_precision"] is None
    right = match_objects(bars(4), bars(4))
    assert object_scores(right + nothing).average_precision == 1
    assert object_scores(right + nothing).images == 1


def test_empty_truth_with_predictions_is_zero_and_so_is_the_reverse():
    for counts in (match_objects(bars(0), bars(3)), match_objects(bars(3), bars(0))):
        scores = object_scores(counts)
        assert (scores.average_precision, scores.panoptic_quality, scores.recognition_quality) == (0, 0, 0)
        assert np.isnan(scores.segmentation_quality)  # a mean over no match
    both = match_objects(bars(3), bars(3)) + match_objects(bars(0), bars(3))
    assert object_scores(both).average_precision == 0.5


def test_ignored_pixels_are_in_no_object():
    truth, prediction = bars(10, 10), bars(10, 4)
    ignore = np.zeros(truth.shape, bool)
    ignore[1, 4:] = True  # what the second lacks
    assert object_scores(match_objects(truth, prediction, ignore)).panoptic_quality == 1
    ignore[1] = True  # the second is gone on both sides
    assert match_objects(truth, prediction, ignore) == match_objects(bars(10), bars(10))
    ignore[:] = True
    assert match_objects(truth, prediction, ignore) == MatchCounts()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("noise", [0.05, 0.25, 0.6])
def test_counts_equal_the_slow_definition(seed, noise):
    truth, prediction = random_case(seed, noise=noise)
    counts = match_objects(truth, prediction)
    for at, threshold in enumerate(THRESHOLDS):
        found = counts.true_positives[at], counts.false_positives[at], counts.false_negatives[at]
        assert found == slow_counts(truth, prediction, threshold)[:3]
    assert counts.iou_sum == pytest.approx(slow_counts(truth, prediction, 0.5)[3])


@pytest.mark.parametrize("seed", range(4))
def test_scores_do_not_depend_on_numbers_or_direction(seed):
    truth, prediction = random_case(seed)
    counts = match_objects(truth, prediction)
    numbers = np.array([0, 70_000, 3, 2**40, 1, 12])
    assert match_objects(numbers[truth], np.array([0, 5, 4, 3, 2, 1])[prediction]) == counts
    assert match_objects(truth.T, prediction.T) == counts
    assert match_objects(truth[:, ::-1], prediction[:, ::-1]) == counts
    swapped = match_objects(prediction, truth)
    assert swapped.true_positives == counts.true_positives
    assert swapped.false_positives == counts.false_negatives
    values = object_scores(counts).to_dict()
    assert all(0 <= values[name] <= 1 for name in ("average_precision", "panoptic_quality", "segmentation_quality"))


def test_counts_add_over_images():
    cases = [random_case(seed) for seed in range(3)]
    total = sum((match_objects(*case) for case in cases), MatchCounts())
    assert total.images == 3
    single = [object_scores(match_objects(*case)) for case in cases]
    assert object_scores(total).average_precision == pytest.approx(
        np.mean([score.average_precision for score in single])
    )
    hits = np.sum([slow_counts(*case, 0.5) for case in cases], axis=0)
    assert object_scores(total).average_precision_at[0] == pytest.approx(hits[0] / hits[:3].sum())
    assert object_scores(total).panoptic_quality == pytest.approx(hits[3] / (hits[0] + hits[1] / 2 + hits[2] / 2))


@pytest.mark.parametrize("factor", [1, 1000, 2**40])  # a full table, a sorted one, numbers that are made smaller first
def test_contingency_equals_scikit_learn(factor):
    truth, prediction = random_case(3)
    row, column, pixels = instances.contingency(truth * factor, prediction * factor)
    expected = contingency_matrix(truth.ravel(), prediction.ravel())
    assert pixels.tolist() == expected[expected > 0].tolist()
    assert np.unique(row).tolist() == (np.unique(truth) * factor).tolist()
    assert np.unique(column).tolist() == (np.unique(prediction) * factor).tolist()


def test_classes_are_scored_one_by_one():
    truth = np.array([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [2, 2, 2, 255, 2]])
    prediction = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [2, 2, 2, 2, 2]])
    background, one, two, three = match_classes(truth, prediction, 4)
    assert object_scores(one).panoptic_quality == pytest.approx(1 / 1.5)  # one right, one missed
    assert object_scores(two).panoptic_quality == 1  # 255 cuts truth and prediction alike: two parts each
    assert two.true_objects == two.predicted_objects == 2
    assert object_scores(background).panoptic_quality == pytest.approx(6 / 8)  # 6 of 8 pixels
    assert np.isnan(object_scores(three).panoptic_quality)
    assert mean_panoptic_quality((one, two, three)) == pytest.approx((1 / 1.5 + 1) / 2)
    assert np.isnan(mean_panoptic_quality((three,)))


def test_right_masks_score_one_whatever_is_ignored():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (20, 20))
    prediction = truth.copy()
    truth[rng.random(truth.shape) < 0.3] = 255
    for connectivity in (4, 8):
        assert mean_panoptic_quality(match_classes(truth, prediction, 3, connectivity=connectivity)) == 1


def test_parts_that_touch_by_a_corner_are_one_object_by_default():
    corner = np.eye(2, dtype=bool)
    assert (parts_of(corner).max(), parts_of(corner, 4).max()) == (1, 2)
    with pytest.raises(ConfigError, match="connectivity must be 4"):
        parts_of(corner, 6)


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(DataError, match=r"truth is \(2, 20\), prediction \(1, 20\)"):
        match_objects(bars(1, 1), bars(1))
    with pytest.raises(DataError, match="whole numbers"):
        match_objects(bars(1), bars(1) / 2)
    with pytest.raises(DataError, match="holds -1"):
        match_objects(bars(1) - 1, bars(1))
