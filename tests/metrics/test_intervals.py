"""Bootstrap intervals: against loops over the draws, against a known truth, and where there is none."""

import numpy as np
import pytest

from intarsia.errors import ConfigError, DataError
from intarsia.metrics import overlap_scores
from intarsia.metrics.intervals import draws, interval, paired_difference


def matrices(seed, images=12, num_classes=3):
    """Confusion matrices, the last class in two images only."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 40, (images, num_classes, num_classes)) + 60 * np.eye(num_classes, dtype=int)
    counts[2:, -1] = counts[2:, :, -1] = 0
    return counts


def mean_iou(counts):
    return overlap_scores(counts).mean_iou


def named(data):
    return {f"{number:03}.png": part for number, part in enumerate(data)}


@pytest.mark.parametrize("images", [1, 2, 7, 900])
def test_each_draw_has_as_many_images_as_there_are(images):
    weights = np.concatenate(list(draws(images, 3000, seed=4)))
    assert weights.shape == (3000, images)
    assert (weights.sum(1) == images).all()
    assert weights.mean() == 1
    if images > 1:  # multinomial: variance 1 - 1 / I
        assert weights.var() == pytest.approx(1 - 1 / images, rel=0.1)


def test_interval_of_a_score_equals_a_loop_over_draws_and_images():
    counts = matrices(0)
    scores = []
    for weights in np.concatenate(list(draws(len(counts), 200, seed=3))):
        total = np.zeros((3, 3), np.int64)
        for weight, part in zip(weights, counts, strict=True):
            for _ in range(int(weight)):
                total += part
        scores.append(mean_iou(total))
    low, high = interval(counts, mean_iou, rounds=200, seed=3)
    assert (low, high) == pytest.approx(tuple(np.percentile(scores, [2.5, 97.5])))


def test_interval_of_means_equals_a_loop_and_leaves_nan_out():
    values = np.array([[0.1, np.nan], [0.5, 0.2], [0.9, 0.4], [np.nan, np.nan], [0.3, 0.9]])
    means = []
    for weights in np.concatenate(list(draws(5, 300, seed=1))):
        drawn = np.repeat(values, weights.astype(int), axis=0)
        means.append([c[~np.isnan(c)].mean() if (~np.isnan(c)).any() else np.nan for c in drawn.T])
    low, high = interval(values, rounds=300, seed=1)
    assert low == pytest.approx(np.nanpercentile(means, 2.5, axis=0))
    assert high == pytest.approx(np.nanpercentile(means, 97.5, axis=0))


def test_score_may_be_an_array_with_nan():
    counts = matrices(1)
    low, high = interval(counts, lambda total: overlap_scores(total).iou, rounds=300)
    whole = overlap_scores(counts.sum(0)).iou
    assert low.shape == (3,)
    assert ((low <= whole) & (whole <= high)).all()  # the draws without class 2 are left out for it


def test_seed_is_all_that_chance_depends_on():
    counts = matrices(2)
    one = interval(counts, mean_iou, rounds=100, seed=1)
    np.random.default_rng().random(3)
    assert interval(counts, mean_iou, rounds=100, seed=1) == one
    assert interval(counts, mean_iou, rounds=100, seed=2) != one
    a, b = named(counts), named(matrices(2))
    backwards = dict(reversed(a.items()))
    assert paired_difference(a, b, mean_iou, rounds=50) == paired_difference(backwards, b, mean_iou, rounds=50)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        low, high = interval(rng.beta(4, 2, 40), rounds=400, seed=trial)
        covered += low <= 4 / 6 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_interval_of_a_score_covers_the_truth():
    rng = np.random.default_rng(12)
    covered = 0
    for trial in range(150):  # images of unlike difficulty: pixels of one image go together
        right = rng.binomial(1000, rng.beta(8, 2, 40))
        counts = np.zeros((40, 2, 2), np.int64)
        counts[:, 0, 0], counts[:, 0, 1] = right, 1000 - right
        low, high = interval(counts, lambda total: total[0, 0] / total.sum(), rounds=200, seed=trial)
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 150 <= 0.99


def test_more_images_and_a_lower_level_narrow_it():
    values = np.random.default_rng(0).random(400)
    (few_low, few_high), (low, high) = interval(values[:25]), interval(values)
    assert high - low < few_high - few_low
    narrow_low, narrow_high = interval(values, level=0.5)
    assert low < narrow_low < values.mean() < narrow_high < high


@pytest.mark.parametrize("images", [0, 1])
def test_fewer_than_two_images_have_no_interval(images):
    assert np.isnan(interval(matrices(0)[:images], mean_iou, rounds=9)).all()
    assert np.isnan(interval(np.ones(images), rounds=9)).all()
    difference = paired_difference(named(matrices(0)[:images]), named(matrices(0)[:images]), mean_iou, rounds=9)
    assert np.isnan([difference.low, difference.high]).all()
    assert not difference.sure


def test_images_that_say_nothing_are_no_images():
    counts = np.zeros((5, 2, 2), np.int64)
    counts[3] = [[5, 1], [1, 5]]
    assert np.isnan(interval(counts, mean_iou, rounds=9)).all()
    assert np.isnan(interval([np.nan, 0.5, np.nan], rounds=9)).all()
    assert np.isnan(interval([np.nan] * 4, rounds=9)).all()


def test_equal_images_have_an_interval_of_no_width():
    low, high = interval(np.tile([[8, 2], [1, 9]], (6, 1, 1)), mean_iou, rounds=50)
    assert low == high == pytest.approx(mean_iou(np.array([[8, 2], [1, 9]])))


def test_pairing_sees_what_two_intervals_cannot():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.2, 0.9, 60)
    better, worse = named(hard + 0.02 + rng.normal(0, 0.005, 60)), named(hard)
    difference = paired_difference(better, worse)
    assert float(difference.value) == pytest.approx(0.02, abs=0.005)
    assert difference.low > 0
    assert difference.sure
    assert interval(list(better.values()))[0] < interval(list(worse.values()))[1]
    back = paired_difference(worse, better)
    assert (back.value, back.low, back.high) == pytest.approx((-difference.value, -difference.high, -difference.low))


def test_model_does_not_differ_from_itself():
    difference = paired_difference(named(matrices(5)), named(matrices(5)), mean_iou, rounds=50)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert not difference.sure


def test_difference_of_a_score_equals_a_loop():
    truth = matrices(6)
    other = truth.copy()
    other[:, 0, 0] -= 10
    other[:, 0, 1] += 10
    difference = paired_difference(named(truth), named(other), mean_iou, rounds=100, seed=8)
    each = []
    for weights in np.concatenate(list(draws(12, 100, seed=8))):
        totals = [np.tensordot(weights, side, 1).astype(np.int64) for side in (truth, other)]
        each.append(mean_iou(totals[0]) - mean_iou(totals[1]))
    assert (difference.low, difference.high) == pytest.approx(tuple(np.percentile(each, [2.5, 97.5])))
    assert difference.value == pytest.approx(mean_iou(truth.sum(0)) - mean_iou(other.sum(0)))


def test_different_images_are_refused_in_one_line():
    first, second = named(matrices(0)), named(matrices(0))
    del second["003.png"]
    with pytest.raises(
        DataError, match=r"different images: 1 are on one side only, such as 003\.png \(first\)"
    ) as refusal:
        paired_difference(first, second, mean_iou)
    assert "\n" not in str(refusal.value)


def test_different_masks_are_refused():
    first, second = named(matrices(0)), named(matrices(0))
    second["004.png"] = second["004.png"] + 1
    with pytest.raises(DataError, match=r"004\.png: .* different masks"):
        paired_difference(first, second, mean_iou)


def test_wrong_arguments_are_refused():
    with pytest.raises(DataError, match="confusion matrices"):
        interval(np.ones(5), mean_iou)
    with pytest.raises(DataError, match="one number"):
        interval(0.5)
    with pytest.raises(ConfigError, match="rounds"):
        interval(np.ones(5), rounds=0)
    with pytest.raises(ConfigError, match="95 %"):
        interval(np.ones(5), level=95)
