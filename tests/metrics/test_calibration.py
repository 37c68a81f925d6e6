"""Calibration scores against the definitions and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from intarsia.errors import ConfigError, DataError
from intarsia.metrics.calibration import CalibrationCounts, calibration_counts, calibration_scores


def case(seed, num_classes, shape=(3, 11, 13), ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape[0], num_classes, *shape[1:], generator=generator, dtype=torch.float64)
    mask = torch.randint(0, max(1, num_classes - 1), shape, generator=generator).to(torch.uint8)  # the last is absent
    mask[torch.rand(shape, generator=generator) < ignored] = 255
    return logits, mask


def oracle(logits, mask, bins):
    """ECE, MCE and Brier score, one pixel after the other."""
    held, errors = [[] for _ in range(bins)], []
    for n, row, column in np.argwhere(mask.numpy() != 255):
        z = logits[n, :, row, column].numpy()
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        truth = int(mask[n, row, column])
        place = next(m for m in range(bins) if p.max() <= (m + 1) / bins or m == bins - 1)
        held[place].append((p.max(), p.argmax() == truth))
        errors.append(((p - np.eye(len(p))[truth]) ** 2).sum())
    gaps = [(len(h), abs(np.mean([r for _, r in h]) - np.mean([c for c, _ in h]))) for h in held if h]
    return sum(n * gap for n, gap in gaps) / len(errors), max(gap for _, gap in gaps), np.mean(errors)


def found(scores):
    return scores.expected_calibration_error, scores.maximum_calibration_error, scores.brier_score


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
def test_scores_equal_the_definitions(num_classes, bins):
    logits, mask = case(num_classes, num_classes)
    scores = calibration_scores(calibration_counts(logits, mask, bins=bins))
    assert found(scores) == pytest.approx(oracle(logits, mask, bins), abs=1e-12)


def test_curve_and_brier_score_equal_scikit_learn():
    logits, mask = case(0, 4, ignored=0.3)
    kept = mask != 255
    p = logits.softmax(1).movedim(1, -1)[kept].numpy()
    truth = mask[kept].long().numpy()
    scores = calibration_scores(calibration_counts(logits, mask, bins=10))
    accuracy, confidence = calibration_curve(p.argmax(1) == truth, p.max(1), n_bins=10)
    there = scores.bin_pixels > 0
    assert scores.bin_accuracy[there] == pytest.approx(accuracy)
    assert scores.bin_confidence[there] == pytest.approx(confidence)
    each = [brier_score_loss(truth == k, p[:, k], pos_label=True) for k in range(4)]
    assert scores.brier_score == pytest.approx(sum(each))


def test_probabilities_and_logits_are_the_same():
    logits, mask = case(1, 5)
    one, other = calibration_counts(logits, mask), calibration_counts(logits.softmax(1), mask, probabilities=True)
    assert found(calibration_scores(one)) == pytest.approx(found(calibration_scores(other)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_summed_in_high(dtype):
    logits, mask = case(2, 5)
    scores = calibration_scores(calibration_counts(logits.to(dtype), mask))
    exact = calibration_scores(calibration_counts(logits.to(dtype).double(), mask))
    assert found(scores) == pytest.approx(found(exact), abs=1e-6)


def test_bins_are_closed_above():
    p = torch.tensor([[0.5, 0.75, 0.625], [0.5, 0.25, 0.375]]).reshape(1, 2, 1, 3)
    counts = calibration_counts(p, torch.zeros(1, 1, 3, dtype=torch.uint8), bins=4, probabilities=True)
    assert counts.pixels.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("num_classes", [2, 5, 19])
def test_peers_row_18_perfect_is_best(num_classes):
    _, mask = case(1, num_classes)
    truth = torch.where(mask == 255, 0, mask).long()
    logits = 100.0 * torch.nn.functional.one_hot(truth, num_classes).movedim(-1, 1)
    scores = calibration_scores(calibration_counts(logits, mask))
    assert (*found(scores), scores.accuracy, scores.confidence) == (0, 0, 0, 1, 1)


def test_surely_wrong_is_worst():
    logits = torch.tensor([100.0, 0.0]).reshape(1, 2, 1, 1)
    assert found(calibration_scores(calibration_counts(logits, torch.ones(1, 1, 1, dtype=torch.uint8)))) == (1, 1, 2)


def test_model_that_means_what_it_says_has_no_error():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, (1, 400, 500))
    mask = torch.from_numpy((rng.random(p.shape) > p).astype(np.uint8))
    counts = calibration_counts(torch.from_numpy(np.stack([p, 1 - p], 1)), mask, probabilities=True)
    assert calibration_scores(counts).expected_calibration_error < 0.01


def test_peers_rows_20_and_21_ignored_pixels_are_in_no_bin_and_none_is_lost():
    logits, mask = case(3, 5, ignored=0.5)
    counts = calibration_counts(logits, mask)
    assert counts.ignored == int((mask == 255).sum())
    assert counts.pixels.sum() + counts.ignored == mask.numel()
    other = torch.where((mask == 255)[:, None], float("nan"), logits)
    assert calibration_counts(other, mask).squared_error == counts.squared_error


def test_counts_add_over_images():
    logits, mask = case(4, 5)
    parts = [calibration_counts(logits[n : n + 1], mask[n : n + 1]) for n in range(3)]
    total = calibration_scores(sum(parts, CalibrationCounts.zero()))
    whole = calibration_scores(calibration_counts(logits, mask))
    assert found(total) == pytest.approx(found(whole))
    assert total.bin_pixels.tolist() == whole.bin_pixels.tolist()
    with pytest.raises(ConfigError, match="15 and 4 bins"):
        parts[0] + CalibrationCounts.zero(4)


def test_classes_may_be_renamed_and_images_transposed():
    logits, mask = case(5, 5)
    scores, order = found(calibration_scores(calibration_counts(logits, mask))), torch.tensor([3, 0, 4, 1, 2])
    renamed = torch.where(mask == 255, 255, order.argsort()[mask.long() % 5]).to(torch.uint8)
    assert found(calibration_scores(calibration_counts(logits[:, order], renamed))) == pytest.approx(scores)
    assert found(calibration_scores(calibration_counts(logits.mT, mask.mT))) == pytest.approx(scores)


@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 3, 3)])
def test_nothing_counted_has_no_score(shape):
    mask = torch.full(shape, 255, dtype=torch.uint8)
    scores = calibration_scores(calibration_counts(torch.zeros(shape[0], 3, *shape[1:]), mask))
    assert np.isnan(found(scores)).all()
    assert scores.to_dict()["expected_calibration_error"] is None


def test_wrong_arguments_are_refused():
    logits, mask = case(6, 3)
    with pytest.raises(DataError, match="For logits leave"):
        calibration_counts(logits, mask, probabilities=True)
    with pytest.raises(DataError, match="NaN"):
        calibration_counts(logits * float("nan"), mask)
    with pytest.raises(DataError, match="mask holds 3"):
        calibration_counts(logits, torch.where(mask == 255, 255, 3).to(torch.uint8))
    with pytest.raises(DataError, match="mask \\(N, H, W\\)"):
        calibration_counts(logits, mask[:, 1:])
    with pytest.raises(ConfigError, match="at least 1"):
        calibration_counts(logits, mask, bins=0)
